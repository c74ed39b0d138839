//! Deletion of one sandbox at the provider, in its slot, and the result in the table.
//!
//! Invariants: the provider is called only for a sandbox that is pending at the planned version, in a slot (`slots`); an
//! attempt is counted only for an answer that is about this sandbox (`NotDeleted::counts`), never while the breaker is open,
//! the provider asks to wait or is down, or the token or the URL is wrong; the hook before_delete has said yes before; a deleted sandbox leaves a tombstone. A deletion
//! that finds no call of the provider free within seconds is due again at once, and the next plan gives it another time. A
//! `Retry-After` beside an answer about this sandbox postpones this one alone.

use std::time::Duration;

use broker_domain::policy::{FailedDeletions, Policy};
use broker_domain::{
    Event, ExternalId, FlavourName, Job, Quarantine, QuarantineCause, SandboxId, Status, Timestamp,
};
use broker_provider::{AccountId, Deleted, NotDeleted, Provider, ProviderError};
use broker_runtime::backoff::Backoff;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Pace, Record, Seen, StoreError, Write};

use super::before_delete::HookVerdict;
use super::{Jobs, slots};

/// Attempts before a deletion is given up.
const ATTEMPTS: u64 = 5;
/// How long a deletion that was given up rests before it starts over.
const GIVEN_UP_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How long a deletion waits when the token or the URL is wrong.
const REST: Duration = Duration::from_secs(5 * 60);

/// A planned deletion.
#[derive(Clone, Debug)]
pub(crate) struct PlannedDeletion {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) external_id: ExternalId,
    pub(crate) version: u64,
    pub(crate) slot: Timestamp,
}

/// The result of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeletionEnd {
    /// It is deleted at the provider, and a tombstone here.
    Deleted,
    /// It is not as it was planned: nothing was done.
    Void,
    /// Postponed without counting an attempt.
    Postponed,
    /// It failed and will be tried again.
    Failed,
    /// It failed for the last time.
    GivenUp,
    /// It failed for the last time, and a person is to look at the sandbox.
    Quarantined,
    /// Its slot is far ahead: its message must come again after this time.
    NotYet(Duration),
}

impl DeletionEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Void => "void",
            Self::Postponed => "postponed",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Quarantined => "quarantined",
            Self::NotYet(_) => "not_yet",
        }
    }
}

impl Jobs {
    /// Performs a planned deletion. Safe to call any number of times.
    pub(crate) async fn delete(&self, planned: &PlannedDeletion) -> Result<DeletionEnd, StoreError> {
        let ended = self.delete_in_slot(planned).await?;
        metrics::counter!("broker_cleanup_deletions_total", "outcome" => ended.as_str()).increment(1);
        Ok(ended)
    }

    async fn delete_in_slot(&self, planned: &PlannedDeletion) -> Result<DeletionEnd, StoreError> {
        if let Some(wait) = slots::too_early(planned.slot, self.clock.now()) {
            return Ok(DeletionEnd::NotYet(wait));
        }
        let Some(record) = self.store.sandboxes.record(&planned.sandbox_id).await? else {
            return Ok(DeletionEnd::Void);
        };
        if !is_as_planned(&record, planned) {
            return Ok(DeletionEnd::Void);
        }
        let seen = Seen { id: &planned.sandbox_id, version: planned.version };
        let now = self.clock.now();
        let paused = self.store.schedule.tick(Job::Cleanup, Duration::ZERO, now).await?.paused.is_some();
        let Some(provider) = self.provider.as_ref().filter(|_| !paused) else {
            return self.postpone(seen, Duration::ZERO).await;
        };
        let Some(account) = AccountId::of(&planned.external_id) else {
            let problem = format!("{} is not an account of the provider", planned.external_id);
            return self.failed(seen, &record, &problem, Duration::ZERO).await;
        };
        match self.ask_before_delete(&record).await {
            HookVerdict::Delete => {}
            HookVerdict::Wait(by) => return self.postpone(seen, by).await,
            HookVerdict::Refused(reason) => return self.failed(seen, &record, &reason, Duration::ZERO).await,
        }
        // Read before the wait, so that nothing happens between the slot check and the call. A pending sandbox never goes back
        // to the pool, so two seconds later it may be deleted, and nothing worse.
        if !self.may_call(planned.slot).await? {
            return self.postpone(seen, Duration::ZERO).await;
        }
        self.ask(provider, &account, seen, &record).await
    }

    async fn ask(
        &self,
        provider: &Provider,
        account: &AccountId,
        seen: Seen<'_>,
        record: &Record,
    ) -> Result<DeletionEnd, StoreError> {
        let sandbox = &record.sandbox;
        match provider.delete(account).await {
            Ok(deleted) => {
                crash_points::point(Point::GoneAtProvider);
                let gone_before = deleted == Deleted::AlreadyGone;
                let now = self.clock.now();
                let buried = self
                    .store
                    .deletions
                    .write_tombstone(seen, sandbox.status, &sandbox.external_id, now)
                    .await?;
                tracing::info!(sandbox = %seen.id, external_id = %sandbox.external_id, gone_before, "deleted at the provider");
                Ok(done(buried, DeletionEnd::Deleted))
            }
            Err(NotDeleted { error, counts: true, rest }) => {
                self.failed(seen, record, &error.to_string(), rest).await
            }
            Err(NotDeleted { error, counts: false, rest }) => self.not_now(seen, &error, rest).await,
        }
    }

    /// The answer is not about this sandbox: it is due again later, after `rest` at the earliest.
    async fn not_now(
        &self,
        seen: Seen<'_>,
        error: &ProviderError,
        rest: Duration,
    ) -> Result<DeletionEnd, StoreError> {
        let by = match error {
            ProviderError::BreakerOpen { again_after, .. } => *again_after,
            ProviderError::RateLimited { again_after } => {
                let now = self.clock.now();
                for pace in [Pace::Plan, Pace::Calls] {
                    self.store.rate_slots.hold(pace, now.plus(*again_after), now).await?;
                }
                *again_after
            }
            ProviderError::Unauthorized { .. } | ProviderError::WrongUrl { .. } => {
                tracing::error!(sandbox = %seen.id, "deletions pause, no attempt is counted: {error}");
                REST
            }
            ProviderError::Refused { .. }
            | ProviderError::Unavailable { .. }
            | ProviderError::Malformed { .. } => {
                tracing::warn!(sandbox = %seen.id, "not deleted now, no attempt is counted: {error}");
                self.settings.deletion_backoff
            }
        };
        self.postpone(seen, by.max(rest)).await
    }

    async fn postpone(&self, seen: Seen<'_>, by: Duration) -> Result<DeletionEnd, StoreError> {
        let now = self.clock.now();
        Ok(done(self.store.deletions.postpone(seen, now.plus(by), now).await?, DeletionEnd::Postponed))
    }

    /// An attempt counts; the next one is made after `rest` at the earliest.
    async fn failed(
        &self,
        seen: Seen<'_>,
        record: &Record,
        problem: &str,
        rest: Duration,
    ) -> Result<DeletionEnd, StoreError> {
        let now = self.clock.now();
        let attempts = record.attempts + 1;
        tracing::warn!(sandbox = %seen.id, attempts, problem, "not deleted at the provider");
        let policy = self.policy.now().unwrap_or_default();
        if attempts >= ATTEMPTS
            && let Some(flavour) = quarantines(&policy, record)
        {
            let reason = format!("not deleted in {attempts} attempts: {problem}");
            let why = Quarantine::by_broker(QuarantineCause::Deletion, &reason, now.floor_to_second());
            // Where there is no room it is given up, and tried again after a day.
            if let Some(written) = self.quarantine(flavour, seen, Status::PendingDeletion, &why).await? {
                return Ok(done(written, DeletionEnd::Quarantined));
            }
        }
        if attempts >= ATTEMPTS {
            let retry_at = now.plus(GIVEN_UP_FOR);
            let given_up = self.store.deletions.give_up(seen, attempts, problem, retry_at, now).await?;
            return Ok(done(given_up, DeletionEnd::GivenUp));
        }
        let due = now.plus(backoff(self.settings.deletion_backoff, attempts).max(rest));
        let counted = self.store.deletions.attempt_failed(seen, attempts, problem, due, now).await?;
        Ok(done(counted, DeletionEnd::Failed))
    }
}

/// The sandbox's flavour, if the policy puts into quarantine what the provider does not delete of it.
fn quarantines<'a>(policy: &'a Policy, record: &Record) -> Option<&'a FlavourName> {
    let name = policy.flavour_of(&record.sandbox.name)?;
    let flavour = policy.flavours().get(name)?;
    (flavour.failed_deletions == FailedDeletions::Quarantine).then_some(name)
}

fn is_as_planned(record: &Record, planned: &PlannedDeletion) -> bool {
    let sandbox = &record.sandbox;
    sandbox.status.next(Event::GiveUp).is_ok()
        && sandbox.version == planned.version
        && sandbox.external_id == planned.external_id
}

const fn done(changed: Write, ended: DeletionEnd) -> DeletionEnd {
    match changed {
        Write::Applied => ended,
        Write::Rejected(()) => DeletionEnd::Void,
    }
}

/// The pause doubles with each failed attempt, ten times at the most.
fn backoff(first: Duration, attempts: u64) -> Duration {
    let failed_before = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    Backoff::new(first, first.saturating_mul(1 << 10)).pause(failed_before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_each_failure() {
        let pauses: Vec<_> = (1..5).map(|n| backoff(Duration::from_secs(60), n).as_secs()).collect();
        assert_eq!(pauses, [60, 120, 240, 480]);
    }
}
