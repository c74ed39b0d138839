//! Sightings of the sweep: the processes and queues that the last one found without a recent heartbeat, each with its last one.

use std::collections::BTreeMap;

use super::attributes::{self as a, Reader};
use super::change::written;
use super::{InstanceStore, keys, n, s};
use crate::{Sightings, StoreError, Write};
use broker_domain::Timestamp;

/// The sightings are those that were read.
const SIGHTINGS_ARE_SEEN: &str = "as_of_ms = :seen";
const THERE_ARE_NONE: &str = "attribute_not_exists(PK)";

impl InstanceStore {
    /// What the last sweep saw; nothing, if there was none.
    pub async fn sightings(&self) -> Result<Sightings, StoreError> {
        let Some(item) = self.table.get(keys::sightings()).await? else { return Ok(Sightings::default()) };
        let read = Reader(&item);
        let unseen: BTreeMap<String, Option<u64>> = read.text(a::UNSEEN, serde_json::from_str)?;
        let unseen = unseen.into_iter().map(|(name, ms)| (name, ms.map(Timestamp::from_ms)));
        Ok(Sightings { as_of: Some(Timestamp::from_ms(read.number(a::AS_OF_MS)?)), unseen: unseen.collect() })
    }

    /// Keeps what a sweep saw in place of `before`, which it read.
    pub async fn record_sightings(&self, before: &Sightings, now: &Sightings) -> Result<Write, StoreError> {
        let unseen: BTreeMap<_, _> =
            now.unseen.iter().map(|(name, heartbeat)| (name, heartbeat.map(Timestamp::as_ms))).collect();
        let mut item = keys::sightings().into_map();
        item.insert(a::AS_OF_MS.to_owned(), n(now.as_of.map_or(0, Timestamp::as_ms)));
        item.insert(a::UNSEEN.to_owned(), s(serde_json::to_string(&unseen).unwrap_or_default()));
        let mut call = self.table.client.put_item().table_name(&self.table.name).set_item(Some(item));
        call = match before.as_of {
            Some(seen) => call
                .condition_expression(SIGHTINGS_ARE_SEEN)
                .expression_attribute_values(":seen", n(seen.as_ms())),
            None => call.condition_expression(THERE_ARE_NONE),
        };
        written(call.send().await, "keep_sightings", &self.table.name)
    }
}
