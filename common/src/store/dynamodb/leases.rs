//! Reads of leases, coalesced: on an empty pool every caller's own lease is looked at, a hundred in one call.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};

use super::attributes::{self as a, Item};
use super::claim::built_wrong;
use super::errors::failed;
use super::keys::{self, PK};
use super::{Store, count_capacity};
use crate::domain::{Lease, LeaseKey};
use crate::queue::{Bounds, Coalescer};
use crate::store::StoreError;

/// The most items of one BatchGetItem.
const KEYS_PER_CALL: usize = 100;
/// Calls under way at a time; further reads collect meanwhile.
const CALLS: usize = 2;

/// One answer of a coalesced read. The error is shared by all who were in the call.
type Answer = Result<Option<Lease>, StoreError>;

/// Reads leases for all callers of one process.
#[derive(Clone, Debug)]
pub(super) struct LeaseReader(Coalescer<LeaseKey, Answer>);

impl LeaseReader {
    pub(super) fn new(client: Client, table: String) -> Self {
        let flight = move |wanted: Vec<LeaseKey>| {
            let (client, table) = (client.clone(), table.clone());
            async move { read_together(&client, &table, wanted).await }
        };
        let bounds = Bounds { flights: CALLS, items: KEYS_PER_CALL, weight: usize::MAX };
        Self(Coalescer::new(bounds, |_| 1, flight))
    }
}

impl Store {
    /// The lease of a key as it is now (a consistent read), live or ended.
    pub async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        self.leases.0.submit(key.clone()).await.unwrap_or_else(|lost| {
            Err(StoreError::Unavailable { operation: "BatchGetItem", source: Box::new(lost) })
        })
    }
}

async fn read_together(client: &Client, table: &str, wanted: Vec<LeaseKey>) -> Vec<Answer> {
    match read_items(client, table, &wanted).await {
        Ok(found) => wanted.iter().map(|key| answer(&found, key)).collect(),
        Err(error) => {
            let shared = std::sync::Arc::new(error);
            let each = |_: &LeaseKey| {
                Err(StoreError::Unavailable {
                    operation: "BatchGetItem",
                    source: Box::new(std::sync::Arc::clone(&shared)),
                })
            };
            wanted.iter().map(each).collect()
        }
    }
}

/// What one BatchGetItem said: items by partition key, and the keys it did not get to.
struct Found {
    items: HashMap<String, Item>,
    unprocessed: Vec<String>,
}

fn answer(found: &Found, key: &LeaseKey) -> Answer {
    let pk = keys::lease(key);
    if found.unprocessed.iter().any(|unprocessed| unprocessed == pk.as_str()) {
        return Err(StoreError::Conflict);
    }
    found.items.get(pk.as_str()).map(a::read_lease).transpose()
}

async fn read_items(client: &Client, table: &str, wanted: &[LeaseKey]) -> Result<Found, StoreError> {
    // AWS refuses a key that stands twice in one call.
    let distinct: HashMap<_, _> =
        wanted.iter().map(keys::lease).map(|key| (key.as_str().to_owned(), key)).collect();
    let request = KeysAndAttributes::builder()
        .set_keys(Some(distinct.into_values().map(keys::Key::into_map).collect()))
        .consistent_read(true)
        .build()
        .map_err(|error| built_wrong("BatchGetItem", error))?;
    let call = client
        .batch_get_item()
        .request_items(table, request)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = call.send().await.map_err(|error| failed("BatchGetItem", table, error))?;
    count_capacity("lease", answer.consumed_capacity());
    let pk = |item: &Item| {
        item.get(PK).and_then(|pk: &AttributeValue| pk.as_s().ok()).cloned().unwrap_or_default()
    };
    let unprocessed = answer.unprocessed_keys().and_then(|tables| tables.get(table));
    Ok(Found {
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
