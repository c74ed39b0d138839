//! Lines and places: requests that are parked in the table, in the order of asking.
//!
//! A line is listed before a place is put into it, so a reader of the list misses none; a place and the mark on its request's
//! record are one transaction, so a request that is marked as parked has its place. A place is no claim: whoever finds its
//! request ended deletes it. Order and conditions are ARCHITECTURE.md, "Waiting".

use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::errors::built_wrong;
use super::keys::{self, SK};
use super::{WaitingStore, n, s};
use crate::{ListedLine, Page, PageKey, StoreError, Write};
use broker_domain::waiting::{Line, Marks, Place};
use broker_domain::{RequestId, TenantName, Timestamp};

/// The line is not listed, or not for as long.
const LINE_IS_NOT_LISTED: &str = "attribute_not_exists(until_ms) or until_ms < :until_ms";
/// The line is listed.
const LINE_IS_LISTED: &str = "attribute_exists(until_ms)";
/// The request was neither cancelled nor ended.
const REQUEST_IS_QUEUED: &str = "#state = :queued";
/// How long what nobody deleted is kept after its time.
const KEPT_AFTER: Duration = Duration::from_secs(86_400);

impl WaitingStore {
    /// Lists `line` until then at least: before any place is put into it.
    pub async fn list_line(&self, line: &Line, until: Timestamp) -> Result<(), StoreError> {
        let listed = self.table.change(ItemChange {
            operation: "list_line",
            key: keys::line(line).into_map(),
            condition: LINE_IS_NOT_LISTED,
            update: "SET until_ms = :until_ms, #ttl = :ttl",
            values: vec![(":until_ms", n(until.as_ms())), (":ttl", n(until.plus(KEPT_AFTER).as_secs()))],
        });
        let (Write::Applied | Write::Rejected(())) = listed.await?;
        Ok(())
    }

    /// Parks a request: its place, and the mark on its record, if that is still queued. The same place again is the same.
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
            values: vec![(":line", s(place.line.to_string())), (":queued", s(a::QUEUED))],
        })?;
        let items = vec![TransactWriteItem::builder().put(put).build(), parked];
        let keys = vec![keys::place(&place.line, place.request_id), keys::request(place.request_id)];
        self.table.transact("park", keys, items).await
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
        call.send().await.map_err(|error| super::errors::failed("leave", &self.table.name, error))?;
        Ok(())
    }

    /// The lines that are listed at `now` (a consistent read), each with what its last walk found.
    pub async fn lines(&self, now: Timestamp) -> Result<Vec<ListedLine>, StoreError> {
        let items = self.table.all_of("lines", keys::LINES).await?;
        let lines = items.iter().map(read_line).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line.until >= now).collect())
    }

    /// The lines of one tenant that are listed at `now` (a consistent read).
    pub async fn lines_of(&self, tenant: &TenantName, now: Timestamp) -> Result<Vec<ListedLine>, StoreError> {
        let items = self.table.all_that_begin("lines", keys::LINES, &format!("{tenant}#")).await?;
        let lines = items.iter().map(read_line).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line.until >= now).collect())
    }

    /// A page of at most `limit` places of `line`, in their order (a consistent read).
    pub async fn places(
        &self,
        line: &Line,
        after: Option<PageKey>,
        limit: u16,
    ) -> Result<Page<Vec<Place>>, StoreError> {
        let page = self.table.page_of("places", &keys::places(line), after, Some(limit)).await?;
        let places = page.items.iter().map(|item| read_place(line, item)).collect::<Result<_, _>>()?;
        Ok(Page { items: places, next: page.next })
    }

    /// Keeps what a walk of `line` found.
    pub async fn walked(&self, line: &Line, marks: &Marks, now: Timestamp) -> Result<(), StoreError> {
        let walked = self.table.change(ItemChange {
            operation: "walk",
            key: keys::line(line).into_map(),
            condition: LINE_IS_LISTED,
            update: "SET marks = :marks, as_of_ms = :now",
            values: vec![
                (":marks", s(serde_json::to_string(marks).unwrap_or_default())),
                (":now", n(now.as_ms())),
            ],
        });
        let (Write::Applied | Write::Rejected(())) = walked.await?;
        Ok(())
    }
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

fn write_place(place: &Place) -> Item {
    let mut item = keys::place(&place.line, place.request_id).into_map();
    item.insert(a::MESSAGE.to_owned(), s(&place.message));
    item.insert(a::DEADLINE_MS.to_owned(), n(place.deadline.as_ms()));
    item.insert(a::TTL.to_owned(), n(place.deadline.plus(KEPT_AFTER).as_secs()));
    item
}
