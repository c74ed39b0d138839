//! Dead letters of a story: their number, and the operator's actions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::setup::Environment;
use crate::table::{Item, text};
use crate::wait::wait_for_condition;

/// `broker dead-letters replay --json`, or `discard`: what a run found and did.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "the counters are those of broker_dead_letters::Tally")]
pub struct Tally {
    pub found: u64,
    pub done: u64,
    pub resumed: u64,
    pub past_deadline: u64,
    pub renewed: u64,
    pub died_again: u64,
    pub skipped: u64,
    pub failed: u64,
    pub unreadable: u64,
    pub missing: Vec<String>,
    pub by_kind: BTreeMap<String, u64>,
    pub by_reason: BTreeMap<String, u64>,
    pub interrupted: bool,
    pub more: bool,
    pub dry_run: bool,
    pub duration_ms: u64,
}

impl Environment {
    /// Every letter in the table.
    pub async fn all_letters(&self) -> Vec<Item> {
        let mut letters = Vec::new();
        for shard in 0..4 {
            letters.extend(self.table().list(&format!("DEAD#{shard:02}")).await);
        }
        letters
    }

    /// The letters that want something of the operator.
    pub async fn open_letters(&self) -> Vec<Item> {
        let mut letters = self.all_letters().await;
        letters.retain(|letter| [text("dead"), text("replaying")].contains(&letter["state"]));
        letters
    }

    /// Waits until `count` letters want something of the operator and no dead message is left in a queue.
    pub async fn holds_letters(&self, count: usize) {
        let queues = self.queues();
        wait_for_condition(&format!("{count} dead letters"), async || {
            let mut queued = 0;
            for queue in ["requests-dlq", "maintenance-dlq"] {
                queued += queues.depth(&queues.name(queue)).await.total();
            }
            let kept = self.open_letters().await.len();
            if kept == count && queued == 0 { Ok(()) } else { Err((kept, queued)) }
        })
        .await;
    }

    /// `broker dead-letters list` with these arguments, all of them.
    pub async fn letters(&self, filter: &[&str]) -> Vec<Value> {
        let list = ["dead-letters", "list", "--limit", "1000000", "--json"];
        self.cli_ok(&[&list[..], filter].concat()).await.json()
    }

    /// `broker dead-letters show`.
    pub async fn letter(&self, id: &str) -> Value {
        self.cli_ok(&["dead-letters", "show", id, "--json"]).await.json()
    }

    /// `broker dead-letters replay` with these arguments.
    pub async fn replay(&self, args: &[&str]) -> Tally {
        self.cli_ok(&[&["dead-letters", "replay", "--json"], args].concat()).await.json()
    }

    /// `broker dead-letters discard` with these arguments.
    pub async fn discard(&self, args: &[&str]) -> Tally {
        self.cli_ok(&[&["dead-letters", "discard", "--why", "a story ends", "--json"], args].concat())
            .await
            .json()
    }

    /// The audit lines of today, without that of the seed.
    pub async fn audit(&self) -> Vec<Item> {
        let now = broker_domain::Timestamp::from_secs(crate::table::now_s());
        let mut lines = self.table().list(&format!("AUDIT#{}", now.date())).await;
        lines.retain(|line| line["act"].as_s().is_ok_and(|act| act != "seed"));
        lines
    }
}
