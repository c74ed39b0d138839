//! Storage of deletions: due times, attempts and tombstones.
//!
//! Invariant: every write here is at the version that was read, and none leads back into the pool.

use super::change::ItemChange;
use super::{DeletionStore, TableClient, keys, n, s};
use crate::{StoreError, Write};
use broker_domain::{Event, ExternalId, SandboxId, Status, Timestamp};

/// Planned, postponed or failed before: still pending, at that version.
const DELETION_IS_PENDING: &str = "#status = :pending and version = :seen";
/// [`Event::GiveUp`] of a pending one.
const GIVE_UP_IS_DUE: &str = DELETION_IS_PENDING;
/// [`Event::Retry`] of one that was given up.
const RETRY_IS_DUE: &str = "#status = :failed and version = :seen";
/// [`Event::ProviderDeleted`] of one that is pending or was given up.
const PROVIDER_DELETED_IT: &str = "#status = :from and version = :seen and external_id = :external_id";
/// A tombstone of an older version, which would expire.
const TOMBSTONE_STANDS: &str = "#status = :deleted and version = :seen";

/// A sandbox at the version at which it may be changed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its id.
    pub id: &'a SandboxId,
    /// Its version.
    pub version: u64,
}

impl DeletionStore {
    /// Moves a pending deletion to `due` without counting an attempt. Its version goes up, so an older plan is void.
    pub async fn postpone(
        &self,
        seen: Seen<'_>,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "postpone",
                key: keys::sandbox(seen.id).into_map(),
                condition: DELETION_IS_PENDING,
                update: "SET version = :next, state_key = :due, updated_at = :now",
                values: vec![
                    (":pending", s(Status::PendingDeletion.as_str())),
                    (":seen", n(seen.version)),
                    (":next", n(seen.version + 1)),
                    (":due", s(keys::time_key(due))),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }

    /// Counts a failed attempt; the next is due at `due`.
    pub async fn attempt_failed(
        &self,
        seen: Seen<'_>,
        attempts: u64,
        problem: &str,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table.change(ItemChange {
            operation: "attempt_failed",
            key: keys::sandbox(seen.id).into_map(),
            condition: DELETION_IS_PENDING,
            update: "SET version = :next, state_key = :due, deletion_retry_count = :attempts, deletion_error = :problem, \
                     updated_at = :now",
            values: vec![
                (":pending", s(Status::PendingDeletion.as_str())),
                (":seen", n(seen.version)),
                (":next", n(seen.version + 1)),
                (":due", s(keys::time_key(due))),
                (":attempts", n(attempts)),
                (":problem", s(problem)),
                (":now", n(now.as_secs())),
            ],
        })
        .await
    }

    /// Gives a deletion up with its error; it is retried at `retry_at`.
    pub async fn give_up(
        &self,
        seen: Seen<'_>,
        attempts: u64,
        problem: &str,
        retry_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let to = next(Status::PendingDeletion, Event::GiveUp)?;
        self.table
            .change(ItemChange {
                operation: "give_up",
                key: keys::sandbox(seen.id).into_map(),
                condition: GIVE_UP_IS_DUE,
                update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :due, \
                     deletion_retry_count = :attempts, deletion_error = :problem, updated_at = :now",
                values: vec![
                    (":pending", s(Status::PendingDeletion.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(seen.version)),
                    (":next", n(seen.version + 1)),
                    (":shard", s(self.table.shard(to, seen.id))),
                    (":due", s(keys::time_key(retry_at))),
                    (":attempts", n(attempts)),
                    (":problem", s(problem)),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }

    /// Makes a deletion that was given up due now, with a new count of attempts.
    pub async fn retry(&self, seen: Seen<'_>, now: Timestamp) -> Result<Write, StoreError> {
        let to = next(Status::DeletionFailed, Event::Retry)?;
        self.table
            .change(ItemChange {
                operation: "retry_deletion",
                key: keys::sandbox(seen.id).into_map(),
                condition: RETRY_IS_DUE,
                update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :due, \
                     deletion_retry_count = :none, updated_at = :now",
                values: vec![
                    (":failed", s(Status::DeletionFailed.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(seen.version)),
                    (":next", n(seen.version + 1)),
                    (":shard", s(self.table.shard(to, seen.id))),
                    (":due", s(keys::time_key(now))),
                    (":none", n(0)),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }

    /// Writes the tombstone of a sandbox that the provider deleted under `external_id`, or that an operator gave up.
    pub async fn write_tombstone(
        &self,
        seen: Seen<'_>,
        from: Status,
        external_id: &ExternalId,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let to = next(from, Event::ProviderDeleted)?;
        self.table.change(ItemChange {
            operation: "bury",
            key: keys::sandbox(seen.id).into_map(),
            condition: PROVIDER_DELETED_IT,
            update: "SET #status = :to, version = :next, deleted_at = :now, updated_at = :now \
                     REMOVE state_shard, state_key, deletion_retry_count, deletion_error, lab_duration_hours, last_synced",
            values: vec![
                (":from", s(from.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(seen.version)),
                (":next", n(seen.version + 1)),
                (":external_id", s(external_id.as_str())),
                (":now", n(now.as_secs())),
            ],
        })
        .await
    }

    /// Lets a tombstone that an older version wrote stand for good: its account may come back at any time.
    pub(crate) async fn keep_tombstone(&self, seen: Seen<'_>) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "keep_tombstone",
                key: keys::sandbox(seen.id).into_map(),
                condition: TOMBSTONE_STANDS,
                update: "REMOVE #ttl",
                values: vec![(":deleted", s(Status::Deleted.as_str())), (":seen", n(seen.version))],
            })
            .await
    }
}

impl TableClient {
    pub(super) fn shard(&self, status: Status, id: &SandboxId) -> String {
        keys::state_shard(status, keys::shard_of(id, self.shards))
    }
}

/// The state after a transition; an error if the state machine does not have it.
pub(super) fn next(from: Status, event: Event) -> Result<Status, StoreError> {
    from.next(event).map_err(|error| super::errors::built_wrong("transition", error))
}
