//! Audit lines: who did what, to what, why, and how it ended.
//!
//! Invariant: a deed's line stands before its first effect, so one whose process died over it is there too, without an
//! end. What it does not do: decide what is worth a line.

use std::time::Duration;

use super::attributes::{self as a, Item, Reader};
use super::change::Change;
use super::errors::failed;
use super::keys::{self, PK};
use super::{Store, n, s};
use crate::domain::Timestamp;
use crate::store::{AuditLine, Changed, StoreError};
use uuid::Uuid;

/// The line stands and has no end yet.
const DEED_LASTS: &str = "attribute_exists(PK) and attribute_not_exists(deed_ended)";
/// How long a line is kept.
const LINE_IS_KEPT: Duration = Duration::from_secs(400 * 24 * 3_600);

const DEED: &str = "deed";
const AT_MS: &str = "at_ms";
const BY: &str = "done_by";
const WHAT: &str = "what";
const TO: &str = "done_to";
const WHY: &str = "why";
const ENDED: &str = "deed_ended";

impl Store {
    /// Writes the line of a deed that is about to begin (or, with its end, of one that is done).
    pub async fn audit(&self, line: &AuditLine) -> Result<Changed, StoreError> {
        let mut item = keys::audit(line.deed, line.at).into_map();
        let set = [
            (DEED, Some(s(line.deed.to_string()))),
            (AT_MS, Some(n(line.at.as_ms()))),
            (BY, Some(s(&line.by))),
            (WHAT, Some(s(&line.what))),
            (TO, Some(s(&line.to))),
            (WHY, line.why.as_ref().map(s)),
            (ENDED, line.ended.as_ref().map(s)),
            (a::TTL, Some(n(line.at.plus(LINE_IS_KEPT).as_secs()))),
        ];
        item.extend(set.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        self.put_if_new("audit", item).await
    }

    /// Adds how a deed ended to its line.
    pub async fn audit_end(&self, deed: Uuid, began: Timestamp, ended: &str) -> Result<Changed, StoreError> {
        self.change(Change {
            operation: "audit_end",
            key: keys::audit(deed, began).into_map(),
            condition: DEED_LASTS,
            update: "SET deed_ended = :ended",
            values: vec![(":ended", s(ended))],
        })
        .await
    }

    /// The lines of the day of `at` (UTC), in the order in which they began.
    pub async fn audited(&self, at: Timestamp) -> Result<Vec<AuditLine>, StoreError> {
        let (mut lines, mut after) = (Vec::new(), None);
        loop {
            let call = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :day")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":day", s(keys::audit_day(at)))
                .set_exclusive_start_key(after);
            let answer = call.send().await.map_err(|error| failed("Query", &self.table, error))?;
            for item in answer.items() {
                lines.push(read_line(item)?);
            }
            after = answer.last_evaluated_key;
            if after.is_none() {
                return Ok(lines);
            }
        }
    }
}

fn read_line(item: &Item) -> Result<AuditLine, StoreError> {
    let read = Reader(item);
    let text = |name| read.text(name, |text| Ok::<_, ()>(text.to_owned()));
    let optional = |name| read.optional(name, |text| Ok::<_, ()>(text.to_owned()));
    Ok(AuditLine {
        deed: read.text(DEED, Uuid::try_parse)?,
        at: Timestamp::from_ms(read.number(AT_MS)?),
        by: text(BY)?,
        what: text(WHAT)?,
        to: text(TO)?,
        why: optional(WHY)?,
        ended: optional(ENDED)?,
    })
}
