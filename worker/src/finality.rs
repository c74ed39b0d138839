//! Errors of handlers, and their finality: whether a message that was not done can ever be done.
//!
//! **Unknown is not final.** An error that can pass (credentials, rights, an outage, an index that is being built) never makes a
//! message a dead letter. A write that the table refuses is final only if the table takes another write in between and refuses this
//! one again: otherwise the table refuses all writes, which passes.

use broker_domain::{Allocation, Inventory, Lease, LeaseKey, Sandbox, SandboxId, Status, suspects};
use broker_queue::SendError;
use broker_store::{Scanned, Store, StoreError};

/// Why a message is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlerError {
    /// The table did not answer, or has an invalid item.
    #[error("the table failed")]
    Store(#[from] StoreError),
    /// A lease does not agree with its sandbox or its permit; an operator has to decide which is right.
    #[error(
        "the lease of track {} with key {} does not agree with sandbox {sandbox} or with its permit",
        key.track,
        key.key
    )]
    Inconsistent {
        /// The lease.
        key: LeaseKey,
        /// The sandbox that it points to, or that is held by its key.
        sandbox: SandboxId,
    },
    /// The state of a sandbox, or the reason of its end, is a newer program's.
    #[error("sandbox {sandbox} is in a state of a newer program")]
    Newer {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// It is done, but its reply failed.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

/// Why a reply failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    /// The outcome could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reply could not be sent. If SQS does not take it, the outcome is stored.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl HandlerError {
    /// Whether the request can ever succeed.
    pub(crate) const fn finality(&self) -> Finality {
        match self {
            Self::Inconsistent { .. } => Finality::Final("inconsistent_lease"),
            Self::Newer { .. } => Finality::Newer,
            Self::Store(error) | Self::Reply(ReplyError::Store(error)) => {
                Finality::of(error, "malformed_item", "table_refused")
            }
            Self::Reply(ReplyError::Send(error)) => Finality::of_send(error),
        }
    }
}

/// That a key's lease agrees with its sandbox and its permit at one instant, after they could not be ended together: then another
/// request was faster and another look helps. If they do not, nothing that a request may do will ever help.
///
/// # Errors
///
/// [`HandlerError::Inconsistent`] if they do not agree, [`HandlerError::Newer`] if only a newer program can tell, and the table's.
pub(crate) async fn must_agree(store: &Store, key: &LeaseKey) -> Result<(), HandlerError> {
    let lease = store.leases.get(key).await?;
    let Some(lease) = lease.filter(|lease| lease.end.is_none()) else { return Ok(()) };
    agrees(&lease, &together(store, &lease.grant.sandbox_id, &lease.allocation()).await?)
}

/// The same of a sandbox that was read as held by `allocation`, whose lease may be the one that is missing.
///
/// # Errors
///
/// As [`must_agree`].
pub(crate) async fn must_be_held(
    store: &Store,
    sandbox: &SandboxId,
    allocation: &Allocation,
) -> Result<(), HandlerError> {
    is_held(sandbox, allocation, &together(store, sandbox, allocation).await?)
}

/// A sandbox, the lease of an allocation's key and its permit, read at one instant.
async fn together(
    store: &Store,
    sandbox: &SandboxId,
    allocation: &Allocation,
) -> Result<Scanned, StoreError> {
    let (sandbox, key) = (std::slice::from_ref(sandbox), std::slice::from_ref(&allocation.lease_key));
    store.scans.together(sandbox, key, &[], allocation.permit.as_slice()).await
}

/// That `lease`, which was live, agrees with what was read `together` after it: its key's lease, its sandbox and its permit. If the
/// key has another lease by then, that one has another sandbox, and this one is over.
fn agrees(lease: &Lease, together: &Scanned) -> Result<(), HandlerError> {
    let is_as_read = |now: &Lease| now.end.is_none() && now.allocation_id == lease.allocation_id;
    if !together.leases.iter().any(is_as_read) {
        return Ok(());
    }
    agree(&lease.grant.sandbox_id, &lease.allocation(), together)
}

/// That `sandbox`, which was held by `allocation`, is held with its live lease and its permit in what was read `together` after it. If
/// it is not held by that any more, this one is over.
fn is_held(sandbox: &SandboxId, allocation: &Allocation, together: &Scanned) -> Result<(), HandlerError> {
    let is_as_read = |now: &Sandbox| now.live_allocation().is_some_and(|now| now.id == allocation.id);
    if !together.sandboxes.iter().any(is_as_read) {
        return Ok(());
    }
    agree(sandbox, allocation, together)
}

/// That what was read `together` of an allocation is whole.
fn agree(sandbox: &SandboxId, allocation: &Allocation, together: &Scanned) -> Result<(), HandlerError> {
    let sandbox = sandbox.clone();
    if together.sandboxes.iter().any(|sandbox| sandbox.status == Status::Unknown) {
        return Err(HandlerError::Newer { sandbox });
    }
    let mut inventory = Inventory::default();
    together.sandboxes.iter().for_each(|sandbox| inventory.add_sandbox(sandbox));
    together.leases.iter().for_each(|lease| inventory.add_lease(lease));
    // A permit that is missing is in no write's way.
    let is_anothers = together.permits.iter().any(|permit| permit.allocation_id != allocation.id);
    // One that cannot be read is in the way of every write.
    let is_unreadable =
        allocation.permit.is_some() && together.permits.is_empty() && !together.unreadable.is_empty();
    match suspects(&inventory).is_empty() && !is_anothers && !is_unreadable {
        true => Ok(()),
        false => Err(HandlerError::Inconsistent { key: allocation.lease_key.clone(), sandbox }),
    }
}

/// What one error says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finality {
    /// Trying again can help.
    Passes,
    /// The table refused the write; it ends as a dead letter of this code, once that is confirmed.
    Refused(&'static str),
    /// It ends as a dead letter of this code.
    Final(&'static str),
    /// Only a newer worker can tell.
    Newer,
}

impl Finality {
    /// Of an error of the table: the codes of an item that cannot be read, and of a write that is refused.
    pub(crate) const fn of(error: &StoreError, malformed: &'static str, refused: &'static str) -> Self {
        match error {
            StoreError::Malformed { .. } => Self::Final(malformed),
            StoreError::Refused { .. } => Self::Refused(refused),
            StoreError::Conflict
            | StoreError::Unavailable { .. }
            | StoreError::NoTable { .. }
            | StoreError::Denied { .. } => Self::Passes,
        }
    }

    /// Of a reply that was not sent.
    pub(crate) const fn of_send(error: &SendError) -> Self {
        match error {
            SendError::Refused { .. } => Self::Final("refused"),
            SendError::Gone { .. } | SendError::Unavailable { .. } => Self::Passes,
        }
    }
}

/// What to do with a message that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try it again after a pause.
    Later,
    /// Try it again at once: the table takes writes.
    AtOnce,
    /// It is a dead letter of this code.
    End(&'static str),
    /// Leave it to a newer worker.
    Newer,
}

/// The refusals of one message.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The table took another write since it refused this one.
    confirmed: bool,
}

impl Refusals {
    /// What `finality` means after all that happened to the message before.
    pub(crate) async fn judge(&mut self, finality: Finality, store: &Store) -> Next {
        match finality {
            Finality::Final(code) => Next::End(code),
            Finality::Newer => Next::Newer,
            Finality::Refused(code) if self.confirmed => Next::End(code),
            Finality::Refused(_) => {
                self.confirmed = store.takes_writes().await.is_ok();
                if self.confirmed { Next::AtOnce } else { Next::Later }
            }
            Finality::Passes => {
                self.confirmed = false;
                Next::Later
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker_domain::{Allocation, Limit, NamePrefix, Permit, PermitRecord, TenantName};

    use super::*;
    use crate::samples::{allocation, allocation_id, end, key, lease, sandbox};

    #[test]
    fn a_lease_is_compared_with_its_own_sandbox_and_not_with_that_of_the_next_one() {
        let is_wrong = |together: &Scanned| {
            matches!(agrees(&lease(1, None), together), Err(HandlerError::Inconsistent { .. }))
        };
        let read = |leases, status, of: Option<Allocation>| Scanned {
            sandboxes: vec![sandbox(1, status, of)],
            leases,
            ..Scanned::default()
        };
        let held = || read(vec![lease(1, None)], Status::Allocated, Some(allocation(1)));
        assert!(!is_wrong(&held()));
        // A replacement was faster: the key has another lease, of another sandbox.
        let next = Lease { key: key(1), ..lease(2, None) };
        let replaced = read(vec![next], Status::PendingDeletion, Some(allocation(1)));
        assert!(!is_wrong(&replaced), "the next lease is healthy");
        assert!(!is_wrong(&read(vec![lease(1, Some(end(300)))], Status::PendingDeletion, None)), "it ended");
        assert!(is_wrong(&read(vec![lease(1, None)], Status::PendingDeletion, Some(allocation(1)))));
        assert!(is_wrong(&read(vec![lease(1, None)], Status::Available, None)));
        let newer = read(vec![lease(1, None)], Status::Unknown, Some(allocation(1)));
        assert!(matches!(agrees(&lease(1, None), &newer), Err(HandlerError::Newer { .. })));
        let (tenant, prefix) = (TenantName::new("acme").unwrap(), NamePrefix::new("lab-").unwrap());
        let permit = Permit { limit: Limit { tenant, prefix }, slot: 0 };
        let taken_by = |number| Scanned {
            permits: vec![PermitRecord {
                permit: permit.clone(),
                allocation_id: allocation_id(number),
                lease_key: key(number),
            }],
            ..held()
        };
        assert!(!is_wrong(&taken_by(1)) && is_wrong(&taken_by(2)));
    }

    #[test]
    fn a_sandbox_that_is_held_without_the_live_lease_of_its_allocation_is_wrong_whatever_lease_its_key_has() {
        let is_wrong = |leases, status, of| {
            let together = Scanned { sandboxes: vec![sandbox(1, status, of)], leases, ..Scanned::default() };
            let held = sandbox(1, Status::Allocated, Some(allocation(1)));
            let told = is_held(&held.id, &allocation(1), &together);
            matches!(told, Err(HandlerError::Inconsistent { .. }))
        };
        let is_wrong_with = |leases| is_wrong(leases, Status::Allocated, Some(allocation(1)));
        assert!(!is_wrong_with(vec![lease(1, None)]));
        let next = Lease { key: key(1), ..lease(2, None) };
        for leases in [vec![], vec![lease(1, Some(end(300)))], vec![next]] {
            assert!(is_wrong_with(leases));
        }
        // It ended meanwhile, or is another allocation's.
        assert!(!is_wrong(vec![lease(1, Some(end(300)))], Status::PendingDeletion, Some(allocation(1))));
        assert!(!is_wrong(vec![], Status::Allocated, Some(allocation(2))));
        assert!(!is_wrong(vec![], Status::Unknown, Some(allocation(1))), "only a newer program can tell");
    }

    #[test]
    fn only_a_malformed_item_is_final_at_once_and_only_a_refused_write_may_become_so() {
        let source = || Box::<dyn std::error::Error + Send + Sync>::from("why");
        let of = |error: &StoreError| Finality::of(error, "malformed_item", "table_refused");
        for (error, finality) in [
            (StoreError::Conflict, Finality::Passes),
            (StoreError::NoTable { table: "t".to_owned() }, Finality::Passes),
            (StoreError::Unavailable { operation: "claim", source: source() }, Finality::Passes),
            (
                StoreError::Denied { operation: "claim", code: "ExpiredToken".to_owned(), source: source() },
                Finality::Passes,
            ),
            (
                StoreError::Refused { operation: "claim", source: source() },
                Finality::Refused("table_refused"),
            ),
            (
                StoreError::Malformed { item: "SBX#a".to_owned(), attribute: "name" },
                Finality::Final("malformed_item"),
            ),
        ] {
            assert_eq!(of(&error), finality, "{error:?}");
        }
    }

    #[test]
    fn a_reply_is_final_only_if_sqs_does_not_take_it() {
        let queue: Arc<str> = "q".into();
        let refused =
            SendError::Refused { queue: Arc::clone(&queue), code: "c".to_owned(), message: String::new() };
        assert_eq!(Finality::of_send(&refused), Finality::Final("refused"));
        assert_eq!(Finality::of_send(&SendError::Gone { queue }), Finality::Passes);
    }
}
