//! Bulk delete, by an operator: removes the records of all stale sandboxes, or turns all failed deletions into tombstones,
//! so that sandboxes that the provider still lists are deleted again and never offered. The provider is not called.

use broker_domain::{JobReport, Removable, Status, Timestamp};
use broker_store::{Candidate, Seen, StoreError, Write};

use super::{JobError, Jobs, each};

/// Later than any due time.
const WHENEVER: Timestamp = Timestamp::from_secs(999_999_999_999);

pub(super) async fn run(jobs: &Jobs, status: Removable, report: &mut JobReport) -> Result<(), JobError> {
    match status {
        Removable::Stale => each::due(jobs, Status::Stale, WHENEVER, report, remove).await,
        Removable::DeletionFailed => each::due(jobs, Status::DeletionFailed, WHENEVER, report, give_up).await,
    }
}

async fn remove(jobs: Jobs, stale: Candidate) -> Result<Write, StoreError> {
    jobs.store.sandboxes.remove_stale(&stale).await
}

async fn give_up(jobs: Jobs, failed: Candidate) -> Result<Write, StoreError> {
    let seen = Seen { id: &failed.sandbox_id, version: failed.version };
    jobs.store
        .deletions
        .write_tombstone(seen, Status::DeletionFailed, &failed.external_id, jobs.clock.now())
        .await
}
