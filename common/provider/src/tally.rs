//! The tally of the provider's list: how many rows it has, which of them cannot be read, and whether it contradicts itself.
//!
//! A list is in doubt if a row has no usable id, if its `count` is not its number of rows, or if a row came on two pages,
//! since another one may then have come on none. The caller decides what a doubt means.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use broker_domain::{AttributeNames, ExternalId, ProviderAttributes, SandboxId};
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::attributes;
use super::row::{self, Reading};

/// The most rows of one list. The caller that takes them holds them.
const MOST_ROWS: u64 = 20_000_000;
/// The most unreadable rows that are named.
const NAMED: usize = 10;
/// The longest name of one, in characters.
const LONGEST_NAME: usize = 200;

/// A taker of the rows of a list, as they come.
pub trait Rows: Send + 'static {
    /// Takes the next row.
    ///
    /// # Errors
    ///
    /// Why it cannot be taken: the list is given up.
    fn take(&mut self, row: ListedRow) -> Result<(), String>;
}

/// What is kept of a row.
#[derive(Clone, Debug)]
pub struct ListedRow {
    /// What it is known again by, if it has an id.
    pub mark: Option<Mark>,
    /// The sandbox of which it tells.
    pub sighting: Option<Sighting>,
}

/// The hash of the ids of a row, and the number of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The hash.
    pub ids: u64,
    /// The page, from 1.
    pub page: u32,
}

/// A sandbox that the provider has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sighting {
    /// An active account.
    Account(Account),
    /// One whose row cannot be used.
    Unreadable {
        /// Its id, if that can be read.
        id: Option<SandboxId>,
        /// Its account, if that can be read.
        external_id: Option<ExternalId>,
    },
}

/// Counts of a list.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Rows without a usable id.
    pub unidentified: u64,
    /// Rows with a malformed field, these included.
    pub unreadable_rows: u64,
    /// Some of those rows: which, and what is wrong with them.
    pub problems: Vec<String>,
    /// Rows that came on another page already.
    pub again: u64,
    /// Rows of all pages, and of the last one.
    rows: u64,
    of_page: u64,
    page: u32,
    /// A page said another number of rows than it has.
    is_miscounted: bool,
    /// The first two different numbers of rows that pages said.
    counts: Vec<String>,
    /// The members of a row that are kept.
    kept: AttributeNames,
}

impl Tally {
    /// Nothing counted yet; these members of the rows are kept.
    pub(super) fn keeping(kept: AttributeNames) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Why a sandbox that the list does not have may exist all the same.
    pub fn doubt(&self) -> Option<String> {
        if self.unidentified > 0 {
            return Some(format!("{} rows have no usable id", self.unidentified));
        }
        self.incomplete()
    }

    /// Why the list may not have every row.
    pub fn incomplete(&self) -> Option<String> {
        if self.again > 0 {
            return Some(format!("{} rows came on two pages: it changed while it was read", self.again));
        }
        // Some providers count the page, some the list.
        if !self.is_miscounted {
            return None;
        }
        let rows = self.rows.to_string();
        let count = self.counts.iter().find(|count| **count != rows)?;
        Some(format!("it says that it has {count} rows and has {rows}"))
    }

    /// Adds what is wrong with rows of `part`, a part of the same list.
    pub fn complain_of(&mut self, part: Self) {
        self.unreadable_rows += part.unreadable_rows;
        self.problems.extend(part.problems);
        self.problems.truncate(NAMED);
    }

    /// A page begins.
    pub(super) const fn begin_page(&mut self) {
        self.page += 1;
        self.of_page = 0;
    }

    /// The page ends; it says that there are so many rows.
    pub(super) fn end_page(&mut self, count: Option<String>) {
        let Some(count) = count else { return };
        self.is_miscounted |= count != self.of_page.to_string();
        if self.counts.len() < 2 && !self.counts.contains(&count) {
            self.counts.push(count);
        }
    }

    /// Counts a row of the page that is being read; what is kept of it. `Err` if there are too many.
    pub(super) fn row(&mut self, raw: &str) -> Result<ListedRow, String> {
        let row = row::read(raw);
        let ids = row.ids.as_deref();
        self.of_page += 1;
        self.rows += 1;
        if self.rows > MOST_ROWS {
            return Err(format!("the list has more than {MOST_ROWS} rows"));
        }
        if let Some(problem) = row.bad_time {
            self.complain(ids, &problem);
        }
        let sighting = match row.reading {
            Reading::NotOurs => None,
            Reading::Account(account) => {
                let attributes = self.attributes(raw, ids);
                Some(Sighting::Account(Account { attributes, ..account }))
            }
            Reading::Unreadable { id, external_id, problem } => {
                self.complain(ids, &problem);
                Some(Sighting::Unreadable { id, external_id })
            }
            Reading::Unidentified { problem } => {
                self.unidentified += 1;
                self.complain(ids, &problem);
                None
            }
        };
        Ok(ListedRow { mark: ids.map(|ids| self.mark(ids)), sighting })
    }

    /// The attributes of a row, if they are kept and can be read.
    fn attributes(&mut self, raw: &str, ids: Option<&str>) -> Option<ProviderAttributes> {
        if self.kept.is_empty() {
            return None;
        }
        attributes::read(raw, &self.kept).map_err(|problem| self.complain(ids, &problem)).ok()
    }

    fn mark(&self, ids: &str) -> Mark {
        let mut hasher = DefaultHasher::new();
        ids.hash(&mut hasher);
        Mark { ids: hasher.finish(), page: self.page }
    }

    pub(super) fn complain(&mut self, ids: Option<&str>, problem: &str) {
        self.unreadable_rows += 1;
        if self.problems.len() < NAMED {
            let which: String = ids.unwrap_or("a row").chars().take(LONGEST_NAME).collect();
            self.problems.push(format!("{which}: {problem}"));
        }
    }
}
