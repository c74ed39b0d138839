//! Storage of a change of the number of state shards: the mark in `POOL`, and index keys that move one by one.

use super::attributes::{self as a, Reader};
use super::change::ItemChange;
use super::keys::{self, SANDBOX_PREFIX, STATE_SHARD};
use super::{PoolStore, ScanStore, n, s};
use crate::page::PK;
use crate::{Page, PageKey, StoreError, Write};
use broker_domain::SandboxId;

/// The table is bound as it was read, and no move to another number is under way.
const BOUND_AS_SEEN: &str = "state_shards = :bound and attribute_not_exists(resharding_to)";
/// It is being moved to the number that was read.
const MOVING_AS_SEEN: &str = "state_shards = :bound and resharding_to = :seen";
/// It is being moved to this number.
const MOVING_TO: &str = "resharding_to = :to";
/// It stands where it was read.
const STANDS_AS_SEEN: &str = "state_shard = :from";

/// The number of state shards of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shards {
    /// With which its processes write.
    pub(crate) bound: u8,
    /// To which it is being moved.
    pub(crate) moving_to: Option<u8>,
}

/// A sandbox that stands in another index partition than it will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    /// Which.
    pub(crate) id: SandboxId,
    /// Where it stands.
    pub(crate) from: String,
    /// Where it belongs.
    pub(crate) to: String,
}

/// The sandboxes of one page of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardedPage {
    /// How many the index lists.
    pub(crate) listed: u64,
    /// Those that must move.
    pub(crate) misplaced: Vec<Misplaced>,
}

impl PoolStore {
    /// The table's shards; `None` if it is bound to none yet.
    pub(crate) async fn shards(&self) -> Result<Option<Shards>, StoreError> {
        let pool = self.table.get(keys::pool()).await?.unwrap_or_default();
        let read = Reader(&pool);
        let narrow = |number: Option<u64>| number.map(|number| u8::try_from(number).unwrap_or(u8::MAX));
        let moving_to = narrow(read.optional_number(a::RESHARDING_TO)?);
        Ok(narrow(read.optional_number(a::STATE_SHARDS)?).map(|bound| Shards { bound, moving_to }))
    }

    /// Marks that the table is moved to `to` shards: from now on no process starts with it.
    pub(crate) async fn begin_reshard(&self, seen: Shards, to: u8) -> Result<Write, StoreError> {
        let mut values = vec![(":bound", n(seen.bound)), (":to", n(to))];
        let condition = match seen.moving_to {
            Some(moving_to) => {
                values.push((":seen", n(moving_to)));
                MOVING_AS_SEEN
            }
            None => BOUND_AS_SEEN,
        };
        self.table
            .change(ItemChange {
                operation: "begin_reshard",
                key: keys::pool().into_map(),
                condition,
                update: "SET resharding_to = :to",
                values,
            })
            .await
    }

    /// Binds the table to the number of shards to which everything was moved.
    pub(crate) async fn finish_reshard(&self, to: u8) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "finish_reshard",
                key: keys::pool().into_map(),
                condition: MOVING_TO,
                update: "SET state_shards = :to REMOVE resharding_to",
                values: vec![(":to", n(to))],
            })
            .await
    }
}

impl ScanStore {
    /// One page of the sandboxes that stand elsewhere than with `shards` shards (a consistent read).
    pub(crate) async fn outside_shards(
        &self,
        shards: u8,
        segment: i32,
        segments: i32,
        after: Option<PageKey>,
    ) -> Result<Page<ShardedPage>, StoreError> {
        let Page { items, next } = self.table.scan_items(segment, segments, after).await?;
        let mut page = ShardedPage::default();
        for item in &items {
            let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
            // A tombstone and a row of another tool have no place in the index.
            let (Some(pk), Some(from)) = (text(PK), text(STATE_SHARD)) else { continue };
            let Some(id) = pk.strip_prefix(SANDBOX_PREFIX).and_then(|id| SandboxId::new(id).ok()) else {
                continue;
            };
            let Some((status, _)) = from.rsplit_once('#') else { continue };
            page.listed += 1;
            let to = format!("{status}#{:02}", keys::shard_of(&id, shards));
            if *from != to {
                page.misplaced.push(Misplaced { id, from: from.clone(), to });
            }
        }
        Ok(Page { items: page, next })
    }

    /// Moves a sandbox to its place in the index, if it still stands where it was read. Its version stays: nothing else of it
    /// changes.
    pub(crate) async fn replace(&self, sandbox: &Misplaced) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "reshard",
                key: keys::sandbox(&sandbox.id).into_map(),
                condition: STANDS_AS_SEEN,
                update: "SET state_shard = :to",
                values: vec![(":from", s(&sandbox.from)), (":to", s(&sandbox.to))],
            })
            .await
    }
}
