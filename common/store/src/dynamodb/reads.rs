//! Batched consistent reads of single items: one BatchGetItem for up to a hundred callers.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};

use super::attributes::Item;
use super::count_capacity;
use super::errors::{Shared, built_wrong, unread};
use super::keys::{Key, PK};
use crate::StoreError;
use broker_runtime::aws::calls;
use broker_runtime::aws::{Batcher, Bounds};

/// AWS: items of one BatchGetItem.
pub(super) const KEYS: usize = 100;
/// Calls in flight at a time; further reads collect meanwhile.
const CALLS: usize = 2;
/// Between calls that are not full: as short as a call to AWS, so a read after another waits at most half as long again.
const SPACING: Duration = Duration::from_millis(5);

type Answer = Result<Option<Item>, StoreError>;

/// Reads items for all callers of one process.
#[derive(Clone, Debug)]
pub(super) struct Reads(Batcher<Key, Answer>);

impl Reads {
    pub(super) fn new(client: Client, table: String) -> Self {
        let bounds = Bounds {
            in_flight: CALLS,
            items: KEYS,
            weight: usize::MAX,
            min_interval: SPACING,
            max_wait: Bounds::MAX_WAIT,
        };
        let flight = move |wanted: Vec<Key>| {
            let (client, table) = (client.clone(), table.clone());
            async move {
                match read(&client, &table, &wanted, true).await {
                    Ok(found) => wanted.iter().map(|key| found.answer(key)).collect(),
                    Err(error) => {
                        let shared = Shared::new(error);
                        wanted.iter().map(|_| Err(shared.error())).collect()
                    }
                }
            }
        };
        Self(Batcher::new(bounds, |_| 1, flight))
    }

    /// The item, if there is one. [`StoreError::Conflict`] if DynamoDB left the key unprocessed: ask again.
    pub(super) async fn get(&self, key: Key) -> Answer {
        let lost =
            |error| Err(StoreError::Unavailable { operation: "BatchGetItem", source: Box::new(error) });
        let mut span = calls::span("DynamoDB", "BatchGetItem");
        let answer = self.0.submit(key).await.unwrap_or_else(lost);
        if let Err(error) = &answer {
            span.failed(error.as_str());
        }
        answer
    }
}

/// The result of one call: items by partition key, and the unprocessed keys.
pub(super) struct ItemsFound {
    items: HashMap<String, Item>,
    unprocessed: Vec<String>,
}

impl ItemsFound {
    pub(super) fn answer(&self, key: &Key) -> Answer {
        if self.unprocessed.iter().any(|unprocessed| unprocessed == key.as_str()) {
            return Err(StoreError::Conflict);
        }
        Ok(self.items.get(key.as_str()).cloned())
    }
}

/// The items of at most [`KEYS`] keys, in one call.
pub(super) async fn read(
    client: &Client,
    table: &str,
    wanted: &[Key],
    consistent: bool,
) -> Result<ItemsFound, StoreError> {
    // AWS refuses a key that occurs twice in one call.
    let distinct: HashMap<&str, &Key> = wanted.iter().map(|key| (key.as_str(), key)).collect();
    let request = KeysAndAttributes::builder()
        .set_keys(Some(distinct.into_values().cloned().map(Key::into_map).collect()))
        .consistent_read(consistent)
        .build()
        .map_err(|error| built_wrong("BatchGetItem", error))?;
    let call = client
        .batch_get_item()
        .request_items(table, request)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = Box::pin(call.send()).await.map_err(|error| unread("BatchGetItem", table, error))?;
    count_capacity("read", answer.consumed_capacity());
    let pk = |item: &Item| item.get(PK).and_then(|pk| pk.as_s().ok()).cloned().unwrap_or_default();
    let unprocessed = answer.unprocessed_keys().and_then(|tables| tables.get(table));
    Ok(ItemsFound {
        unprocessed: unprocessed.map(|keys| keys.keys().iter().map(pk).collect()).unwrap_or_default(),
        items: answer
            .responses
            .unwrap_or_default()
            .remove(table)
            .unwrap_or_default()
            .into_iter()
            .map(|item| (pk(&item), item))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::keys;
    use broker_domain::SandboxId;

    #[test]
    fn a_key_that_the_table_did_not_get_to_is_no_absent_item() {
        let key = |id: &str| keys::sandbox(&SandboxId::new(id).unwrap());
        let found = ItemsFound {
            items: [(key("a").as_str().to_owned(), Item::new())].into(),
            unprocessed: vec![key("b").as_str().to_owned()],
        };
        assert!(matches!(found.answer(&key("a")), Ok(Some(_))));
        assert!(matches!(found.answer(&key("b")), Err(StoreError::Conflict)));
        assert!(matches!(found.answer(&key("c")), Ok(None)));
    }
}
