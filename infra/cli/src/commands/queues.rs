//! `broker queues`: how full they are, each process's reply queue included.

use broker_common::queue::{QueueUrls, topology};
use serde::Serialize;

use super::Done;
use crate::context::Context;
use crate::output;

#[derive(Serialize)]
struct Row {
    queue: String,
    visible: u64,
    in_flight: u64,
    delayed: u64,
}

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let mut depths = topology::depths(&context.aws, &urls).await?;
    for name in topology::reply_queues(&context.aws, &context.names).await? {
        // A process may take its reply queue with it while we look.
        if let Ok(depth) = topology::depth(&context.aws, &urls.reply(&name), name.as_str().to_owned()).await {
            depths.push(depth);
        }
    }
    let rows = depths.into_iter().map(|d| Row {
        queue: d.queue,
        visible: d.visible,
        in_flight: d.in_flight,
        delayed: d.delayed,
    });
    if json {
        output::json(&rows.collect::<Vec<_>>())?;
    } else {
        let cells =
            rows.map(|r| [r.queue, r.visible.to_string(), r.in_flight.to_string(), r.delayed.to_string()]);
        output::table(["QUEUE", "VISIBLE", "IN FLIGHT", "DELAYED"], cells)?;
    }
    Ok(Done::Ok)
}
