//! Loop over everything that is due, page by page, with bounded concurrency.

use std::fmt::Display;
use std::future::Future;

use broker_domain::{JobReport, Status, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_runtime::trace;
use broker_store::{Candidate, Pages, StoreError, Write, retry_on_conflict};
use tokio::task::{JoinError, JoinSet};

use super::{JobError, Jobs};

/// Calls to the table in flight at the same time, of one job.
pub(super) const AT_ONCE: usize = 8;

/// Passes every sandbox of a state that is due by `until` to `act`, and counts the results. A change that meets another
/// transaction is tried again. A sandbox that cannot be changed now does not stop the others: it is due again at the next run.
pub(super) async fn due<F, Fut>(
    jobs: &Jobs,
    status: Status,
    until: Timestamp,
    report: &mut JobReport,
    act: F,
) -> Result<(), JobError>
where
    F: Fn(Jobs, Candidate) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Write, StoreError>> + Send + 'static,
{
    for shard in 0..jobs.store.shards() {
        let mut pages = Pages::new(|after| jobs.store.sandboxes.due(status, shard, until, after));
        while let Some(candidates) = pages.next().await? {
            report.found += candidates.len() as u64;
            let work = candidates.into_iter().map(|candidate| {
                let (jobs, act) = (jobs.clone(), act.clone());
                move || act(jobs.clone(), candidate.clone())
            });
            all(jobs, work, AT_ONCE, report).await?;
        }
    }
    Ok(())
}

/// Runs `work`, so many steps at a time, and counts the results. What meets another transaction begins anew.
pub(super) async fn all<Step, Fut>(
    jobs: &Jobs,
    work: impl Iterator<Item = Step>,
    at_once: usize,
    report: &mut JobReport,
) -> Result<(), JobError>
where
    Step: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Write, StoreError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for step in work {
        if jobs.stop.is_cancelled() {
            running.join_all().await;
            return Err(JobError::Stopping);
        }
        if running.len() >= at_once
            && let Some(ended) = running.join_next().await
        {
            count(ended, report);
        }
        let entropy = jobs.entropy.clone();
        running.spawn(trace::carried(async move { retry_on_conflict(&entropy, step).await }));
    }
    while let Some(ended) = running.join_next().await {
        count(ended, report);
    }
    Ok(())
}

/// What was done, or `None` if this one cannot be read or written for a reason of its own, or another transaction is in its way: it
/// is counted as failed, left to the next run, and stops no other. Any other error that passes, for all, is returned.
pub(super) fn or_passed_over<T>(
    done: Result<T, StoreError>,
    one: &impl Display,
    report: &mut JobReport,
) -> Result<Option<T>, StoreError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_retryable() && !matches!(error, StoreError::Conflict) => Err(error),
        Err(error) => {
            tracing::warn!(job = report.job, %one, "left to the next run: {error}");
            report.failed += 1;
            Ok(None)
        }
    }
}

fn count(ended: Result<Result<Write, StoreError>, JoinError>, report: &mut JobReport) {
    match ended {
        Ok(Ok(Write::Applied)) => {
            crash_points::point(Point::Stepped);
            report.changed += 1;
        }
        Ok(Ok(Write::Rejected(()))) => report.skipped += 1,
        Ok(Err(error)) => {
            tracing::warn!(job = report.job, "one sandbox left to the next run: {error}");
            report.failed += 1;
        }
        Err(error) => {
            tracing::error!(job = report.job, "one step panicked: {error}");
            report.failed += 1;
        }
    }
}
