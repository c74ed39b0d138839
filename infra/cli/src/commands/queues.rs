//! `broker queues`: depth of every queue, reply queues included, age of the oldest received message, and backlog per worker.
//!
//! The age is of the messages that workers received in their last two heartbeat intervals: SQS reports it only to
//! CloudWatch, and receiving a message to look at it would count as a receive. Without receives it is the time since a
//! process last saw the queue empty: nothing in it is older than that.

use std::time::Duration;

use broker_domain::Timestamp;
use broker_queue::topology::{self, Depth};
use broker_queue::{QueueKind, QueueUrls};
use broker_store::heartbeat;
use broker_store::{Instance, Role};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Debug, PartialEq, Serialize)]
struct QueueRow {
    queue: String,
    visible: u64,
    in_flight: u64,
    delayed: u64,
    /// Of the oldest message that a worker received recently; if none did, the most that one can be old.
    oldest_age_ms: Option<u64>,
    /// Whether `oldest_age_ms` is only a bound.
    at_most: bool,
    /// Visible messages and those in flight, for each running worker.
    backlog_per_worker: Option<u64>,
}

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let now = context.clock.now();
    let instances = context.store.instances.list().await?;
    let running = |instance: &&Instance| instance.role == Role::Worker && !heartbeat::is_gone(instance, now);
    let seen = SeenProcesses {
        now,
        workers: instances.iter().filter(running).cloned().collect(),
        instances: &instances,
    };
    let mut rows = Vec::new();
    for depth in topology::depths(&context.aws, &urls).await? {
        let source = [QueueKind::Requests, QueueKind::Maintenance]
            .into_iter()
            .find(|kind| context.names.name(*kind) == depth.queue);
        rows.push(row(depth, source, &seen));
    }
    for name in topology::reply_queues(&context.aws, &context.names).await? {
        // A process may delete its reply queue meanwhile.
        if let Ok(depth) = topology::depth(&context.aws, &urls.reply(&name), name.as_str().to_owned()).await {
            rows.push(row(depth, None, &seen));
        }
    }
    if json {
        output::json(&rows)?;
    } else {
        let header = ["QUEUE", "VISIBLE", "IN FLIGHT", "DELAYED", "OLDEST MS", "PER WORKER"];
        output::table(header, rows.into_iter().map(cells))?;
        let workers = &seen.workers;
        let receive = workers.iter().filter(|worker| worker.receives != Some(false)).count();
        output::line(format_args!("\n{} running workers, {receive} receive", workers.len()))?;
    }
    Ok(Done::Ok)
}

/// The processes, as they say of themselves.
struct SeenProcesses<'a> {
    now: Timestamp,
    /// The workers that run.
    workers: Vec<Instance>,
    /// All, also those that are gone: what they saw is true all the same.
    instances: &'a [Instance],
}

impl SeenProcesses<'_> {
    /// The age of the oldest message that a worker received recently.
    fn received(&self, source: QueueKind) -> Option<Duration> {
        let age = |worker: &Instance| match source {
            QueueKind::Requests => worker.received.requests,
            QueueKind::Maintenance => worker.received.maintenance,
            QueueKind::RequestsDlq | QueueKind::MaintenanceDlq => None,
        };
        self.workers.iter().filter_map(age).max()
    }

    /// The time since a process last saw the queue empty.
    fn since_empty(&self, source: QueueKind) -> Option<Duration> {
        let at = |instance: &Instance| match source {
            QueueKind::Requests => instance.seen_empty.requests,
            QueueKind::Maintenance => instance.seen_empty.maintenance,
            QueueKind::RequestsDlq | QueueKind::MaintenanceDlq => None,
        };
        self.instances.iter().filter_map(at).max().map(|at| self.now.since(at))
    }
}

/// The row of one queue; `source` is a queue that workers receive from.
fn row(depth: Depth, source: Option<QueueKind>, seen: &SeenProcesses<'_>) -> QueueRow {
    let received = source.and_then(|source| seen.received(source));
    let bound = source.filter(|_| depth.visible > 0).and_then(|source| seen.since_empty(source));
    let running = u64::try_from(seen.workers.len()).unwrap_or(u64::MAX);
    QueueRow {
        oldest_age_ms: received.or(bound).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        at_most: received.is_none() && bound.is_some(),
        backlog_per_worker: source.and_then(|_| depth.backlog().per_worker(running)),
        queue: depth.queue,
        visible: depth.visible,
        in_flight: depth.in_flight,
        delayed: depth.delayed,
    }
}

fn cells(row: QueueRow) -> [String; 6] {
    let or_dash = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    [
        row.queue,
        row.visible.to_string(),
        row.in_flight.to_string(),
        row.delayed.to_string(),
        if row.at_most { format!("<= {}", or_dash(row.oldest_age_ms)) } else { or_dash(row.oldest_age_ms) },
        or_dash(row.backlog_per_worker),
    ]
}

#[cfg(test)]
mod tests {
    use broker_store::{Received, SeenEmpty};
    use uuid::Uuid;

    use super::*;

    fn worker(requests_ms: u64) -> Instance {
        let requests = Some(Duration::from_millis(requests_ms));
        let received = Received { requests, ..Received::default() };
        Instance { received, ..Instance::new(Uuid::nil(), Role::Worker, Timestamp::from_secs(1)) }
    }

    #[test]
    fn a_source_has_the_oldest_age_and_a_share_for_each_worker_and_others_have_none() {
        let depth = |visible| Depth { queue: "q".to_owned(), visible, in_flight: 7, delayed: 0 };
        let workers = [worker(20), worker(900), worker(3)];
        let now = Timestamp::from_secs(90);
        let seen = SeenProcesses { now, workers: workers.to_vec(), instances: &workers };
        let requests = row(depth(31), Some(QueueKind::Requests), &seen);
        assert_eq!((requests.oldest_age_ms, requests.backlog_per_worker), (Some(900), Some(13)));
        let maintenance = row(depth(0), Some(QueueKind::Maintenance), &seen);
        assert_eq!((maintenance.oldest_age_ms, maintenance.backlog_per_worker), (None, Some(3)));
        let reply = row(depth(31), None, &seen);
        assert_eq!((reply.oldest_age_ms, reply.backlog_per_worker), (None, None));
        let alone = SeenProcesses { now, workers: Vec::new(), instances: &[] };
        let alone = row(depth(31), Some(QueueKind::Requests), &alone);
        assert_eq!((alone.oldest_age_ms, alone.backlog_per_worker), (None, None), "no worker runs");
    }

    #[test]
    fn what_nobody_receives_is_no_older_than_the_last_sight_of_an_empty_queue() {
        let depth = |visible| Depth { queue: "q".to_owned(), visible, in_flight: 0, delayed: 0 };
        let at = |s| SeenEmpty { requests: Some(Timestamp::from_secs(s)), maintenance: None };
        let api = |s| Instance {
            seen_empty: at(s),
            ..Instance::new(Uuid::nil(), Role::Api, Timestamp::from_secs(s))
        };
        let instances = [api(10), api(40)];
        let seen =
            SeenProcesses { now: Timestamp::from_secs(100), workers: Vec::new(), instances: &instances };
        let told = |visible, kind| {
            let row = row(depth(visible), Some(kind), &seen);
            (row.oldest_age_ms, row.at_most)
        };
        assert_eq!(told(3, QueueKind::Requests), (Some(60_000), true));
        assert_eq!(told(0, QueueKind::Requests), (None, false));
        assert_eq!(told(3, QueueKind::Maintenance), (None, false), "not looked at");
    }
}
