//! Storage of the history: an item a minute, sorted by time in one partition, gone by ttl after two hours.
//!
//! Invariant: a census replaces an older one of its minute only, and each API adds to a minute once, however often its write
//! is repeated.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::change::written;
use super::errors::unread;
use super::keys::{self, PK, SK};
use super::pool::passable;
use super::{HistoryStore, n, s};
use crate::history::{CLASSES, Minute, MinuteGauges, Served, minute_of};
use crate::{StoreError, Write};
use broker_domain::{Status, Timestamp};

/// No census of this minute is stored, or an older one.
const CENSUS_OF_MINUTE_IS_NEWER: &str = "attribute_not_exists(as_of_ms) or as_of_ms < :as_of";
/// This API has not added to the minute.
const API_HAS_NOT_SAID: &str = "attribute_not_exists(said) or not contains(said, :me)";
/// How long a minute is kept: as long as it is shown, and as long again for a clock that is off or a ttl that is late.
const MINUTE_IS_KEPT: Duration = Duration::from_secs(2 * 60 * 60);

const LETTERS: &str = "letters";
const VISIBLE: &str = "visible";
const IN_FLIGHT: &str = "in_flight";
const OLDEST: &str = "oldest_requests_ms";
const WORKERS: &str = "workers";
const CREATED: &str = "created";
const EXISTING: &str = "existing";
const REFUSED: &str = "refused";
const FAILED: &str = "failed";

impl HistoryStore {
    /// Stores what a census that began at `as_of` counted.
    pub async fn count(&self, counted: &MinuteGauges, as_of: Timestamp) -> Result<Write, StoreError> {
        let mut values = vec![
            (a::AS_OF_MS.to_owned(), as_of.as_ms()),
            (LETTERS.to_owned(), counted.letters),
            (VISIBLE.to_owned(), counted.visible),
            (IN_FLIGHT.to_owned(), counted.in_flight),
            (WORKERS.to_owned(), counted.workers),
        ];
        values.extend(counted.oldest_ms.map(|oldest| (OLDEST.to_owned(), oldest)));
        values.extend(counted.by_status.iter().map(|(status, count)| (format!("{status}_count"), *count)));
        let set = values.iter().enumerate().map(|(at, (name, _))| format!("{name} = :v{at}"));
        let update = format!("SET #ttl = :ttl, {}", set.collect::<Vec<_>>().join(", "));
        let values = values.into_iter().enumerate().map(|(at, (_, value))| (format!(":v{at}"), n(value)));
        let values = values.chain([(":as_of".to_owned(), n(as_of.as_ms()))]);
        self.write("history", as_of, CENSUS_OF_MINUTE_IS_NEWER, update, values.collect()).await
    }

    /// Adds what the API `me` served in the minute of `at`, which is over for it.
    pub async fn serve(&self, served: &Served, me: Uuid, at: Timestamp) -> Result<Write, StoreError> {
        let Served { created, existing, refused, failed, latency } = served;
        let mut counts: Vec<_> =
            [(CREATED, created), (EXISTING, existing), (REFUSED, refused), (FAILED, failed)]
                .map(|(name, count)| (name.to_owned(), *count))
                .into();
        counts.extend(latency.iter().enumerate().map(|(class, count)| (class_name(class), *count)));
        counts.retain(|(_, count)| *count > 0);
        let add = counts.iter().enumerate().map(|(at, (name, _))| format!("{name} :v{at}"));
        let add: Vec<_> = add.chain([format!("{} :set", a::SAID)]).collect();
        let update = format!("SET #ttl = :ttl ADD {}", add.join(", "));
        let values = counts.iter().enumerate().map(|(at, (_, count))| (format!(":v{at}"), n(*count)));
        let mine = [
            (":me".to_owned(), s(me.to_string())),
            (":set".to_owned(), AttributeValue::Ss(vec![me.to_string()])),
        ];
        self.write("served", at, API_HAS_NOT_SAID, update, values.chain(mine).collect()).await
    }

    async fn write(
        &self,
        operation: &'static str,
        at: Timestamp,
        condition: &str,
        update: String,
        values: Vec<(String, AttributeValue)>,
    ) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::minute(minute_of(at)).into_map()))
            .condition_expression(condition)
            .update_expression(update)
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":ttl", n(minute_of(at).plus(MINUTE_IS_KEPT).as_secs()));
        let call = values
            .into_iter()
            .fold(call, |call, (name, value)| call.expression_attribute_values(name, value));
        written(Box::pin(call.send()).await, operation, &self.table.name)
    }

    /// The minutes since that of `from`, the oldest first: one eventually consistent query of small items.
    pub async fn since(&self, from: Timestamp) -> Result<Vec<Minute>, StoreError> {
        let call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .key_condition_expression("#pk = :history and #sk >= :from")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_values(":history", s(keys::HISTORY))
            .expression_attribute_values(":from", s(keys::time_key(minute_of(from))));
        let answer = Box::pin(call.send()).await.map_err(|error| unread("Query", &self.table.name, error))?;
        Ok(answer.items().iter().filter_map(|item| passable(read(item))).collect())
    }
}

fn class_name(class: usize) -> String {
    format!("latency_{class:02}")
}

fn read(item: &Item) -> Result<Minute, StoreError> {
    let read = Reader(item);
    let at = read.text(SK, |text| text.parse().map(Timestamp::from_secs))?;
    // An older program counted fewer states, and a newer one may count more.
    let count = |name: &str| item.get(name).and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or(0);
    let counted = read.optional_number(a::AS_OF_MS)?.map(|_| MinuteGauges {
        by_status: Status::ALL
            .into_iter()
            .map(|status| (status, count(&format!("{status}_count"))))
            .collect(),
        letters: count(LETTERS),
        visible: count(VISIBLE),
        in_flight: count(IN_FLIGHT),
        oldest_ms: item.get(OLDEST).and_then(|value| value.as_n().ok()?.parse().ok()),
        workers: count(WORKERS),
    });
    let mut latency = [0; CLASSES];
    latency.iter_mut().enumerate().for_each(|(class, slot)| *slot = count(&class_name(class)));
    let served = Served {
        created: count(CREATED),
        existing: count(EXISTING),
        refused: count(REFUSED),
        failed: count(FAILED),
        latency,
    };
    Ok(Minute { at, counted, served })
}
