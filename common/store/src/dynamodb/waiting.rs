//! Lines and places: requests that are parked in the table, in the order of asking.
//!
//! A line is listed before a place is put into it, so a reader of the list misses none; a place and the mark on its request's
//! record are one transaction, so a request that is marked as parked has its place. A place is no claim: a reader that
//! finds its request ended deletes it. One that cannot be served becomes a dead letter: the letter, the end of its request and
//! the place's deletion are one transaction. Order and conditions are ARCHITECTURE.md, "Waiting".
//!
//! A place and its line are kept as long as the record of its request, which without them would wait in vain.

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};

use super::attributes::{self as a, Item, Reader};
use super::change::{ItemChange, written};
use super::errors::built_wrong;
use super::keys::{self, PK, SK};
use super::partition::Parts;
use super::requests::RECORD_IS_KEPT;
use super::{WaitingStore, dead_letter_items, n, s};
use crate::{ListedLine, Page, PageKey, PlaceItem, PlaceRows, StoreError, TenantLines, Write};
use broker_domain::waiting::{Line, Marks, Place};
use broker_domain::{CLOCKS_DIFFER, DeadLetter, Outcome, RequestId, TenantName, Timestamp};

/// The line is not listed, or not for as long.
const LINE_IS_NOT_LISTED: &str = "attribute_not_exists(until_ms) or until_ms < :until_ms";
/// The line is listed, and no walk that began later has told what it found, but one of a clock that was wrong.
const LINE_WAS_WALKED_BEFORE: &str = "attribute_exists(until_ms) and (attribute_not_exists(as_of_ms) or as_of_ms < :began or as_of_ms > :beyond)";
/// No new line of the tenant was listed since the guard was read. It is gone once none was for long.
const GUARD_IS_AS_READ: &str = "attribute_not_exists(version) or version = :seen";
/// The request was neither cancelled nor ended, and the message does not end before it: a replay may have given it more time than a
/// late copy of the message says.
const REQUEST_IS_QUEUED: &str = "#state = :queued and deadline_ms <= :deadline";
/// It was neither cancelled nor ended, and stands in this line.
const REQUEST_IS_PARKED: &str = "#state = :queued and parked = :line";
/// The place has the message that was read.
const PLACE_IS_AS_READ: &str = "message = :message";
/// The place is there; no message of it could be read.
const PLACE_IS_THERE: &str = "attribute_exists(PK)";
const LETTER_IS_NEW: &str = "attribute_not_exists(PK)";
/// The line was not listed for longer since it was read.
const LINE_IS_AS_READ: &str = "until_ms = :seen";

impl WaitingStore {
    /// Lists `line` until then at least: before any place is put into it.
    pub async fn list_line(&self, line: &Line, until: Timestamp) -> Result<(), StoreError> {
        let listed = self.table.change(ItemChange {
            operation: "list_line",
            key: keys::line(line).into_map(),
            condition: LINE_IS_NOT_LISTED,
            update: "SET until_ms = :until_ms, #ttl = :ttl",
            values: vec![(":until_ms", n(until.as_ms())), (":ttl", n(until.plus(RECORD_IS_KEPT).as_secs()))],
        });
        let (Write::Applied | Write::Rejected(())) = listed.await?;
        Ok(())
    }

    /// Lists a line that `seen` has not, if no other one of its tenant was listed since: what bounds their number.
    pub async fn list_new_line(
        &self,
        line: &Line,
        until: Timestamp,
        seen: &TenantLines,
    ) -> Result<Write, StoreError> {
        let (listed, guard) = (keys::line(line), keys::lines_guard(&line.tenant));
        let ttl = || n(until.plus(RECORD_IS_KEPT).as_secs());
        let list = self.table.change_item(ItemChange {
            operation: "list_new_line",
            key: listed.clone().into_map(),
            condition: LINE_IS_NOT_LISTED,
            update: "SET until_ms = :until_ms, #ttl = :ttl",
            values: vec![(":until_ms", n(until.as_ms())), (":ttl", ttl())],
        })?;
        let raise = self.table.change_item(ItemChange {
            operation: "list_new_line",
            key: guard.clone().into_map(),
            condition: GUARD_IS_AS_READ,
            update: "SET version = :next, #ttl = :ttl",
            values: vec![(":seen", n(seen.guard)), (":next", n(seen.guard + 1)), (":ttl", ttl())],
        })?;
        self.table.transactions.transact("list_new_line", vec![listed, guard], vec![list, raise]).await
    }

    /// Parks a request: its place, and the mark on its record, if that is still queued and its deadline is no later than the
    /// place's. The same place again is the same.
    pub async fn park(&self, place: &Place) -> Result<Write, StoreError> {
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(write_place(place)))
            .build()
            .map_err(|error| built_wrong("park", error))?;
        let parked = self.table.change_item(ItemChange {
            operation: "park",
            key: keys::request(place.request_id).into_map(),
            condition: REQUEST_IS_QUEUED,
            update: "SET parked = :line REMOVE message",
            values: vec![
                (":line", s(place.line.to_string())),
                (":queued", s(a::QUEUED)),
                (":deadline", n(place.deadline.as_ms())),
            ],
        })?;
        let items = vec![TransactWriteItem::builder().put(put).build(), parked];
        let keys = vec![keys::place(&place.line, place.request_id), keys::request(place.request_id)];
        self.table.parks.transact("park", keys, items).await
    }

    /// A place (a consistent read), if it is there.
    pub async fn place(&self, line: &Line, request_id: RequestId) -> Result<Option<Place>, StoreError> {
        let item = self.table.get(keys::place(line, request_id)).await?;
        item.map(|item| read_place(line, &item)).transpose()
    }

    /// Deletes a place whose request has ended.
    pub async fn leave(&self, line: &Line, request_id: RequestId) -> Result<(), StoreError> {
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::place(line, request_id).into_map()));
        let _turn = self.table.singles.turn("leave").await?;
        call.send().await.map_err(|error| super::errors::failed("leave", &self.table.name, error))?;
        Ok(())
    }

    /// Deletes a place that cannot be read and whose request has ended, if it is as it was read.
    pub async fn leave_as_read(&self, place: &PlaceItem) -> Result<Write, StoreError> {
        let (condition, message) = as_read(place);
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::place_at(&place.line, place.key.clone()).into_map()))
            .condition_expression(condition)
            .set_expression_attribute_values(message);
        let _turn = self.table.singles.turn("leave").await?;
        written(call.send().await, "leave", &self.table.name)
    }

    /// Keeps `letter` of a place that cannot be served, fails its request and deletes it, if it is as it was read and its request
    /// waits there still.
    pub async fn bury(&self, place: &PlaceItem, letter: &DeadLetter) -> Result<Write, StoreError> {
        let wrong = |error| built_wrong("bury_place", error);
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(dead_letter_items::write(letter)))
            .condition_expression(LETTER_IS_NEW)
            .build()
            .map_err(wrong)?;
        let place_key = keys::place_at(&place.line, place.key.clone());
        let delete =
            Delete::builder().table_name(&self.table.name).set_key(Some(place_key.clone().into_map()));
        let (condition, message) = as_read(place);
        let delete = delete.condition_expression(condition).set_expression_attribute_values(message);
        let delete = delete.build().map_err(wrong)?;
        let mut keys = vec![keys::letter(&letter.id), place_key];
        let mut items = vec![
            TransactWriteItem::builder().put(put).build(),
            TransactWriteItem::builder().delete(delete).build(),
        ];
        if let Some(id) = place.request_id() {
            let outcome = Outcome::DeadLettered { reason: letter.reason.as_str().to_owned() };
            keys.push(keys::request(id));
            items.push(self.table.change_item(ItemChange {
                operation: "bury_place",
                key: keys::request(id).into_map(),
                condition: REQUEST_IS_PARKED,
                update: "SET #state = :failed, outcome = :outcome REMOVE parked, message",
                values: vec![
                    (":queued", s(a::QUEUED)),
                    (":line", s(place.line.to_string())),
                    (":failed", s("failed")),
                    (":outcome", a::write_outcome(&outcome)),
                ],
            })?);
        }
        self.table.transactions.transact("bury_place", keys, items).await
    }

    /// The lines that are listed at `now` (a consistent read), each with what its last walk found. One that cannot be read is
    /// left out, so that it holds up no other line.
    pub async fn lines(&self, now: Timestamp) -> Result<Vec<ListedLine>, StoreError> {
        let items = self.table.all_of("lines", keys::LINES).await?;
        Ok(readable_lines(&items).filter(|line| line.until >= now).collect())
    }

    /// The lines that a walk, or an operator, looks through (a consistent read): those that are listed, and those that were, until a walk finds
    /// them empty and forgets them. Places are ended later than their line is listed if no walk ran meanwhile.
    pub async fn lines_to_walk(&self) -> Result<Vec<ListedLine>, StoreError> {
        let items = self.table.all_of("lines", keys::LINES).await?;
        Ok(readable_lines(&items).collect())
    }

    /// Deletes a line that was found empty after it was listed, unless it was listed for longer since it was read.
    pub async fn forget_line(&self, listed: &ListedLine) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::line(&listed.line).into_map()))
            .condition_expression(LINE_IS_AS_READ)
            .expression_attribute_values(":seen", n(listed.until.as_ms()));
        written(call.send().await, "forget_line", &self.table.name)
    }

    /// The lines of one tenant that are listed at `now` (a consistent read).
    pub async fn lines_of(&self, tenant: &TenantName, now: Timestamp) -> Result<Vec<ListedLine>, StoreError> {
        let items = self.table.all_that_begin("lines", keys::LINES, &format!("{tenant}#")).await?;
        Ok(readable_lines(&items).filter(|line| line.until >= now).collect())
    }

    /// The same, and before them the guard that a new one is conditional on.
    pub async fn tenant_lines(&self, tenant: &TenantName, now: Timestamp) -> Result<TenantLines, StoreError> {
        let item = self.table.get(keys::lines_guard(tenant)).await?;
        let guard = item.as_ref().map_or(Ok(0), |item| Reader(item).number(a::VERSION))?;
        Ok(TenantLines { lines: self.lines_of(tenant, now).await?, guard })
    }

    /// A page of at most `limit` places of `line`, in their order (a consistent read).
    pub async fn places(
        &self,
        line: &Line,
        after: Option<PageKey>,
        limit: u16,
    ) -> Result<Page<PlaceRows>, StoreError> {
        let page =
            self.table.page_of("places", (&keys::places(line), Parts::All), after, Some(limit)).await?;
        let mut rows = PlaceRows::default();
        for item in &page.items {
            match read_place(line, item) {
                Ok(place) => rows.places.push(place),
                Err(error) => rows.unreadable.push(unreadable(line, item, &error)),
            }
        }
        Ok(Page { items: rows, next: page.next })
    }

    /// Keeps what a walk of `line` found that began at `now`, unless one that began later told what it found.
    pub async fn walked(
        &self,
        line: &Line,
        marks: &Marks,
        began: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let walked = self.table.change(ItemChange {
            operation: "walk",
            key: keys::line(line).into_map(),
            condition: LINE_WAS_WALKED_BEFORE,
            update: "SET marks = :marks, as_of_ms = :began",
            values: vec![
                (":marks", s(serde_json::to_string(marks).unwrap_or_default())),
                (":began", n(began.as_ms())),
                (":beyond", n(now.plus(CLOCKS_DIFFER).as_ms())),
            ],
        });
        let (Write::Applied | Write::Rejected(())) = walked.await?;
        Ok(())
    }
}

/// The cursor behind the place with this sort key; of an empty one, before the first place of the line.
pub(crate) fn cursor(line: &Line, key: &str) -> PageKey {
    // Sorts before the id of any request.
    let key = if key.is_empty() { "0" } else { key };
    PageKey(keys::place_at(line, key.to_owned()).into_map())
}

/// The line in which a cursor is, if it is one of places.
pub(crate) fn line_of(cursor: &PageKey) -> Option<Line> {
    let partition = cursor.0.get(PK)?.as_s().ok()?;
    Line::parse(partition.strip_prefix(keys::PLACES)?)
}

fn readable_lines(items: &[Item]) -> impl Iterator<Item = ListedLine> {
    let read = |item: &Item| match read_line(item) {
        Ok(line) => Some(line),
        Err(error) => {
            tracing::error!(line = ?item.get(SK), "unreadable line skipped: {error}");
            None
        }
    };
    items.iter().filter_map(read)
}

fn read_line(item: &Item) -> Result<ListedLine, StoreError> {
    let read = Reader(item);
    let line = read.text(SK, |text| Line::parse(text).ok_or(()))?;
    Ok(ListedLine {
        line,
        until: Timestamp::from_ms(read.number(a::UNTIL_MS)?),
        marks: read.optional(a::MARKS, serde_json::from_str)?.unwrap_or_default(),
        as_of: read.optional_number(a::AS_OF_MS)?.map(Timestamp::from_ms),
    })
}

fn read_place(line: &Line, item: &Item) -> Result<Place, StoreError> {
    let read = Reader(item);
    Ok(Place {
        line: line.clone(),
        request_id: read.text(SK, RequestId::parse)?,
        deadline: Timestamp::from_ms(read.number(a::DEADLINE_MS)?),
        message: read.text(a::MESSAGE, |text| Ok::<_, ()>(text.to_owned()))?,
    })
}

/// The condition that a place is as it was read, and its value.
fn as_read(place: &PlaceItem) -> (&'static str, Option<Item>) {
    match &place.message {
        Some(message) => (PLACE_IS_AS_READ, Some(Item::from([(":message".to_owned(), s(message))]))),
        None => (PLACE_IS_THERE, None),
    }
}

fn unreadable(line: &Line, item: &Item, error: &StoreError) -> PlaceItem {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    PlaceItem {
        line: line.clone(),
        key: text(SK).unwrap_or_default(),
        message: text(a::MESSAGE),
        why: error.to_string(),
    }
}

fn write_place(place: &Place) -> Item {
    let mut item = keys::place(&place.line, place.request_id).into_map();
    item.insert(a::MESSAGE.to_owned(), s(&place.message));
    item.insert(a::DEADLINE_MS.to_owned(), n(place.deadline.as_ms()));
    item.insert(a::TTL.to_owned(), n(place.deadline.plus(RECORD_IS_KEPT).as_secs()));
    item
}
