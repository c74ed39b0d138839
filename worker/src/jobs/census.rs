//! Census job: counts the pool by state and by flavour into one record, for stats and gauges. Tombstones and open dead letters are counted,
//! too.

use std::time::Duration;

use broker_domain::{FlavourName, JobReport, Status, Timestamp};
use broker_queue::{QueueKind, topology};
use broker_runtime::crash_points::{self, Point};
use broker_store::history::MinuteGauges;
use broker_store::{Census, Role, StoreError, Write, heartbeat};

use super::{JobError, Jobs};

/// How long a process may take to follow a new policy: a census that began later counted by this one.
pub(super) const FOLLOWED: Duration = Duration::from_secs(10);

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let as_of = jobs.clock.now();
    // Until the policy is known, the pool is counted as one.
    let policy = jobs.policy.now().unwrap_or_default();
    let pool = jobs.store.sandboxes.count(&policy).await?;
    let (by_status, by_flavour, by_cause) = (pool.by_status(), pool.by_flavour(), pool.by_cause().clone());
    let by_reservation = pool.by_reservation().clone();
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
        arriving = count(Status::Arriving),
        available = count(Status::Available),
        reserved = count(Status::Reserved),
        allocated = count(Status::Allocated),
        pending_deletion = count(Status::PendingDeletion),
        stale = count(Status::Stale),
        quarantined = count(Status::Quarantined),
        deletion_failed = count(Status::DeletionFailed),
        deleted = count(Status::Deleted),
        total = report.found,
        dead_letters,
        oldest_dead_letter_s,
        "census"
    );
    let counted =
        MinuteGauges { by_status: by_status.clone(), letters: dead_letters, ..MinuteGauges::default() };
    let census = Census { by_status, by_flavour, by_cause, by_reservation, letters, as_of };
    match jobs.store.census.record(&census, jobs.clock.now()).await? {
        Write::Applied => report.changed = 1,
        Write::Rejected(()) => report.skipped = 1,
    }
    remember(jobs, counted, as_of).await
}

/// How many sandboxes of a flavour there are by the last census, and when that began; `None` if it does not know the flavour, or
/// began before `counted_after`, when it may have counted by an older policy.
pub(super) async fn live(
    jobs: &Jobs,
    flavour: &FlavourName,
    counted_after: Timestamp,
) -> Result<Option<(u64, Timestamp)>, StoreError> {
    let now = jobs.clock.now();
    let Some(census) = jobs.store.census.believed(now).await? else { return Ok(None) };
    let Some(counts) = census.by_flavour.get(flavour.as_str()) else { return Ok(None) };
    // A policy of the future a clock applied that was wrong.
    if census.as_of < counted_after && !counted_after.is_beyond(now, FOLLOWED) {
        return Ok(None);
    }
    let live = counts.iter().filter(|(status, _)| **status != Status::Deleted).map(|(_, count)| count);
    Ok(Some((live.sum(), census.as_of)))
}

/// Adds the queue and the workers to what was counted, and stores it as this minute of the history: one query, one look at
/// the queue, one write.
async fn remember(jobs: &Jobs, counted: MinuteGauges, as_of: Timestamp) -> Result<(), JobError> {
    let queue = jobs.urls.get(QueueKind::Requests);
    let depth = topology::depth(&jobs.aws, &queue, queue.label().to_string()).await?;
    let mut workers = jobs.store.instances.list().await?;
    workers.retain(|instance| instance.role == Role::Worker && !heartbeat::is_gone(instance, as_of));
    let oldest = workers.iter().filter_map(|worker| worker.received.requests).max();
    let counted = MinuteGauges {
        visible: depth.visible,
        in_flight: depth.in_flight,
        oldest_ms: oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        workers: u64::try_from(workers.len()).unwrap_or(u64::MAX),
        ..counted
    };
    // One that a later census was faster with is older.
    jobs.store.history.count(&counted, as_of).await?;
    Ok(())
}
