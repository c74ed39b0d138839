//! Sweep job: removes the reply queues and INSTANCE items of dead processes, permits without a lease, and gives back sandboxes that
//! are put aside without a reservation.
//!
//! A process counts as gone if its last heartbeat is three intervals old, and a reply queue if its id is not in the list of
//! instances; an API writes its INSTANCE before it makes the queue. **Unseen is not gone**: no process can write its heartbeat while
//! the table does not answer. So only what two sweeps found unchanged is removed, and a worker whose own table failed a moment ago
//! does not sweep. An API that was only suspended finds its queue gone and makes a new one. Ended requests expire by
//! their own ttl.

use std::collections::HashMap;
use std::time::Duration;

use broker_domain::{JobReport, Timestamp};
use broker_queue::{ReplyQueueName, topology};
use broker_runtime::crash_points::{self, Point};
use broker_runtime::errors;
use broker_store::heartbeat;
use broker_store::{Instance, Role, Sightings, Write};

use super::{JobError, Jobs, permits, reservations};

/// How long after an outage of the table every living process has said again that it lives.
const HEARTBEATS_ARE_BACK: Duration = Duration::from_secs(15);

/// One that gives no sign of life.
#[derive(Debug)]
struct Unseen {
    queue: ReplyQueueName,
    /// Whether SQS lists its queue.
    listed: bool,
    instance: Option<Instance>,
}

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    if jobs.health.was_away_within(HEARTBEATS_ARE_BACK, jobs.clock.instant()) {
        return Err(JobError::Refused(
            "the table was away a moment ago: no process could write its heartbeat".into(),
        ));
    }
    // Queues are listed first: one that is made meanwhile belongs to an instance that is read after.
    let queues = topology::reply_queues(&jobs.aws, jobs.urls.names()).await?;
    let now = jobs.clock.now();
    let instances = jobs.store.instances.list().await?;
    let gone = instances.iter().filter(|instance| is_gone(instance, now)).count();
    report.found = (queues.len() + gone) as u64;
    let unseen = unseen(jobs, queues, instances, now);
    let before = jobs.store.instances.sightings().await?;
    let mut seen = Sightings { as_of: Some(now), ..Sightings::default() };
    for one in unseen {
        let heartbeat = one.instance.as_ref().map(|instance| instance.heartbeat);
        if before.saw(one.queue.as_str(), heartbeat) {
            if let Err(error) = remove(jobs, &one, report).await {
                // It stops nothing else, and the next sweep tries it again.
                let why = errors::chain(&error);
                tracing::warn!(queue = %one.queue, "what a dead process left is left to the next sweep: {why}");
                report.failed += 1;
                seen.unseen.insert(one.queue.to_string(), heartbeat);
            }
        } else {
            report.skipped += 1;
            report.detail("seen_first", 1);
            seen.unseen.insert(one.queue.to_string(), heartbeat);
        }
    }
    // Another sweep at the same moment saw as much.
    let (Write::Applied | Write::Rejected(())) =
        jobs.store.instances.record_sightings(&before, &seen).await?;
    // Neither keeps the other from its work.
    let permits = permits::sweep(jobs, report).await;
    reservations::sweep(jobs, report).await.and(permits)
}

/// What a process of a newer program leaves is for that one to sweep.
fn is_gone(instance: &Instance, now: Timestamp) -> bool {
    instance.role != Role::Unknown && heartbeat::is_gone(instance, now)
}

/// All that give no sign of life at `now`.
fn unseen(jobs: &Jobs, queues: Vec<ReplyQueueName>, instances: Vec<Instance>, now: Timestamp) -> Vec<Unseen> {
    let named = |instance: Instance| (jobs.urls.names().reply(instance.id), instance);
    let mut instances: HashMap<_, _> = instances.into_iter().map(named).collect();
    let mut unseen = Vec::new();
    for queue in queues {
        let instance = instances.remove(&queue);
        if instance.as_ref().is_none_or(|instance| is_gone(instance, now)) {
            unseen.push(Unseen { queue, listed: true, instance });
        }
    }
    let others = instances.into_iter().filter(|(_, instance)| is_gone(instance, now));
    unseen.extend(others.map(|(queue, instance)| Unseen { queue, listed: false, instance: Some(instance) }));
    unseen
}

async fn remove(jobs: &Jobs, gone: &Unseen, report: &mut JobReport) -> Result<(), JobError> {
    if gone.listed {
        topology::delete_reply_queue(&jobs.aws, &jobs.urls, &gone.queue).await?;
        crash_points::point(Point::Swept);
        tracing::info!(queue = %gone.queue, "swept a reply queue whose process is gone");
        report.changed += 1;
        report.detail("reply_queues", 1);
    }
    // Only now: an instance that is forgotten leaves no queue that would be looked for.
    let Some(instance) = &gone.instance else { return Ok(()) };
    match jobs.store.instances.remove(instance).await? {
        Write::Applied => {
            report.changed += 1;
            report.detail("instances", 1);
        }
        Write::Rejected(()) => report.skipped += 1,
    }
    Ok(())
}
