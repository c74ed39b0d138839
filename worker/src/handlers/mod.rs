//! Handlers of requests: from a request to its outcome. One file per kind; one match lists them.

mod allocate;
mod key_turns;
mod limits;
mod park;
mod permits;
mod return_sandbox;

use std::sync::Arc;
use std::time::Duration;

use broker_domain::{Inventory, LeaseKey, Outcome, SandboxId, Status, TenantName, TrackId, suspects};
use broker_messages::Request;
use broker_runtime::backoff::Backoff;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{FollowedPolicy, Store, StoreError};
use tokio::sync::Notify;

use crate::candidates::Candidates;
use crate::finality::HandlerError;

use allocate::LeaseLearnt;
use key_turns::KeyTurns;
use limits::LinesLearnt;
use park::ListedLines;
use permits::Permits;
use return_sandbox::{DefaultKeys, ReturnLearnt};

/// The pauses after conflicts; the first conflict counts as 1.
const ON_CONFLICT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(640));

/// The dependencies of all handlers.
#[derive(Debug)]
pub(crate) struct Handlers {
    store: Store,
    candidates: Candidates,
    clock: Clock,
    entropy: Entropy,
    policy: FollowedPolicy,
    permits: Permits,
    /// Looks at the lines of one tenant.
    lines: KeyTurns<TenantName, LinesLearnt>,
    /// Told when a permit is free again: somebody may wait for it.
    freed: Arc<Notify>,
    default_keys: DefaultKeys,
    /// Allocates of one lease key.
    leases: KeyTurns<LeaseKey, LeaseLearnt>,
    /// Lines that this process has listed.
    listed: ListedLines,
    /// Returns of one sandbox by one track.
    returns: KeyTurns<(SandboxId, TrackId), ReturnLearnt>,
}

impl Handlers {
    pub(crate) fn new(
        store: Store,
        candidates: Candidates,
        clock: Clock,
        entropy: Entropy,
        policy: FollowedPolicy,
        freed: Arc<Notify>,
    ) -> Self {
        let (leases, returns) = (KeyTurns::default(), KeyTurns::default());
        let permits = Permits::new(store.clone(), entropy.clone());
        Self {
            store,
            candidates,
            clock,
            entropy,
            policy,
            permits,
            lines: KeyTurns::default(),
            freed,
            default_keys: DefaultKeys::new(),
            leases,
            listed: ListedLines::default(),
            returns,
        }
    }

    /// The outcome of `request`, whose message is `text`; `None` if it stands in a line. Safe to call any number of times with the
    /// same request.
    pub(crate) async fn handle(
        &self,
        request: &Request,
        text: &str,
    ) -> Result<Option<Outcome>, HandlerError> {
        match request {
            Request::Allocate(request) => self.allocate(request, text).await,
            Request::Return(mark) => self.return_sandbox(mark).await.map(Some),
        }
    }

    /// That a key's lease and its sandbox agree at one instant, after they could not be ended together: then another request was
    /// faster and another look helps. If they do not, nothing that a request may do will ever help.
    async fn must_agree(&self, key: &LeaseKey) -> Result<(), HandlerError> {
        let lease = self.store.leases.get(key).await?;
        let Some(lease) = lease.filter(|lease| lease.end.is_none()) else { return Ok(()) };
        let sandbox = lease.grant.sandbox_id;
        let together = self
            .store
            .scans
            .together(std::slice::from_ref(&sandbox), std::slice::from_ref(key), &[], &[])
            .await?;
        if together.sandboxes.iter().any(|sandbox| sandbox.status == Status::Unknown) {
            return Err(HandlerError::Newer { sandbox });
        }
        let mut inventory = Inventory::default();
        together.sandboxes.iter().for_each(|sandbox| inventory.add_sandbox(sandbox));
        together.leases.iter().for_each(|lease| inventory.add_lease(lease));
        match suspects(&inventory).is_empty() {
            true => Ok(()),
            false => Err(HandlerError::Inconsistent { key: key.clone(), sandbox }),
        }
    }

    /// What a request is told whose key another one asked for, in vain.
    fn failed_for_all() -> HandlerError {
        let source = "the attempt of another request of the same key failed".into();
        StoreError::Unavailable { operation: "TransactWriteItems", source }.into()
    }

    /// A jittered moment, after another request was in the way for the `times`th time.
    async fn back_off(&self, times: u32) {
        tokio::time::sleep(ON_CONFLICT.jittered(times, &self.entropy)).await;
    }
}
