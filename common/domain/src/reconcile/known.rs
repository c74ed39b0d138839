//! The known state of a table while it is reconciled: its contents as read, changed by the steps of a dry run.

use std::collections::HashMap;

use super::Step;
use crate::{Allocation, Inventory, Lease, LeaseEnd, LeaseKey, Sandbox, SandboxId, Status, Term};

/// What was read of the table.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(super) sandboxes: HashMap<SandboxId, Sandbox>,
    pub(super) leases: HashMap<LeaseKey, Lease>,
}

impl Known {
    /// Adds a sandbox, or replaces what was known of it.
    pub fn add_sandbox(&mut self, sandbox: Sandbox) {
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// Adds a lease, or replaces what was known of its key.
    pub fn add_lease(&mut self, lease: Lease) {
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Forgets the sandbox and the lease that a step is about.
    pub fn forget(&mut self, step: &Step) {
        self.sandboxes.remove(step.sandbox_id());
        step.lease_key().map(|key| self.leases.remove(key));
    }

    /// Whether there is no sandbox.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty()
    }

    /// The same as [`suspects`](crate::suspects) judges it.
    pub fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        self.sandboxes.values().for_each(|sandbox| inventory.add_sandbox(sandbox));
        self.leases.values().for_each(|lease| inventory.add_lease(lease));
        inventory
    }

    pub(super) fn live(&self, key: &LeaseKey) -> Option<&Lease> {
        self.leases.get(key).filter(|lease| lease.end.is_none())
    }

    /// What would be known after `step`.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Insert { sandbox_id, name, external_id } => self.add_sandbox(Sandbox {
                id: sandbox_id.clone(),
                name: name.clone(),
                external_id: external_id.clone(),
                attributes: crate::ProviderAttributes::default(),
                status: Status::Arriving,
                version: 1,
                allocation: None,
                term: Term::default(),
                deletion_requested_at: None,
                end_reason: None,
            }),
            Step::Bind { sandbox, lease, .. } => {
                let status = Status::Allocated;
                let allocation = Some(allocation_of(lease));
                self.add_sandbox(Sandbox {
                    status,
                    version: sandbox.version + 1,
                    allocation,
                    ..sandbox.clone()
                });
                self.add_lease(Lease::clone(lease));
            }
            Step::EndLease { lease, end } => {
                self.add_lease(Lease { end: Some(end.clone()), ..lease.clone() })
            }
            Step::Retire { sandbox, allocation, end } => self.add_sandbox(retired(sandbox, allocation, end)),
            Step::End { sandbox, allocation, end } => {
                self.add_sandbox(retired(sandbox, allocation, end));
                if let Some(lease) = self.leases.get_mut(&allocation.lease_key) {
                    lease.end = Some(end.clone());
                }
            }
            Step::Missing { sandbox } => self.add_sandbox(Sandbox {
                status: Status::Stale,
                version: sandbox.version + 1,
                ..sandbox.clone()
            }),
        }
    }
}

pub(super) fn allocation_of(lease: &Lease) -> Allocation {
    Allocation {
        id: lease.allocation_id,
        lease_key: lease.key.clone(),
        track_name: lease.grant.track_name.clone(),
        allocated_at: lease.grant.allocated_at,
        expires_at: lease.grant.expires_at,
        permit: lease.permit.clone(),
    }
}

fn retired(sandbox: &Sandbox, allocation: &Allocation, end: &LeaseEnd) -> Sandbox {
    Sandbox {
        status: Status::PendingDeletion,
        version: sandbox.version + 1,
        allocation: Some(allocation.clone()),
        deletion_requested_at: Some(end.at),
        end_reason: Some(end.reason),
        ..sandbox.clone()
    }
}
