//! Lines of the audit: under the day, by time. They are only ever added, and leave by their ttl.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::errors::failed;
use super::keys::{self, PK};
use super::{Store, n, s};
use crate::domain::Timestamp;
use crate::store::{Act, AuditLine, PageKey, StoreError};

/// How long a line is kept: a year, and the time to look back at it.
const LINE_IS_KEPT: Duration = Duration::from_secs(400 * 24 * 3_600);

impl Store {
    /// Writes a line. To be called before the act: without its line nothing is done.
    pub async fn audit(&self, line: &AuditLine) -> Result<(), StoreError> {
        let mut item = keys::audit(&day_of(line.at), line.at, line.id);
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
        set(a::TTL, n(line.at.plus(LINE_IS_KEPT).as_secs()));
        // Found already there is our own write, which was retried: the id was minted for this line.
        self.put_if_new("audit", item).await.map(drop)
    }

    /// A page of the lines of the day (UTC) that `at` falls in, the oldest first (a consistent read).
    pub async fn audit_of_day(
        &self,
        at: Timestamp,
        after: Option<PageKey>,
    ) -> Result<(Vec<AuditLine>, Option<PageKey>), StoreError> {
        let call = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :day")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_values(":day", s(keys::audit_day(&day_of(at))))
            .set_exclusive_start_key(after.map(|key| key.0));
        let answer = call.send().await.map_err(|error| failed("Query", &self.table, error))?;
        let lines = answer.items().iter().map(read).collect::<Result<_, _>>()?;
        Ok((lines, answer.last_evaluated_key.map(PageKey)))
    }
}

fn read(item: &Item) -> Result<AuditLine, StoreError> {
    let read = Reader(item);
    let text = |text: &str| Ok::<_, ()>(text.to_owned());
    Ok(AuditLine {
        at: Timestamp::from_ms(read.number(a::AT_MS)?),
        id: read.text(a::AUDIT_ID, Uuid::try_parse)?,
        who: read.text(a::WHO, text)?,
        act: read.text(a::ACT, |text| Act::parse(text).ok_or(()))?,
        target: read.text(a::TARGET, text)?,
        why: read.optional(a::WHY, text)?,
        count: read.optional_number(a::HOW_MANY)?,
    })
}

/// `2026-11-22`: the day in UTC.
fn day_of(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    let date_time = DateTime::from_secs(secs).fmt(Format::DateTime).unwrap_or_default();
    date_time.chars().take_while(|c| *c != 'T').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(day_of(Timestamp::from_secs(0)), "1970-01-01");
        assert_eq!(day_of(Timestamp::from_ms(86_399_999)), "1970-01-01");
        assert_eq!(day_of(Timestamp::from_secs(1_795_368_969)), "2026-11-22");
    }

    #[test]
    fn every_act_reads_back_as_it_is_stored() {
        assert!(Act::ALL.into_iter().all(|act| Act::parse(act.as_str()) == Some(act)));
        assert_eq!(Act::parse("made_coffee"), None);
    }
}
