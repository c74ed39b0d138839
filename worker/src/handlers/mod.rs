//! Handlers of requests: from a request to its outcome. One file per kind; one match lists them.

mod allocate;
mod habit;
mod key_turns;
mod limits;
mod park;
mod permits;
mod return_sandbox;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use broker_domain::{LeaseKey, Outcome, SandboxId, TenantName, TrackId};
use broker_messages::Request;
use broker_runtime::backoff::Backoff;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::reservations::FollowedReservations;
use broker_store::{FollowedPolicy, Store, StoreError};
use tokio::sync::Notify;

use crate::candidates::Candidates;
use crate::finality::HandlerError;
use crate::jobs::serve::SoonOver;

use allocate::LeaseLearnt;
use habit::Habit;
use key_turns::KeyTurns;
use limits::{LastLooks, LinesLearnt, NothingBeyond};
use park::ListedLines;
use permits::TenantPermits;
use return_sandbox::ReturnLearnt;

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
    /// What is put aside for tenants.
    reservations: FollowedReservations,
    permits: TenantPermits,
    /// Looks at the lines of one tenant.
    lines: KeyTurns<TenantName, LinesLearnt>,
    /// The last of them.
    last_looks: LastLooks,
    /// Looks of limited tenants for what they may have that found nothing.
    nothing_beyond: NothingBeyond,
    /// Notified when a permit is freed, which a waiting request may take.
    freed: Arc<Notify>,
    /// Whether owners have their default key, and hold no permit.
    default_keys: Habit,
    /// Whether who asks has no lease yet.
    new_keys: Habit,
    /// Allocates of one lease key.
    leases: KeyTurns<LeaseKey, LeaseLearnt>,
    /// Lines that this process has listed.
    listed: ListedLines,
    /// Places that it parked and whose deadline comes soon.
    soon: SoonOver,
    /// Returns of one sandbox by one track.
    returns: KeyTurns<(SandboxId, TrackId), ReturnLearnt>,
}

impl Handlers {
    pub(crate) fn new(
        store: Store,
        candidates: Candidates,
        clock: Clock,
        entropy: Entropy,
        (policy, reservations): (FollowedPolicy, FollowedReservations),
        freed: Arc<Notify>,
        soon: SoonOver,
    ) -> Self {
        let (leases, returns) = (KeyTurns::default(), KeyTurns::default());
        let permits = TenantPermits::new(store.clone(), clock.clone(), entropy.clone(), policy.clone());
        Self {
            store,
            candidates,
            clock,
            entropy,
            policy,
            reservations,
            permits,
            lines: KeyTurns::at_a_time(limits::LOOKS_AT_A_TIME),
            last_looks: LastLooks::default(),
            nothing_beyond: NothingBeyond::default(),
            freed,
            default_keys: Habit::new(),
            new_keys: Habit::new(),
            leases,
            listed: ListedLines::default(),
            soon,
            returns,
        }
    }

    /// The outcome of `request`, whose message is `text`; `None` if it waits elsewhere: in a line, or for another message. Safe to
    /// call any number of times with the same request.
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
