//! Reads for the list of the pool: rows of the index, the records of many sandboxes, and the table itself.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use tokio::task::JoinSet;

use super::attributes::{self as a, Item, Reader};
use super::errors::unread;
use super::keys::{self, PK, SANDBOX_PREFIX, SK, STATE_KEY, STATE_SHARD};
use super::partition::IndexKeys;
use super::pool::passable;
use super::{SandboxStore, count_capacity, records, s};
use crate::pool_list::{Browsed, BrowsedPage, IndexRow, IndexedAfter, LookedUp};
use crate::{Page, PageKey, Record, StoreError};
use broker_domain::{NamePrefix, SandboxId, Status};

impl SandboxStore {
    /// At most `limit` rows of the index of a state and shard, behind `after`; with a prefix, of those states that are sorted by
    /// name.
    pub(crate) async fn indexed(
        &self,
        (status, shard): (Status, u8),
        prefix: Option<&NamePrefix>,
        after: Option<IndexedAfter>,
        limit: usize,
    ) -> Result<Page<Vec<IndexRow>, IndexedAfter>, StoreError> {
        let state_shard = keys::state_shard(status, shard);
        let begins = prefix.map(NamePrefix::as_str).unwrap_or_default();
        // A prefix that changed since the page before: DynamoDB takes no start outside of what is asked for.
        let after = match after {
            Some(after) if !after.key.starts_with(begins) && after.key.as_str() > begins => {
                return Ok(Page { items: Vec::new(), next: None });
            }
            after => after.filter(|after| after.key.starts_with(begins)),
        };
        let start = after.map(|IndexedAfter { key, id }| {
            let mut start = keys::sandbox(&id).into_map();
            start.insert(STATE_SHARD.to_owned(), s(&state_shard));
            start.insert(STATE_KEY.to_owned(), s(key));
            start
        });
        let which = if begins.is_empty() { IndexKeys::All } else { IndexKeys::Beginning(begins.to_owned()) };
        let (start, limit) = (start.map(PageKey), i32::try_from(limit).unwrap_or(i32::MAX));
        let page = self.table.page_of_index("browse", (state_shard, which), start, Some(limit)).await?;
        let rows = page.items.iter().filter_map(|item| passable(read_row(item)));
        let next = page.next.as_ref().map(|next| read_place(&next.0)).transpose()?;
        Ok(Page { items: rows.collect(), next })
    }

    /// The first rows of each of `shards`, which are asked at once, in their order.
    pub(crate) async fn indexed_together(
        &self,
        status: Status,
        shards: Range<u8>,
        prefix: Option<&NamePrefix>,
        limit: usize,
    ) -> Result<Vec<Page<Vec<IndexRow>, IndexedAfter>>, StoreError> {
        let mut reads = JoinSet::new();
        for shard in shards {
            let (sandboxes, prefix) = (self.clone(), prefix.cloned());
            reads.spawn(async move {
                (shard, sandboxes.indexed((status, shard), prefix.as_ref(), None, limit).await)
            });
        }
        let mut pages = reads.join_all().await;
        pages.sort_by_key(|(shard, _)| *shard);
        pages.into_iter().map(|(_, page)| page).collect()
    }

    /// The records of these sandboxes (batched, consistent reads), in their order; absent ones are left out, and those that cannot be
    /// read, which are logged.
    pub async fn records(&self, ids: Vec<SandboxId>) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::with_capacity(ids.len());
        for (_, record) in self.look_up(ids).await {
            match record {
                Err(error) if !matches!(error, StoreError::Malformed { .. }) => return Err(error),
                record => records.extend(passable(record).flatten()),
            }
        }
        Ok(records)
    }

    /// Each of these sandboxes with its record, none, or why it was not read (batched, consistent reads), in their order.
    pub(crate) async fn look_up(&self, ids: Vec<SandboxId>) -> Vec<LookedUp> {
        let mut reads = JoinSet::new();
        for (at, id) in ids.into_iter().enumerate() {
            let table = Arc::clone(&self.table);
            reads.spawn(async move {
                let item = table.reads.get(keys::sandbox(&id)).await;
                (at, id, item)
            });
        }
        let mut found = reads.join_all().await;
        found.sort_by_key(|(at, ..)| *at);
        let read = |item: Option<Item>| item.as_ref().map(records::read_record).transpose();
        found.into_iter().map(|(_, id, item)| (id, item.and_then(read))).collect()
    }

    /// A page of sandboxes of the table, unordered; those that `keep` accepts, at most `limit`. One consistent read of at most
    /// [`Browsed::at_once`] items, whatever they are.
    pub async fn browse(
        &self,
        of: &Browsed<'_>,
        after: Option<PageKey>,
        limit: usize,
        keep: impl Fn(&Record) -> bool,
    ) -> Result<BrowsedPage, StoreError> {
        let mut filter = "begins_with(PK, :sandbox)".to_owned();
        let mut call = self
            .table
            .client
            .scan()
            .table_name(&self.table.name)
            .consistent_read(true)
            .limit(of.at_once)
            .set_exclusive_start_key(after.map(|key| key.0))
            .expression_attribute_values(":sandbox", s(SANDBOX_PREFIX))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let equal = [
            (a::TRACK, ":track", of.track.map(|track| track.as_str())),
            (a::TRACK_NAME, ":lab", of.track_name.map(|lab| lab.as_str())),
        ];
        for (name, value, wanted) in equal {
            if let Some(wanted) = wanted {
                filter.push_str(&format!(" and {name} = {value}"));
                call = call.expression_attribute_values(value, s(wanted));
            }
        }
        if let Some(listed) = of.unlisted {
            let names: Vec<_> = (0..listed.len()).map(|at| format!(":s{at}")).collect();
            filter.push_str(&format!(
                " and (attribute_not_exists({STATE_SHARD}) or not #status in ({}))",
                names.join(", ")
            ));
            call = call.expression_attribute_names("#status", a::STATUS);
            for (name, status) in names.into_iter().zip(listed) {
                call = call.expression_attribute_values(name, s(status.as_str()));
            }
        }
        let answer = call.filter_expression(filter).send().await;
        let answer = answer.map_err(|error| unread("Scan", &self.table.name, error))?;
        count_capacity("browse", answer.consumed_capacity());
        let looked_at = usize::try_from(answer.scanned_count()).unwrap_or(0);
        let is_last = answer.last_evaluated_key().is_none();
        let mut kept = Vec::new();
        for item in answer.items() {
            kept.extend(passable(records::read_record(item)).filter(&keep));
            if kept.len() == limit {
                // The next page begins behind this item, wherever the scan itself stopped.
                let page = Page { items: kept, next: Some(PageKey(key_of(item))) };
                return Ok(BrowsedPage { page, looked_at, is_last });
            }
        }
        let page = Page { items: kept, next: answer.last_evaluated_key.map(PageKey) };
        Ok(BrowsedPage { page, looked_at, is_last })
    }
}

fn read_row(item: &Item) -> Result<IndexRow, StoreError> {
    Ok(IndexRow { place: read_place(item)?, name: records::read_name(item) })
}

/// The place of a row: its keys of the index and of the table.
fn read_place(item: &Item) -> Result<IndexedAfter, StoreError> {
    let read = Reader(item);
    let own = |pk: &str| SandboxId::new(pk.strip_prefix(SANDBOX_PREFIX).unwrap_or_default());
    Ok(IndexedAfter {
        id: read.text(PK, own)?,
        key: read.text(STATE_KEY, |key| Ok::<_, std::convert::Infallible>(key.to_owned()))?,
    })
}

/// The keys of an item.
fn key_of(item: &Item) -> Item {
    let of_key = |(name, _): &(&String, &_)| [PK, SK].contains(&name.as_str());
    item.iter().filter(of_key).map(|(name, value)| (name.clone(), value.clone())).collect()
}
