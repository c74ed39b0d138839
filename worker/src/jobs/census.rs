//! Census job: counts the pool by state into one record, for stats and gauges. Tombstones and open dead letters are counted,
//! too.

use broker_domain::{JobReport, Status};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Census, Write};

use super::{JobError, Jobs};

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let as_of = jobs.clock.now();
    let by_status = jobs.store.sandboxes.count().await?;
    crash_points::point(Point::Counted);
    report.found = by_status.values().sum();
    by_status.iter().for_each(|(status, count)| report.detail(status.as_str(), *count));
    let letters = broker_dead_letters::count_open(&jobs.store).await?;
    let dead_letters = letters.by_reason.values().sum();
    report.detail("dead_letters", dead_letters);
    let oldest_dead_letter_s = letters.oldest.map_or(0, |oldest| as_of.since(oldest).as_secs());
    let count = |status| by_status.get(&status).copied().unwrap_or(0);
    // The log line of the alarms on the pool and on letters (infra/terraform/modules/observability/logs.tf): numbers, not
    // words.
    tracing::info!(
        available = count(Status::Available),
        allocated = count(Status::Allocated),
        pending_deletion = count(Status::PendingDeletion),
        stale = count(Status::Stale),
        deletion_failed = count(Status::DeletionFailed),
        deleted = count(Status::Deleted),
        total = report.found,
        dead_letters,
        oldest_dead_letter_s,
        "census"
    );
    match jobs.store.census.record(&Census { by_status, letters, as_of }).await? {
        Write::Applied => report.changed = 1,
        Write::Rejected(()) => report.skipped = 1,
    }
    Ok(())
}
