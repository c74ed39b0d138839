//! The steps of a reconciliation, each one write of the table.

use crate::{Allocation, ExternalId, Lease, LeaseEnd, LeaseKey, Sandbox, SandboxId, SandboxName};

/// One write, on the condition that all it names is as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A sandbox that the table lacks enters it; it cannot be claimed, the pool is closed.
    Insert {
        /// Ours.
        sandbox_id: SandboxId,
        /// The provider's name.
        name: SandboxName,
        /// The provider's id.
        external_id: ExternalId,
    },
    /// Lease and sandbox point to each other from now on.
    Bind {
        /// As it was read: without a lease, or with this one.
        sandbox: Sandbox,
        /// What stands at the lease's key: nothing, an ended one, or this one.
        stands: Option<Box<Lease>>,
        /// As it shall be.
        lease: Box<Lease>,
    },
    /// A lease ends whose sandbox is out of its hands.
    EndLease {
        /// As it was read, live.
        lease: Lease,
        /// How it ended.
        end: LeaseEnd,
    },
    /// A sandbox goes the way of every used one; no live lease points to it.
    Retire {
        /// As it was read.
        sandbox: Sandbox,
        /// Who had it.
        allocation: Allocation,
        /// How that ended.
        end: LeaseEnd,
    },
    /// Lease and sandbox end together.
    End {
        /// As it was read.
        sandbox: Sandbox,
        /// By which it is held.
        allocation: Allocation,
        /// How it ended.
        end: LeaseEnd,
    },
    /// The provider does not list it any more.
    Missing {
        /// As it was read, available.
        sandbox: Sandbox,
    },
}

impl Step {
    /// The sandbox that it is about.
    pub const fn sandbox_id(&self) -> &SandboxId {
        match self {
            Self::Insert { sandbox_id, .. } => sandbox_id,
            Self::EndLease { lease, .. } => &lease.grant.sandbox_id,
            Self::Bind { sandbox, .. }
            | Self::Retire { sandbox, .. }
            | Self::End { sandbox, .. }
            | Self::Missing { sandbox } => &sandbox.id,
        }
    }

    /// The lease that it is about, if one is.
    pub fn lease_key(&self) -> Option<&LeaseKey> {
        match self {
            Self::Bind { lease, .. } => Some(&lease.key),
            Self::EndLease { lease, .. } => Some(&lease.key),
            Self::End { allocation, .. } => Some(&allocation.lease_key),
            Self::Insert { .. } | Self::Retire { .. } | Self::Missing { .. } => None,
        }
    }
}
