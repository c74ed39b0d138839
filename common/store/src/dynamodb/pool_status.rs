//! The item `POOL`: whether the pool may be handed out. An operator may have paused it, and a table that was restored does
//! not know what was handed out since.
//!
//! Invariant: a table is bound to its name and to its `TableId` by the first worker that uses it. AWS gives each incarnation
//! of a name another id, so a copy is known as one from its first moment on, under another name or under the same one,
//! until it is reconciled; and a reconciliation that began keeps the pool closed until one has left nothing. What it
//! does not do: recognise a copy of a moment at which no worker of this version had used the table.

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::errors::failed;
use super::records::read_pause;
use super::{PoolStore, keys, n, s};
use crate::{Binding, PoolStatus, StoreError, Write};
use broker_domain::{Pause, Timestamp};

const POOL_EXISTS: &str = "attribute_exists(PK)";
/// It is not paused, or only by a take-over for as long as that runs: the pause is the operator's then.
const POOL_IS_NOT_PAUSED_BY_A_PERSON: &str =
    "attribute_exists(PK) and (attribute_not_exists(paused_at) or paused_by = :adoption)";
/// It is not paused.
const POOL_IS_NOT_PAUSED: &str = "attribute_exists(PK) and attribute_not_exists(paused_at)";
/// It is paused, or a reconciliation runs or was left unfinished.
const POOL_IS_CLOSED: &str = "attribute_exists(paused_at) or attribute_exists(reconciling_since)";
/// It is this table's, but no program that knows of ids has bound it.
const POOL_HAS_NO_ID: &str = "table_name = :mine and attribute_not_exists(table_id)";
/// No reconciliation runs or was left unfinished.
const NOTHING_IS_IN_DOUBT: &str = "attribute_not_exists(reconciling_since)";

/// Who pauses the pool, in the table.
pub(crate) const ADOPTION: &str = "adopt";

impl PoolStore {
    /// How the pool stands now: one consistent read, and the id of the table. A pool that was never used is open, and
    /// bound to this table.
    pub async fn status(&self) -> Result<PoolStatus, StoreError> {
        let mine = self.binding().await?;
        let Some(item) = self.table.get(keys::pool()).await? else {
            let mut item: Item = keys::pool().into_map();
            item.insert(a::TABLE_NAME.to_owned(), s(&mine.table));
            item.extend(mine.table_id.as_ref().map(|id| (a::TABLE_ID.to_owned(), s(id))));
            self.table.put_if_new("standing", item).await?;
            // Another program's may stand there now.
            return self.read_again(&mine).await;
        };
        match &mine.table_id {
            Some(id)
                if item.get(a::TABLE_NAME) == Some(&s(&mine.table)) && !item.contains_key(a::TABLE_ID) =>
            {
                self.table
                    .change(ItemChange {
                        operation: "bind_pool",
                        key: keys::pool().into_map(),
                        condition: POOL_HAS_NO_ID,
                        update: "SET table_id = :id",
                        values: vec![(":mine", s(&mine.table)), (":id", s(id))],
                    })
                    .await?;
                self.read_again(&mine).await
            }
            Some(_) | None => self.read_status(&item, &mine),
        }
    }

    /// The same with the pause, if it is paused, and nothing is written: `None` if the pool was never used.
    pub async fn look(&self) -> Result<Option<(PoolStatus, Option<Pause>)>, StoreError> {
        let mine = self.binding().await?;
        let Some(item) = self.table.get(keys::pool()).await? else { return Ok(None) };
        let read = Reader(&item);
        let paused = read.optional_time(a::PAUSED_AT)?.map(|since| read_pause(&read, since)).transpose()?;
        Ok(Some((self.read_status(&item, &mine)?, paused)))
    }

    /// Since when the pool is paused or being reconciled, if it is (one consistent read, nothing is described: whether it is
    /// a restored copy is not known here).
    pub async fn closed_since(&self) -> Result<Option<Timestamp>, StoreError> {
        let Some(item) = self.table.get(keys::pool()).await? else { return Ok(None) };
        let read = Reader(&item);
        Ok(read.optional_time(a::PAUSED_AT)?.or(read.optional_time(a::RECONCILING_SINCE)?))
    }

    async fn read_again(&self, mine: &Binding) -> Result<PoolStatus, StoreError> {
        let item = self.table.get(keys::pool()).await?;
        item.map_or(Err(StoreError::Conflict), |item| self.read_status(&item, mine))
    }

    /// This table, by its name and by the id that AWS gave this incarnation of it. Implementations that give none leave
    /// the name.
    async fn binding(&self) -> Result<Binding, StoreError> {
        let described = self.table.client.describe_table().table_name(&self.table.name).send().await;
        let described = described.map_err(|error| failed("DescribeTable", &self.table.name, error))?;
        let table_id = described.table.and_then(|table| table.table_id);
        Ok(Binding { table: self.table.name.clone(), table_id })
    }

    /// Keeps the workers from taking any message until the pool is resumed. One that is paused stays so for whom it is, who is
    /// told.
    pub async fn pause(&self, by: &str, now: Timestamp) -> Result<Write<Pause>, StoreError> {
        self.status().await?;
        loop {
            let paused = self
                .table
                .change(ItemChange {
                    operation: "pause_pool",
                    key: keys::pool().into_map(),
                    condition: POOL_IS_NOT_PAUSED_BY_A_PERSON,
                    update: "SET paused_at = :now, paused_by = :by",
                    values: vec![(":now", n(now.as_secs())), (":by", s(by)), (":adoption", s(ADOPTION))],
                })
                .await?;
            if paused.is_applied() {
                return Ok(Write::Applied);
            }
            if let Some((_, Some(pause))) = self.look().await? {
                let is_applied = pause.is_of(by, now);
                return Ok(if is_applied { Write::Applied } else { Write::Rejected(pause) });
            }
            // It was resumed meanwhile.
        }
    }

    /// Pauses a pool that is open; one that was paused meanwhile has moved on.
    pub(crate) async fn pause_if_open(&self, by: &str, now: Timestamp) -> Result<Write, StoreError> {
        self.status().await?;
        self.table
            .change(ItemChange {
                operation: "pause_pool",
                key: keys::pool().into_map(),
                condition: POOL_IS_NOT_PAUSED,
                update: "SET paused_at = :now, paused_by = :by",
                values: vec![(":now", n(now.as_secs())), (":by", s(by))],
            })
            .await
    }

    /// Ends the pause that `by` made; anybody else's has moved on, and so has a copy.
    pub(crate) async fn resume_if_paused_by(&self, by: &str) -> Result<Write, StoreError> {
        let mine = self.binding().await?;
        let condition = format!("{} and {NOTHING_IS_IN_DOUBT} and paused_by = :by", is_bound_to(&mine));
        let mut values = values_of(&mine);
        values.push((":by", s(by)));
        self.table
            .change(ItemChange {
                operation: "resume_pool",
                key: keys::pool().into_map(),
                condition: &condition,
                update: "REMOVE paused_at, paused_by",
                values,
            })
            .await
    }

    /// Lets the workers go on. A copy that is not reconciled has moved on: it stays closed.
    pub async fn resume(&self) -> Result<Write, StoreError> {
        self.status().await?;
        let mine = self.binding().await?;
        let condition = format!("{} and {NOTHING_IS_IN_DOUBT}", is_bound_to(&mine));
        self.table
            .change(ItemChange {
                operation: "resume_pool",
                key: keys::pool().into_map(),
                condition: &condition,
                update: "REMOVE paused_at, paused_by",
                values: values_of(&mine),
            })
            .await
    }

    /// Marks that the pool is being reconciled: from now on it is closed until [`Self::bind_copy`]. One that is open has moved on.
    pub async fn begin_reconciling(&self, now: Timestamp) -> Result<Write, StoreError> {
        let mine = self.binding().await?;
        let condition = format!("{POOL_EXISTS} and ({POOL_IS_CLOSED} or not ({}))", is_bound_to(&mine));
        let mut values = values_of(&mine);
        values.push((":now", n(now.as_secs())));
        self.table
            .change(ItemChange {
                operation: "begin_reconciling",
                key: keys::pool().into_map(),
                condition: &condition,
                update: "SET reconciling_since = if_not_exists(reconciling_since, :now)",
                values,
            })
            .await
    }

    /// Binds a pool that is reconciled, and was bound to `of`, to this table. A pause stays.
    pub async fn bind_copy(&self, of: &Binding) -> Result<Write, StoreError> {
        let mine = self.binding().await?;
        let mut values = values_of(of);
        values.push((":name", s(&mine.table)));
        let update = match &mine.table_id {
            Some(id) => {
                values.push((":new_id", s(id)));
                "SET table_name = :name, table_id = :new_id REMOVE reconciling_since"
            }
            None => "SET table_name = :name REMOVE table_id, reconciling_since",
        };
        // Under another name it may belong to other queues: the next process says to which.
        let update =
            if of.table == mine.table { update.to_owned() } else { format!("{update}, queue_prefix") };
        self.table
            .change(ItemChange {
                operation: "bind_copy",
                key: keys::pool().into_map(),
                condition: is_bound_to(of),
                update: &update,
                values,
            })
            .await
    }

    /// Whether every sandbox of the table has its account's record, in the spelling of this version (one consistent
    /// read).
    pub(crate) async fn accounts_recorded(&self) -> Result<bool, StoreError> {
        let pool = self.table.get(keys::pool()).await?;
        Ok(pool.is_some_and(|pool| {
            pool.contains_key(a::ACCOUNTS_RECORDED_AT)
                && pool.get(a::ACCOUNT_SPELLING) == Some(&n(ACCOUNT_SPELLING))
        }))
    }

    /// Notes that every sandbox has its account's record, in the spelling of this version.
    pub(crate) async fn note_accounts_recorded(&self, now: Timestamp) -> Result<Write, StoreError> {
        self.status().await?;
        self.table
            .change(ItemChange {
                operation: "accounts_are_recorded",
                key: keys::pool().into_map(),
                condition: POOL_EXISTS,
                update: "SET accounts_recorded_at = :now, account_spelling = :spelling",
                values: vec![(":now", n(now.as_secs())), (":spelling", n(ACCOUNT_SPELLING))],
            })
            .await
    }
}

/// The spelling of accounts in the keys of their records: without regard to case. Tables without the attribute have the
/// one before, in which only UUIDs were so.
const ACCOUNT_SPELLING: u64 = 2;

/// The condition that the pool is (still) bound so.
const fn is_bound_to(binding: &Binding) -> &'static str {
    match binding.table_id {
        Some(_) => "table_name = :of and table_id = :id",
        None => "table_name = :of and attribute_not_exists(table_id)",
    }
}

fn values_of(binding: &Binding) -> Vec<(&'static str, aws_sdk_dynamodb::types::AttributeValue)> {
    let id = binding.table_id.as_ref().map(|id| (":id", s(id)));
    [(":of", s(&binding.table))].into_iter().chain(id).collect()
}

impl PoolStore {
    fn read_status(&self, item: &Item, mine: &Binding) -> Result<PoolStatus, StoreError> {
        let read = Reader(item);
        let text = |text: &str| Ok::<_, ()>(text.to_owned());
        let of =
            Binding { table: read.text(a::TABLE_NAME, text)?, table_id: read.optional(a::TABLE_ID, text)? };
        let is_ours = of.table == mine.table && (of.table_id == mine.table_id || mine.table_id.is_none());
        if !is_ours || read.optional_time(a::RECONCILING_SINCE)?.is_some() {
            return Ok(PoolStatus::RestoredCopy { of });
        }
        let shards = read.optional_number(a::STATE_SHARDS)?.unwrap_or_else(|| self.table.shards.into());
        if shards != u64::from(self.table.shards) || read.optional_number(a::RESHARDING_TO)?.is_some() {
            return Ok(PoolStatus::OtherShards { shards });
        }
        Ok(read.optional_time(a::PAUSED_AT)?.map_or(PoolStatus::Open, |since| PoolStatus::Paused { since }))
    }
}
