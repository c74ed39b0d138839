//! Storage of audit lines: under the day, by time. A line gets its result if the operation has one, and expires by ttl.

use std::convert::Infallible;
use std::time::Duration;

use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::errors::unread;
use super::keys::{self, PK};
use super::partition::Parts;
use super::pool::passable;
use super::{AuditStore, n, s};
use crate::{Act, AuditLine, NotDone, Page, PageKey, StoreError, Write};
use broker_domain::Timestamp;

/// The line exists and has no result.
const ACT_LASTS: &str = "attribute_exists(PK) and attribute_not_exists(act_ended)";
/// How long a line is kept: a year, and some weeks to review it.
const LINE_IS_KEPT: Duration = Duration::from_secs(400 * 24 * 3_600);

impl AuditStore {
    /// Writes a line. Must be called before the operation: nothing is done without its line.
    pub async fn record(&self, line: &AuditLine) -> Result<(), StoreError> {
        let mut item = keys::audit(line.at, line.id).into_map();
        let mut set = |name: &str, value| drop(item.insert(name.to_owned(), value));
        set(a::AT_MS, n(line.at.as_ms()));
        set(a::AUDIT_ID, s(line.id.to_string()));
        set(a::WHO, s(&line.who));
        set(a::ACT, s(line.act.as_str()));
        set(a::TARGET, s(&line.target));
        if let Some(why) = &line.why {
            set(a::WHY, s(why));
        }
        if let Some(count) = line.count {
            set(a::HOW_MANY, n(count));
        }
        if let Some(ended) = &line.ended {
            set(a::ACT_ENDED, s(ended));
        }
        set(a::TTL, n(line.at.plus(LINE_IS_KEPT).as_secs()));
        // If it exists already, this is our own write, retried: the id was minted for this line.
        self.table.put_if_new("audit", item).await.map(drop)
    }

    /// Adds the result of an operation to its line.
    pub async fn record_end(&self, id: Uuid, began: Timestamp, ended: &str) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "audit_end",
                key: keys::audit(began, id).into_map(),
                condition: ACT_LASTS,
                update: "SET act_ended = :ended",
                values: vec![(":ended", s(ended))],
            })
            .await
    }

    /// Says in the line of an operation that it was not done, and why.
    pub async fn record_not_done(&self, line: &AuditLine, how: &NotDone) -> Result<Write, StoreError> {
        self.record_end(line.id, line.at, &serde_json::to_string(how).unwrap_or_default()).await
    }

    /// The latest lines of the day (UTC) of `at`, the newest first, at most `limit`; `target` leaves out those of others. One
    /// read, of at most a megabyte.
    pub async fn latest_of_day(
        &self,
        at: Timestamp,
        target: Option<&str>,
        limit: i32,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<AuditLine>>, StoreError> {
        let mut call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .consistent_read(true)
            .scan_index_forward(false)
            .key_condition_expression("#pk = :day")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_values(":day", s(keys::audit_day(at)))
            .set_exclusive_start_key(after.map(|key| key.0));
        // A limit is counted before a filter.
        call = match target {
            Some(target) => call
                .filter_expression("#target = :target")
                .expression_attribute_names("#target", a::TARGET)
                .expression_attribute_values(":target", s(target)),
            None => call.limit(limit),
        };
        let answer = call.send().await.map_err(|error| unread("Query", &self.table.name, error))?;
        let lines = answer.items().iter().filter_map(|item| passable(read(item))).collect();
        Ok(Page { items: lines, next: answer.last_evaluated_key.map(PageKey) })
    }

    /// A page of the lines of the day (UTC) of `at`, the oldest first (a consistent read).
    pub async fn of_day(
        &self,
        at: Timestamp,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<AuditLine>>, StoreError> {
        let page = self.table.page_of("audit", (&keys::audit_day(at), Parts::All), after, None).await?;
        let lines = page.items.iter().filter_map(|item| passable(read(item))).collect();
        Ok(Page { items: lines, next: page.next })
    }
}

fn read(item: &Item) -> Result<AuditLine, StoreError> {
    let read = Reader(item);
    let text = |text: &str| Ok::<_, ()>(text.to_owned());
    Ok(AuditLine {
        at: Timestamp::from_ms(read.number(a::AT_MS)?),
        id: read.text(a::AUDIT_ID, Uuid::try_parse)?,
        who: read.text(a::WHO, text)?,
        act: read.text(a::ACT, |text| Ok::<_, Infallible>(Act::from_stored(text)))?,
        target: read.text(a::TARGET, text)?,
        why: read.optional(a::WHY, text)?,
        count: read.optional_number(a::HOW_MANY)?,
        ended: read.optional(a::ACT_ENDED, text)?,
    })
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use super::*;

    #[test]
    fn every_act_reads_back_as_it_is_stored() {
        assert!(Act::VARIANTS.iter().all(|act| Act::from_stored(act.as_str()) == *act));
        assert_eq!(Act::from_stored("made_coffee"), Act::Unknown);
    }
}
