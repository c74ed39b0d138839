//! Purge job: removes sandboxes that have been stale for longer than the grace. None of them was ever handed out.

use std::time::Duration;

use broker_domain::{JobReport, Status};

use super::{JobError, Jobs, each};

pub(super) async fn run(
    jobs: &Jobs,
    grace_period_hours: u32,
    report: &mut JobReport,
) -> Result<(), JobError> {
    let grace = Duration::from_secs(u64::from(grace_period_hours) * 3_600);
    let until = jobs.clock.now().minus(grace);
    each::due(jobs, Status::Stale, until, report, |jobs, stale| async move {
        jobs.store.sandboxes.remove_stale(&stale).await
    })
    .await
}
