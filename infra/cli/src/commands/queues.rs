//! `broker queues`: depth of every queue, reply queues included, age of the oldest received message, and backlog per worker.
//!
//! The age is of the messages that workers received in their last two heartbeat intervals: SQS reports it only to
//! CloudWatch, and receiving a message to look at it would count as a receive. Without receives there is none.

use std::time::Duration;

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
    /// Of the oldest message that a worker received recently.
    oldest_age_ms: Option<u64>,
    /// Visible messages for each running worker.
    backlog_per_worker: Option<u64>,
}

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let now = context.clock.now();
    let mut workers = context.store.instances.list().await?;
    workers.retain(|instance| instance.role == Role::Worker && !heartbeat::is_gone(instance, now));
    let mut rows = Vec::new();
    for depth in topology::depths(&context.aws, &urls).await? {
        let source = [QueueKind::Requests, QueueKind::Maintenance]
            .into_iter()
            .find(|kind| context.names.name(*kind) == depth.queue);
        rows.push(row(depth, source, &workers));
    }
    for name in topology::reply_queues(&context.aws, &context.names).await? {
        // A process may delete its reply queue meanwhile.
        if let Ok(depth) = topology::depth(&context.aws, &urls.reply(&name), name.as_str().to_owned()).await {
            rows.push(row(depth, None, &workers));
        }
    }
    if json {
        output::json(&rows)?;
    } else {
        let header = ["QUEUE", "VISIBLE", "IN FLIGHT", "DELAYED", "OLDEST MS", "PER WORKER"];
        output::table(header, rows.into_iter().map(cells))?;
        output::line(format_args!("\n{} running workers", workers.len()))?;
    }
    Ok(Done::Ok)
}

/// The row of one queue; `source` is a queue that workers receive from.
fn row(depth: Depth, source: Option<QueueKind>, workers: &[Instance]) -> QueueRow {
    let age = |worker: &Instance| match source? {
        QueueKind::Requests => worker.received.requests,
        QueueKind::Maintenance => worker.received.maintenance,
        QueueKind::RequestsDlq | QueueKind::MaintenanceDlq => None,
    };
    let oldest: Option<Duration> = workers.iter().filter_map(age).max();
    let running = u64::try_from(workers.len()).ok().filter(|running| *running > 0);
    QueueRow {
        oldest_age_ms: oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        backlog_per_worker: running
            .filter(|_| source.is_some())
            .map(|running| depth.visible.div_ceil(running)),
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
        or_dash(row.oldest_age_ms),
        or_dash(row.backlog_per_worker),
    ]
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_store::Received;
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
        let requests = row(depth(31), Some(QueueKind::Requests), &workers);
        assert_eq!((requests.oldest_age_ms, requests.backlog_per_worker), (Some(900), Some(11)));
        let maintenance = row(depth(0), Some(QueueKind::Maintenance), &workers);
        assert_eq!((maintenance.oldest_age_ms, maintenance.backlog_per_worker), (None, Some(0)));
        let reply = row(depth(31), None, &workers);
        assert_eq!((reply.oldest_age_ms, reply.backlog_per_worker), (None, None));
        let alone = row(depth(31), Some(QueueKind::Requests), &[]);
        assert_eq!((alone.oldest_age_ms, alone.backlog_per_worker), (None, None), "no worker runs");
    }
}
