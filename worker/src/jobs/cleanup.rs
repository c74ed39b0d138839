//! Cleanup job: plans the deletions at the provider.
//!
//! The table is the deletion queue, SQS only paces it (ARCHITECTURE.md, "Visibility, retries, dead letters"). Due is a
//! `pending_deletion` sandbox whose time has come. Each gets the next free slot of the provider's rate, moves conditionally
//! to that slot + 15 min, and only then its message is sent, visible just before its slot: a lost message is due again, and a
//! repeated plan finds nothing that is planned already. A sandbox that is `deletion_failed` for a day starts over. The
//! deletion itself is in `deletion`.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_domain::{JobReport, Status, Timestamp};
use broker_messages::MaintenanceMessage;
use broker_queue::Outgoing;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Candidate, Pace, Pages, Seen, StoreError, Write};

use super::{JobError, Jobs, each, slots};

/// How far ahead deletions are planned; SQS delays a message by 15 minutes at most.
const AHEAD: Duration = Duration::from_secs(10 * 60);
/// A planned deletion is due again this long after its slot.
const DUE_AGAIN: Duration = Duration::from_secs(15 * 60);
/// Slots taken in one write.
const SLOTS: usize = 25;

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let provider = jobs.provider()?;
    let now = jobs.clock.now();
    retry_given_up(jobs, now, report).await?;
    if let Some(left) = provider.breaker().open_for(jobs.clock.instant()) {
        let why = provider.breaker().why();
        tracing::info!(?left, why, "no deletion is planned while the provider is not asked");
        report.detail("breaker_open", 1);
        report.postponed = Some(format!(
            "deletions are postponed: the provider is not asked for {} s more ({why}); no attempt is counted",
            left.as_secs() + 1
        ));
        return Ok(());
    }
    // A plan that is full before its end must not always leave out the same shards.
    let (shards, first) = (jobs.store.shards(), jobs.entropy.below(usize::from(jobs.store.shards())));
    for shard in (0..shards).cycle().skip(first).take(usize::from(shards)) {
        let mut pages =
            Pages::new(|after| jobs.store.sandboxes.due(Status::PendingDeletion, shard, now, after));
        while let Some(candidates) = pages.next().await? {
            for chunk in candidates.chunks(SLOTS) {
                report.found += chunk.len() as u64;
                let chunk = readable(jobs, chunk, report).await?;
                if !plan(jobs, &chunk, report).await? {
                    report.skipped += chunk.len() as u64;
                    report.detail("plan_is_full", 1);
                    report.postponed = Some(format!(
                        "the rest is left to later runs: {} minutes are planned already at the provider's rate (BROKER_PROVIDER_RATE)",
                        AHEAD.as_secs() / 60
                    ));
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn retry_given_up(jobs: &Jobs, now: Timestamp, report: &mut JobReport) -> Result<(), JobError> {
    let mut retried = JobReport::default();
    each::due(jobs, Status::DeletionFailed, now, &mut retried, |jobs, failed| async move {
        let seen = Seen { id: &failed.sandbox_id, version: failed.version };
        jobs.store.deletions.retry(seen, jobs.clock.now()).await
    })
    .await?;
    report.detail("retried", retried.changed);
    report.failed += retried.failed;
    Ok(())
}

/// Those whose records can be read. Of another one no message could be followed, whenever it came: it stays due, is counted and named
/// by each run, and by `broker pool verify`.
async fn readable(
    jobs: &Jobs,
    candidates: &[Candidate],
    report: &mut JobReport,
) -> Result<Vec<Candidate>, JobError> {
    let ids = candidates.iter().map(|candidate| candidate.sandbox_id.clone()).collect();
    let records = jobs.store.sandboxes.records(ids).await?;
    let read: BTreeSet<_> = records.into_iter().map(|record| record.sandbox.id).collect();
    let (readable, others): (Vec<_>, Vec<_>) =
        candidates.iter().cloned().partition(|candidate| read.contains(&candidate.sandbox_id));
    report.failed += others.len() as u64;
    report.detail("unreadable", others.len() as u64);
    Ok(readable)
}

/// Plans these deletions; `false` if no slot is free within the planned time.
async fn plan(jobs: &Jobs, candidates: &[Candidate], report: &mut JobReport) -> Result<bool, JobError> {
    let (now, interval) = (jobs.clock.now(), jobs.settings.deletion_interval);
    let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Ok(true);
    }
    let earliest = slots::first_after(now);
    let Some(first) =
        jobs.store.rate_slots.take(Pace::Plan, count, interval, earliest, now.plus(AHEAD)).await?
    else {
        return Ok(false);
    };
    let own = (0..count).map(|position| first.plus(interval * position));
    let work = candidates.iter().cloned().zip(own).map(|(candidate, slot)| {
        let jobs = jobs.clone();
        move || {
            let (jobs, candidate) = (jobs.clone(), candidate.clone());
            async move { plan_one(&jobs, candidate, slot).await }
        }
    });
    each::all(jobs, work, each::AT_ONCE, report).await?;
    Ok(true)
}

async fn plan_one(jobs: &Jobs, due: Candidate, slot: Timestamp) -> Result<Write, StoreError> {
    let now = jobs.clock.now();
    let seen = Seen { id: &due.sandbox_id, version: due.version };
    if !jobs.store.deletions.postpone(seen, slot.plus(DUE_AGAIN), now).await?.is_applied() {
        return Ok(Write::Rejected(()));
    }
    crash_points::point(Point::Planned);
    let mut sending = jobs.maintenance.sending();
    let message = MaintenanceMessage::delete(
        jobs.entropy.request_id(now),
        now,
        slot,
        due.sandbox_id,
        due.external_id,
        due.version + 1,
    );
    let message = message.traced(sending.traceparent());
    let outgoing = Outgoing::from(message.encode()).with_delay(slots::delay(slot, now));
    match jobs.maintenance.send(outgoing).await {
        Ok(()) => Ok(Write::Applied),
        Err(error) => {
            sending.failed("not_sent");
            Err(StoreError::Unavailable { operation: "send a deletion", source: Box::new(error) })
        }
    }
}
