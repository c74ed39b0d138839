//! Maintenance jobs, against the provider stand-in over HTTP.

mod accounts;
mod admin;
mod answers;
mod audit;
mod cleanup;
mod expire;
mod external;
mod faults;
mod leftovers;
mod lists;
mod pool_list;
mod schedule;
mod sync;

use broker_tests::{Broker, wait_for_condition};
use serde_json::Value;

/// Allocates for `tracks` students and gives everything back; the sandboxes.
async fn give_back(broker: &Broker, tracks: usize) -> Vec<String> {
    let mut sandboxes = Vec::new();
    broker.lists_are_current().await;
    for n in 0..tracks {
        let track = format!("returner-{n}");
        let answer = broker.allocate(&track).send().await.expect_status(201);
        broker.return_sandbox(answer.sandbox_id(), &track).send().await.expect_status(200);
        sandboxes.push(answer.sandbox_id().to_owned());
    }
    sandboxes
}

/// Plans deletions again and again until `count` tombstones stand.
async fn clean_up_until_deleted(broker: &Broker, count: u64) {
    wait_for_condition(&format!("{count} tombstones"), async || {
        broker.job("cleanup").await;
        match broker.stats().await {
            stats if stats.deleted == count => Ok(()),
            stats => Err(stats),
        }
    })
    .await;
}

/// The same after workers were killed: a deletion that one had planned and not yet sent is due again 15 minutes after its
/// slot, by itself; the operator need not wait for that, and neither does the story.
async fn clean_up_what_was_lost_until_deleted(broker: &Broker, count: u64) {
    wait_for_condition(&format!("{count} tombstones"), async || {
        let pending = ["pool", "list", "--status", "pending_deletion", "--json"];
        let pending: Vec<Value> = broker.cli_ok(&pending).await.json();
        for sandbox in &pending {
            // A worker may be faster with it.
            broker.cli(&["sandbox", "retry-delete", sandbox["sandbox_id"].as_str().expect("an id")]).await;
        }
        broker.job("cleanup").await;
        broker.queues().are_empty().await;
        match broker.stats().await {
            stats if stats.deleted == count => Ok(()),
            stats => Err(stats),
        }
    })
    .await;
}

/// The state of a sandbox.
async fn status(broker: &Broker, sandbox: &str) -> String {
    broker.shown(sandbox).await["status"].as_str().expect("a status").to_owned()
}
