//! The provider's list: the rows of all pages, and whether the list contradicts itself.
//!
//! Invariants: a sandbox whose row has a usable `csp_id` or `id` is listed, whatever else is wrong with the row; of two rows
//! that contradict each other neither is used. A list is in doubt if a row has no usable id, if its `count` is not its
//! number of rows, or if a row came on two pages, since another one may then have come on none. The caller decides what a
//! doubt means.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use broker_domain::{AccountKey, ExternalId, SandboxId};

use super::account::Account;
use super::row::{self, Reading};

/// The most rows of one list. The list holds about half a KiB of each.
const MOST_ROWS: u64 = 500_000;
/// The most unreadable rows that are named.
const NAMED: usize = 10;
/// The longest name of one, in characters.
const LONGEST_NAME: usize = 200;

/// A whole list.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Active sandbox accounts, by our id.
    pub accounts: HashMap<SandboxId, Account>,
    /// Ids that are listed but have malformed fields: neither new nor missing.
    pub unreadable: HashSet<SandboxId>,
    /// Rows without a usable id.
    pub unidentified: u64,
    /// Rows with a malformed field, these included.
    pub unreadable_rows: u64,
    /// Some of those rows: which, and what is wrong with them.
    pub problems: Vec<String>,
    /// The accounts that are there, readable or not.
    there: HashSet<AccountKey>,
    /// Ids that came with two accounts of one age.
    tied: HashSet<SandboxId>,
    pages: Vec<Turned>,
    /// Rows of all pages.
    rows: u64,
    /// Rows that are known again, with the page that they came on.
    seen: HashMap<u64, usize>,
    /// Rows that came on another page already.
    again: u64,
}

/// A page that was read.
#[derive(Clone, Debug, Default)]
struct Turned {
    rows: u64,
    /// How many rows there are, as the page says.
    count: Option<String>,
}

impl Listed {
    /// The accounts that are there, readable or not.
    pub const fn there(&self) -> &HashSet<AccountKey> {
        &self.there
    }

    /// Whether the list has this sandbox, by its id or by its account.
    pub fn names(&self, id: &SandboxId, external_id: &ExternalId) -> bool {
        self.accounts.contains_key(id)
            || self.unreadable.contains(id)
            || self.there.contains(&AccountKey::of(external_id))
    }

    /// The number of its sandboxes and of rows without a usable id.
    pub fn found(&self) -> u64 {
        (self.accounts.len() + self.unreadable.len()) as u64 + self.unidentified
    }

    /// Whether it has no row that could be a sandbox.
    pub fn is_empty(&self) -> bool {
        self.found() == 0 && self.there.is_empty()
    }

    /// Why a sandbox that it does not list may exist all the same.
    pub fn doubt(&self) -> Option<String> {
        if self.unidentified > 0 {
            return Some(format!("{} rows have no usable id", self.unidentified));
        }
        if self.again > 0 {
            return Some(format!("{} rows came on two pages: it changed while it was read", self.again));
        }
        let rows = self.rows.to_string();
        let counts = || self.pages.iter().filter_map(|page| Some((page.count.as_ref()?, page.rows)));
        // Some providers count the page, some the list.
        if counts().all(|(count, of_page)| *count == of_page.to_string()) {
            return None;
        }
        let (count, _) = counts().find(|(count, _)| **count != rows)?;
        Some(format!("it says that it has {count} rows and has {rows}"))
    }

    /// A page begins.
    pub(super) fn begin_page(&mut self) {
        self.pages.push(Turned::default());
    }

    /// The page ends; it says that there are so many rows.
    pub(super) fn end_page(&mut self, count: Option<String>) {
        if let Some(page) = self.pages.last_mut() {
            page.count = count;
        }
    }

    /// The list ends: of what contradicts itself nothing is used.
    pub(super) fn end(&mut self) {
        for id in std::mem::take(&mut self.tied) {
            self.complain(Some(id.as_str()), "it has two accounts, and neither is the newer one");
            self.unreadable.insert(id);
        }
        self.accounts.retain(|id, _| !self.unreadable.contains(id));
        self.seen = HashMap::new();
    }

    /// Adds a row to the page that is being read. `Err` if there are too many.
    pub(super) fn add(&mut self, raw: &str) -> Result<(), String> {
        let row = row::read(raw);
        let ids = row.ids.as_deref();
        self.count_row(ids)?;
        if let Some(problem) = row.bad_time {
            self.complain(ids, &problem);
        }
        match row.reading {
            Reading::NotOurs => {}
            Reading::Account(account) => self.add_account(account),
            Reading::Unreadable { id, external_id, problem } => {
                self.complain(ids, &problem);
                self.there.extend(external_id.as_ref().map(AccountKey::of));
                self.unreadable.extend(id);
            }
            Reading::Unidentified { problem } => {
                self.unidentified += 1;
                self.complain(ids, &problem);
            }
        }
        Ok(())
    }

    fn count_row(&mut self, ids: Option<&str>) -> Result<(), String> {
        let page = self.pages.len();
        if let Some(turned) = self.pages.last_mut() {
            turned.rows += 1;
        }
        if let Some(ids) = ids {
            let mut hasher = DefaultHasher::new();
            ids.hash(&mut hasher);
            let before = *self.seen.entry(hasher.finish()).or_insert(page);
            self.again += u64::from(before != page);
        }
        self.rows += 1;
        if self.rows > MOST_ROWS { Err(format!("the list has more than {MOST_ROWS} rows")) } else { Ok(()) }
    }

    /// Of two accounts with one id the one that was made last counts.
    fn add_account(&mut self, account: Account) {
        self.there.insert(AccountKey::of(&account.external_id));
        let mut known = match self.accounts.entry(account.id.clone()) {
            Entry::Vacant(free) => {
                free.insert(account);
                return;
            }
            Entry::Occupied(known) => known,
        };
        if *known.get() == account {
            return;
        }
        match (known.get().created_at, account.created_at) {
            (Some(before), Some(now)) if before > now => {}
            (Some(before), Some(now)) if before < now => {
                self.tied.remove(&account.id);
                known.insert(account);
            }
            (Some(_), Some(_)) => {
                self.tied.insert(account.id);
            }
            (None, _) | (_, None) => {
                self.complain(
                    Some(account.id.as_str()),
                    "it has two accounts, and it is not known which is newer",
                );
                self.unreadable.insert(account.id);
            }
        }
    }

    fn complain(&mut self, ids: Option<&str>, problem: &str) {
        self.unreadable_rows += 1;
        if self.problems.len() < NAMED {
            let which: String = ids.unwrap_or("a row").chars().take(LONGEST_NAME).collect();
            self.problems.push(format!("{which}: {problem}"));
        }
    }
}
