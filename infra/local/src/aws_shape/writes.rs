//! Writes that meet: conflicts of transactions, and partitions that take 1,000 writes a second.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde_json::Value;

use super::{Answer, Shaper, wire};

/// DynamoDB: writes that one partition takes in a second, of the table or of an index.
const WRITES_PER_SECOND: f64 = 1_000.0;
/// What the keys of the items begin with that stand in the index.
const INDEXED: &str = "SBX#";

/// The key of one item of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) table: String,
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Item {
    fn of(part: &Value) -> Option<Self> {
        let text = |value: &Value| value["S"].as_str().map(str::to_owned);
        let key = part.get("Key").or_else(|| part.get("Item"))?;
        Some(Self {
            table: part["TableName"].as_str()?.to_owned(),
            pk: text(&key["PK"])?,
            sk: text(&key["SK"])?,
        })
    }

    /// Whether it may stand in the index.
    pub(super) fn is_indexed(&self) -> bool {
        self.pk.starts_with(INDEXED)
    }
}

/// The items that a call writes, or reads in a transaction, in their order.
pub(super) fn items(operation: &str, request: &Value) -> Vec<Item> {
    match operation {
        "PutItem" | "UpdateItem" | "DeleteItem" => Item::of(request).into_iter().collect(),
        "TransactWriteItems" | "TransactGetItems" => {
            let parts = request["TransactItems"].as_array().into_iter().flatten();
            parts.filter_map(|part| part.as_object()?.values().next().and_then(Item::of)).collect()
        }
        _ => Vec::new(),
    }
}

/// The partitions that a call writes to: of the table, and of the index what its items leave and enter.
pub(super) fn partitions(items: &[Item], before: &[(&Item, Option<Value>)], request: &Value) -> Vec<String> {
    let mut partitions: Vec<_> = items.iter().map(|item| format!("{} {}", item.table, item.pk)).collect();
    for (item, was) in before {
        let shard = was.as_ref().and_then(|was| was["state_shard"]["S"].as_str());
        partitions.extend(shard.map(|shard| format!("{} {shard}", item.table)));
    }
    let parts =
        request["TransactItems"].as_array().map_or_else(|| vec![request], |parts| parts.iter().collect());
    for part in parts {
        let part =
            part.as_object().and_then(|part| part.values().find(|inner| inner.is_object())).unwrap_or(part);
        let set = &part["ExpressionAttributeValues"][":shard"]["S"];
        let put = &part["Item"]["state_shard"]["S"];
        let entered = set.as_str().or_else(|| put.as_str());
        partitions
            .extend(entered.map(|shard| format!("{} {shard}", part["TableName"].as_str().unwrap_or(""))));
    }
    partitions
}

/// What is under way, and what each partition may still take.
#[derive(Debug, Default)]
pub(super) struct Writes {
    in_transactions: HashSet<Item>,
    single: HashMap<Item, usize>,
    left: HashMap<String, (f64, Instant)>,
}

/// What a call holds until it ends.
#[derive(Debug)]
pub(super) struct Keys {
    transaction: bool,
    items: Vec<Item>,
}

/// Gives back what a call holds when it is dropped.
pub(super) struct HeldItem {
    shaper: Shaper,
    keys: Keys,
}

impl HeldItem {
    pub(super) const fn new(shaper: Shaper, keys: Keys) -> Self {
        Self { shaper, keys }
    }
}

impl Drop for HeldItem {
    fn drop(&mut self) {
        self.shaper.state().writes.end(&self.keys);
    }
}

impl Writes {
    /// Begins a call on `items`, or is the conflict that it meets.
    #[expect(clippy::result_large_err, reason = "the error is the answer of a refused call")]
    pub(super) fn begin(&mut self, operation: &str, items: &[Item]) -> Result<Keys, Answer> {
        let transaction = operation.starts_with("Transact");
        let meets = |item: &Item| {
            self.in_transactions.contains(item) || (transaction && self.single.contains_key(item))
        };
        let met: Vec<_> = (0..items.len()).filter(|position| meets(&items[*position])).collect();
        if !met.is_empty() {
            return Err(if transaction {
                wire::cancelled(items.len(), &met, "TransactionConflict")
            } else {
                wire::dynamodb_error("TransactionConflictException")
            });
        }
        for item in items {
            if transaction {
                self.in_transactions.insert(item.clone());
            } else {
                *self.single.entry(item.clone()).or_default() += 1;
            }
        }
        Ok(Keys { transaction, items: items.to_vec() })
    }

    /// Whether nothing is under way that the index shows.
    pub(super) fn are_over(&self) -> bool {
        !self.in_transactions.iter().chain(self.single.keys()).any(Item::is_indexed)
    }

    fn end(&mut self, keys: &Keys) {
        for item in &keys.items {
            if keys.transaction {
                self.in_transactions.remove(item);
            } else if let Some(count) = self.single.get_mut(item) {
                *count -= 1;
                if *count == 0 {
                    self.single.remove(item);
                }
            }
        }
    }

    /// Takes what the call writes from its partitions, or is the refusal of a hot one.
    pub(super) fn throttle(
        &mut self,
        operation: &str,
        items: usize,
        partitions: Vec<String>,
        now: Instant,
    ) -> Option<Answer> {
        let units = if operation.starts_with("Transact") { 2.0 } else { 1.0 };
        let mut hot = false;
        for partition in partitions {
            let (left, at) = self.left.entry(partition).or_insert((WRITES_PER_SECOND, now));
            let refilled = *left + now.saturating_duration_since(*at).as_secs_f64() * WRITES_PER_SECOND;
            (*left, *at) = (refilled.min(WRITES_PER_SECOND) - units, now);
            hot |= *left < 0.0;
        }
        hot.then(|| {
            if operation.starts_with("Transact") {
                wire::cancelled(items, &[0], "ThrottlingError")
            } else {
                wire::dynamodb_error("ProvisionedThroughputExceededException")
            }
        })
    }
}
