//! Place in the list of the pool, where a page ended.

use super::{IndexedAfter, LISTED};
use crate::PageKey;
use broker_domain::{SandboxId, Status};

/// Where a page ended.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolPlace {
    /// In the index, in a shard of a state, behind a row if any was read.
    Index {
        /// The state.
        status: Status,
        /// The shard.
        shard: u8,
        /// The row.
        after: Option<IndexedAfter>,
    },
    /// In the table, behind a key if any was read.
    Table {
        /// The key.
        after: Option<PageKey>,
        /// What was shown before the table was read.
        shown: Option<SandboxId>,
        /// Whether only what the index does not list is shown.
        unlisted: bool,
    },
}

impl PoolPlace {
    /// As text, for cursors.
    pub fn to_text(&self) -> String {
        match self {
            Self::Index { status, shard, after } => {
                let (key, id) = after.as_ref().map_or(("", ""), |row| (row.key.as_str(), row.id.as_str()));
                format!("index\n{status}\n{shard}\n{key}\n{id}")
            }
            Self::Table { after, shown, unlisted } => {
                let what = if *unlisted { "rest" } else { "table" };
                let after = after.as_ref().map(PageKey::encode).unwrap_or_default();
                format!("{what}\n{after}\n{}", shown.as_ref().map(SandboxId::as_str).unwrap_or_default())
            }
        }
    }

    /// From the text of [`PoolPlace::to_text`]; `None` for any other.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split('\n').collect::<Vec<_>>().as_slice() {
            ["index", status, shard, key, id] => {
                let status = Status::parse(status).filter(|status| LISTED.contains(status))?;
                let after = match (*key, *id) {
                    ("", "") => None,
                    (key, id) => Some(IndexedAfter { key: key.to_owned(), id: SandboxId::new(id).ok()? }),
                };
                let fits = after.as_ref().is_none_or(|after| (1..=1_024).contains(&after.key.len()));
                fits.then_some(Self::Index { status, shard: shard.parse().ok()?, after })
            }
            [what @ ("table" | "rest"), after, shown] => Some(Self::Table {
                unlisted: *what == "rest",
                after: if after.is_empty() { None } else { Some(PageKey::parse(after)?) },
                shown: if shown.is_empty() { None } else { Some(SandboxId::new(*shown).ok()?) },
            }),
            _ => None,
        }
    }
}
