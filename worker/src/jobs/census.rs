//! Census job: counts the pool by state into one record, for stats and gauges. Tombstones and open dead letters are counted,
//! too.

use broker_domain::{JobReport, Status};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Census, Changed};

use super::{JobError, Jobs};

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let as_of = jobs.clock.now();
    let by_status = jobs.store.sandboxes.count().await?;
    crash_points::point(Point::Counted);
    report.found = by_status.values().sum();
    by_status.iter().for_each(|(status, count)| report.detail(status.as_str(), *count));
    // The log line of the alarm on a low pool (infra/terraform/modules/observability/logs.tf): numbers, not words.
    let available = by_status.get(&Status::Available).copied().unwrap_or(0);
    tracing::info!(available, total = report.found, "census");
    let letters = broker_dead_letters::count_open(&jobs.store).await?;
    report.detail("dead_letters", letters.by_reason.values().sum());
    match jobs.store.census.record(&Census { by_status, letters, as_of }).await? {
        Changed::Done => report.changed = 1,
        Changed::MovedOn => report.skipped = 1,
    }
    Ok(())
}
