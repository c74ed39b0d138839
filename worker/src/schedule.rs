//! Schedule of the jobs: each job's tick is taken by one worker, which sends the job's message and then moves the tick on.
//!
//! Order: **take for a minute → send → move**. A worker that dies in between leaves a tick that another one takes when the
//! minute is over, so a run is sent at least once. With an external scheduler (`BROKER_SCHEDULER=external`) nothing is sent
//! here.

use std::time::Duration;

use broker_domain::policy::ByStatus;
use broker_domain::{Job, Status, Task, Times, Timestamp};
use broker_messages::MaintenanceMessage;
use broker_runtime::config::{Config, Intervals};
use broker_runtime::crash_points::{self, Point};
use broker_store::{StoreError, Tick, Write};
use tokio_util::sync::CancellationToken;

use crate::jobs::{Jobs, refill};

/// How long a tick is taken.
const TAKEN_FOR: Duration = Duration::from_secs(60);
/// The longest time between two checks of the ticks.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest.
const QUICK_LOOK: Duration = Duration::from_millis(200);
/// The shortest deadline of a run; after it the run is left to the next tick.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// The number of sandboxes that are counted once per interval.
const COUNTED_PER_INTERVAL: u64 = 100_000;

/// The interval of `job`.
const fn every(intervals: &Intervals, job: Job) -> Duration {
    match job {
        Job::Sync => intervals.sync,
        Job::Expire => intervals.expire,
        Job::Cleanup => intervals.cleanup,
        Job::PurgeStale => intervals.purge,
        Job::Census => intervals.census,
        Job::Sweep => intervals.sweep,
        Job::Refill => intervals.refill,
        Job::Serve => intervals.serve,
    }
}

/// Whether the schedule starts `job`: some need a provider.
pub(crate) const fn starts(job: Job, provider_is_there: bool) -> bool {
    match job {
        Job::Sync | Job::Cleanup => provider_is_there,
        Job::Expire | Job::PurgeStale | Job::Census | Job::Sweep | Job::Refill | Job::Serve => true,
    }
}

/// The jobs that the schedule starts.
fn scheduled(config: &Config) -> Vec<(Job, Duration)> {
    let jobs = Job::ALL.into_iter().filter(|job| job.is_sent() && starts(*job, config.provider.is_some()));
    jobs.map(|job| (job, every(&config.every, job))).collect()
}

/// Runs the schedule until `stop`.
pub(crate) async fn keep(jobs: Jobs, config: &Config, stop: CancellationToken) {
    let all = scheduled(config);
    loop {
        let refills = refills(&jobs);
        let scheduled: Vec<_> = all.iter().filter(|(job, _)| *job != Job::Refill || refills).collect();
        let shortest = scheduled.iter().map(|(_, every)| *every).min().unwrap_or(LOOK);
        let look = (shortest / 4).clamp(QUICK_LOOK, LOOK);
        // The times that a tick is given are believed by the whole fleet.
        let scheduled = if jobs.clock.is_trusted() { scheduled } else { Vec::new() };
        for (job, every) in scheduled {
            if let Err(error) = tick(&jobs, *job, *every).await {
                tracing::warn!(%job, "tick not sent, trying again: {error}");
            }
        }
        let pause = jobs.entropy.jitter(look);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether the policy refills a flavour; if not, the job costs nothing.
fn refills(jobs: &Jobs) -> bool {
    jobs.policy.now().is_ok_and(|policy| refill::refilled(&policy).next().is_some())
}

/// Why a due job was not sent.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] broker_queue::SendError),
}

/// Sends a job that is due, unless another worker does.
async fn tick(jobs: &Jobs, job: Job, every: Duration) -> Result<(), TickError> {
    let now = jobs.clock.now();
    let tick = jobs.store.schedule.tick(job, Duration::ZERO, now).await?;
    let until = now.plus(TAKEN_FOR);
    if !tick.is_free(now, every, TAKEN_FOR) {
        return Ok(());
    }
    let every = every.saturating_mul(intervals_for(jobs, job).await?);
    if !tick.is_free(now, every, TAKEN_FOR)
        || jobs.store.schedule.take(job, &tick, until, now).await? == Write::Rejected(())
    {
        return Ok(());
    }
    crash_points::point(Point::TickTaken);
    jobs.maintenance.send(message(jobs, job, every, now).encode()).await?;
    tracing::debug!(%job, "sent");
    jobs.store.schedule.move_on(job, &tick, until, next_run(&tick, every, now)).await?;
    Ok(())
}

fn message(jobs: &Jobs, job: Job, every: Duration, now: Timestamp) -> MaintenanceMessage {
    let deadline = now.plus(every.max(SHORTEST_DEADLINE));
    let times = Times { enqueued_at: now, reply_by: now, deadline };
    MaintenanceMessage::run(jobs.entropy.request_id(now), Task::from(job), times)
}

/// The number of intervals between two runs: a large pool is counted less often.
async fn intervals_for(jobs: &Jobs, job: Job) -> Result<u32, StoreError> {
    if job != Job::Census {
        return Ok(1);
    }
    let census = jobs.store.census.get().await?;
    Ok(census.map_or(1, |census| census_intervals(&census.by_status)))
}

/// The number of intervals between two censuses of a pool. Tombstones are kept for good and are not among the pool: with them
/// the figures would be older from year to year. (They still cost: the census scans them.)
fn census_intervals(by_status: &ByStatus) -> u32 {
    let pool = by_status.iter().filter(|(status, _)| **status != Status::Deleted);
    let pool: u64 = pool.map(|(_, count)| count).sum();
    u32::try_from(pool.div_ceil(COUNTED_PER_INTERVAL)).unwrap_or(u32::MAX).max(1)
}

/// The next run; missed ticks are skipped, and so is a time that a wrong clock wrote.
fn next_run(tick: &Tick, every: Duration, now: Timestamp) -> Timestamp {
    let planned = tick.next_run_at.plus(every);
    if planned.is_to_come(now, every) { planned } else { now.plus(every) }
}

#[cfg(test)]
mod tests {
    use broker_domain::Pause;
    use std::collections::BTreeMap;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let strings: BTreeMap<_, _> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&strings).unwrap()
    }

    #[test]
    fn without_a_provider_nothing_is_compared_or_deleted() {
        let jobs = |config: &Config| scheduled(config).into_iter().map(|(job, _)| job).collect::<Vec<_>>();
        let rest = [Job::Expire, Job::PurgeStale, Job::Census, Job::Sweep, Job::Refill];
        assert_eq!(jobs(&config(&[])), rest);
        let sent: Vec<_> = Job::ALL.into_iter().filter(|job| job.is_sent()).collect();
        assert_eq!(jobs(&config(&[("BROKER_PROVIDER_URL", "http://127.0.0.1:1")])), sent);
    }

    #[test]
    fn a_large_pool_is_counted_less_often_whatever_tombstones_there_are() {
        let pool = |available, deleted| {
            census_intervals(&[(Status::Available, available), (Status::Deleted, deleted)].into())
        };
        assert_eq!([pool(0, 0), pool(100_000, 0), pool(100_001, 0), pool(1_000_000, 0)], [1, 1, 2, 10]);
        assert_eq!(pool(1_000, 5_000_000), 1);
    }

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        let at = Timestamp::from_secs;
        let tick =
            Tick { next_run_at: at(100), taken_until: None, paused: None, ran_for: None, trouble: None };
        let every = Duration::from_secs(10);
        assert_eq!(next_run(&tick, every, at(101)), at(110));
        assert_eq!(next_run(&tick, every, at(1_000)), at(1_010));
        assert_eq!(next_run(&tick, every, at(50)), at(60), "nor is one that a wrong clock wrote");
    }

    #[test]
    fn a_tick_is_free_when_it_is_due_not_taken_and_not_paused() {
        let at = Timestamp::from_secs;
        let due =
            Tick { next_run_at: at(100), taken_until: None, paused: None, ran_for: None, trouble: None };
        let (minute, free) =
            (Duration::from_secs(60), |tick: &Tick, at| tick.is_free(at, TAKEN_FOR, TAKEN_FOR));
        assert!(free(&due, at(100)) && !free(&due, at(99)));
        let taken = Tick { taken_until: Some(at(160)), ..due.clone() };
        assert!(!free(&taken, at(159)) && free(&taken, at(160)));
        assert!(!free(&Tick { paused: Some(Pause::new("ops", at(1))), ..due.clone() }, at(200)));
        // A time that a wrong clock set an hour ahead does not hold the job up.
        let wrong = Tick { next_run_at: at(3_760), ..due.clone() };
        assert!(free(&wrong, at(100)) && !wrong.is_free(at(100), minute * 61, TAKEN_FOR));
        assert!(free(&Tick { taken_until: Some(at(3_760)), ..due }, at(100)));
    }
}
