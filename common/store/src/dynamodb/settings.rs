//! The binding of a table to the settings that its data depends on: the number of state shards and the queue prefix.
//!
//! The first process of a table writes them into `POOL`; every later one whose settings differ refuses to start. With
//! another number of shards most of the pool would not be found; with another prefix requests and their records would part.
//! A table of an older version is bound to the number of shards with which its sandboxes agree.

use broker_runtime::config::ConfigError;

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::keys::{self, SANDBOX_PREFIX, STATE_SHARD};
use super::{PoolStore, n, s};
use crate::{Pages, StoreError, Write};
use broker_domain::SandboxId;

const SHARDS_SETTING: &str = "BROKER_STATE_SHARDS";
const PREFIX_SETTING: &str = "BROKER_PREFIX";
/// It is bound to nothing yet.
const POOL_IS_UNBOUND: &str = "attribute_exists(PK) and attribute_not_exists(state_shards)";
/// It is bound as far as shards go; a copy that was reconciled has no prefix.
const POOL_HAS_NO_PREFIX: &str = "attribute_exists(state_shards) and attribute_not_exists(queue_prefix)";
/// So many pages of a table of an older version are read to see which shards its sandboxes have.
const SAMPLED_PAGES: usize = 4;

/// Why a process may not use a table.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The table did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its data was written with another setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

impl PoolStore {
    /// Compares the settings with those of the table's data, and changes nothing.
    pub async fn check_settings(&self, prefix: &str) -> Result<(), SettingsError> {
        match self.table.get(keys::pool()).await? {
            Some(pool) => self.compare(&pool, prefix).map(drop),
            None => Ok(()),
        }
    }

    /// Binds the table to the settings, if it is bound to none yet; else they must be the same.
    pub async fn bind_settings(&self, prefix: &str) -> Result<(), SettingsError> {
        self.status().await?;
        let pool = self.table.get(keys::pool()).await?.unwrap_or_default();
        let (condition, update, values) = match self.compare(&pool, prefix)? {
            Bound::Whole => return Ok(()),
            Bound::ShardsOnly => {
                (POOL_HAS_NO_PREFIX, "SET queue_prefix = :prefix", vec![(":prefix", s(prefix))])
            }
            Bound::Not => {
                self.check_sample().await?;
                let values = vec![(":prefix", s(prefix)), (":shards", n(self.table.shards))];
                (POOL_IS_UNBOUND, "SET state_shards = :shards, queue_prefix = :prefix", values)
            }
        };
        let change = ItemChange {
            operation: "bind_settings",
            key: keys::pool().into_map(),
            condition,
            update,
            values,
        };
        match self.table.change(change).await? {
            Write::Applied => Ok(()),
            // Another process was faster: perhaps with other settings.
            Write::Rejected(()) => self.check_settings(prefix).await,
        }
    }

    fn compare(&self, pool: &Item, prefix: &str) -> Result<Bound, SettingsError> {
        let read = Reader(pool);
        let Some(shards) = read.optional_number(a::STATE_SHARDS)? else { return Ok(Bound::Not) };
        if let Some(to) = read.optional_number(a::RESHARDING_TO)? {
            let problem = format!(
                "the sandboxes in table {} are being moved from {shards} to {to} shards: finish `broker pool reshard --to {to} \
                 --apply`, then set it to {to}",
                self.table.name
            );
            return Err(ConfigError::new(SHARDS_SETTING, problem).into());
        }
        if shards != u64::from(self.table.shards) {
            let problem = format!(
                "is {}, but the sandboxes in table {} were written with {shards}: set it to {shards}",
                self.table.shards, self.table.name
            );
            return Err(ConfigError::new(SHARDS_SETTING, problem).into());
        }
        // What a copy of another table was bound to is decided when it is reconciled.
        let is_copy =
            read.optional(a::TABLE_NAME, |name| Ok::<_, ()>(name != self.table.name))?.unwrap_or(false);
        match read.optional(a::QUEUE_PREFIX, Ok::<_, ()>)? {
            Some(bound) if bound != prefix && !is_copy => {
                let problem = format!(
                    "is {prefix}, but table {} belongs to the queues of {bound}: set it to {bound}, or BROKER_TABLE to \
                     another table",
                    self.table.name
                );
                Err(ConfigError::new(PREFIX_SETTING, problem).into())
            }
            Some(_) => Ok(Bound::Whole),
            None => Ok(Bound::ShardsOnly),
        }
    }

    /// That the sandboxes of a table that is bound to nothing yet, as far as some pages tell, agree with the setting.
    async fn check_sample(&self) -> Result<(), SettingsError> {
        let mut pages = Pages::new(|after| self.table.scan_items(0, 1, after));
        for _ in 0..SAMPLED_PAGES {
            let Some(items) = pages.next().await? else { break };
            if let Some((id, shard)) = items.iter().find_map(|item| self.elsewhere(item)) {
                let problem = format!(
                    "is {}, but sandbox {id} of table {} was written into {shard}: set it to what it was before",
                    self.table.shards, self.table.name
                );
                return Err(ConfigError::new(SHARDS_SETTING, problem).into());
            }
        }
        Ok(())
    }

    /// A sandbox that another number of shards put where it is, and its index key.
    fn elsewhere(&self, item: &Item) -> Option<(SandboxId, String)> {
        let id = item.get(keys::PK)?.as_s().ok()?.strip_prefix(SANDBOX_PREFIX)?;
        let id = SandboxId::new(id).ok()?;
        let shard = item.get(STATE_SHARD)?.as_s().ok()?;
        let own = format!("#{:02}", self.table.shard_of(&id));
        (!shard.ends_with(&own)).then(|| (id, shard.clone()))
    }
}

/// How far a table is bound.
enum Bound {
    Not,
    ShardsOnly,
    Whole,
}
