//! Pool status: open, paused by an operator, or closed because the table was restored from another one and lacks what was
//! handed out since.
//!
//! Invariant: a table is bound to its name by the first worker that uses it, so a copy under another name is recognised at
//! once, until it is reconciled. A copy under the same name, or of a table that no worker of this version used, is not
//! recognised.

use super::attributes::{self as a, Item, Reader};
use super::change::Change;
use super::{Store, keys, n, s};
use crate::{Changed, PoolStatus, StoreError};
use broker_domain::Timestamp;

const POOL_EXISTS: &str = "attribute_exists(PK)";
/// It is bound to this table's own name.
const POOL_IS_OURS: &str = "table_name = :mine";
/// It is bound to the table that it was copied from.
const POOL_IS_A_COPY: &str = "table_name = :of";

impl Store {
    /// The status of the pool: one consistent read. A pool that was never used is open, and is bound to this table.
    pub async fn pool_status(&self) -> Result<PoolStatus, StoreError> {
        if let Some(item) = self.get(keys::pool()).await? {
            return self.read_status(&item);
        }
        let mut item: Item = keys::pool().into_map();
        item.insert(a::TABLE_NAME.to_owned(), s(&self.table));
        self.put_if_new("standing", item).await?;
        // Another process may have written it first.
        let item = self.get(keys::pool()).await?;
        item.map_or(Err(StoreError::Conflict), |item| self.read_status(&item))
    }

    fn read_status(&self, item: &Item) -> Result<PoolStatus, StoreError> {
        let read = Reader(item);
        let bound_to = read.text(a::TABLE_NAME, |text| Ok::<_, ()>(text.to_owned()))?;
        if bound_to != self.table {
            return Ok(PoolStatus::RestoredCopy { of: bound_to });
        }
        Ok(read.optional_time(a::PAUSED_AT)?.map_or(PoolStatus::Open, |since| PoolStatus::Paused { since }))
    }

    /// Stops the workers from taking messages until the pool is resumed.
    pub async fn pause_pool(&self, by: &str, now: Timestamp) -> Result<Changed, StoreError> {
        self.pool_status().await?;
        self.change(Change {
            operation: "pause_pool",
            key: keys::pool().into_map(),
            condition: POOL_EXISTS,
            update: "SET paused_at = if_not_exists(paused_at, :now), paused_by = :by",
            values: vec![(":now", n(now.as_secs())), (":by", s(by))],
        })
        .await
    }

    /// Resumes the pool. A copy that is not reconciled stays closed.
    pub async fn resume_pool(&self) -> Result<Changed, StoreError> {
        self.pool_status().await?;
        self.change(Change {
            operation: "resume_pool",
            key: keys::pool().into_map(),
            condition: POOL_IS_OURS,
            update: "REMOVE paused_at, paused_by",
            values: vec![(":mine", s(&self.table))],
        })
        .await
    }

    /// Binds a reconciled copy of the table `of` to this table's name.
    pub async fn bind_copy(&self, of: &str) -> Result<Changed, StoreError> {
        self.change(Change {
            operation: "bind_copy",
            key: keys::pool().into_map(),
            condition: POOL_IS_A_COPY,
            update: "SET table_name = :mine",
            values: vec![(":of", s(of)), (":mine", s(&self.table))],
        })
        .await
    }

    /// Whether every sandbox of the table has its account's record (one consistent read).
    pub async fn accounts_recorded(&self) -> Result<bool, StoreError> {
        let pool = self.get(keys::pool()).await?;
        Ok(pool.is_some_and(|pool| pool.contains_key(a::ACCOUNTS_RECORDED_AT)))
    }

    /// Notes that every sandbox has its account's record.
    pub(crate) async fn accounts_are_recorded(&self, now: Timestamp) -> Result<Changed, StoreError> {
        self.pool_status().await?;
        self.change(Change {
            operation: "accounts_are_recorded",
            key: keys::pool().into_map(),
            condition: POOL_EXISTS,
            update: "SET accounts_recorded_at = :now",
            values: vec![(":now", n(now.as_secs()))],
        })
        .await
    }
}
