//! The provider's list in memory: its rows, told apart by sandbox.
//!
//! Invariants: a sandbox whose row has a usable `csp_id` or `id` is listed, whatever else is wrong with the row; of two rows
//! that contradict each other neither is used. A part of a list holds what all rows of the same ids say.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use broker_domain::{AccountKey, ExternalId, SandboxId};

use super::account::Account;
use super::tally::{ListedRow, Rows, Sighting, Tally};

/// A list, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Active sandbox accounts, by our id.
    pub accounts: HashMap<SandboxId, Account>,
    /// Ids that are listed but have malformed fields: neither new nor missing.
    pub unreadable: HashSet<SandboxId>,
    /// Counts of its rows.
    pub tally: Tally,
    /// The accounts that are there, readable or not.
    there: HashSet<AccountKey>,
    /// Ids that came with two accounts of one age.
    tied: HashSet<SandboxId>,
    /// Rows that are known again, with the page that they came on.
    seen: HashMap<u64, u32>,
}

impl Rows for Listed {
    fn take(&mut self, row: ListedRow) -> Result<(), String> {
        if let Some(mark) = row.mark {
            let before = *self.seen.entry(mark.ids).or_insert(mark.page);
            self.tally.again += u64::from(before != mark.page);
        }
        if let Some(sighting) = row.sighting {
            self.add(sighting);
        }
        Ok(())
    }
}

impl Listed {
    /// The accounts that are there, readable or not.
    pub const fn there(&self) -> &HashSet<AccountKey> {
        &self.there
    }

    /// Whether the list has this sandbox, by its id or by its account.
    pub fn names(&self, id: &SandboxId, external_id: &ExternalId) -> bool {
        self.has(id) || self.there.contains(&AccountKey::of(external_id))
    }

    /// Whether the list has this id.
    pub fn has(&self, id: &SandboxId) -> bool {
        self.accounts.contains_key(id) || self.unreadable.contains(id)
    }

    /// The number of its sandboxes and of rows without a usable id.
    pub fn found(&self) -> u64 {
        (self.accounts.len() + self.unreadable.len()) as u64 + self.tally.unidentified
    }

    /// Whether it has no row that could be a sandbox.
    pub fn is_empty(&self) -> bool {
        self.found() == 0 && self.there.is_empty()
    }

    /// Why a sandbox that it does not list may exist all the same.
    pub fn doubt(&self) -> Option<String> {
        self.tally.doubt()
    }

    /// Adds a sandbox.
    pub fn add(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Account(account) => self.add_account(account),
            Sighting::Unreadable { id, external_id } => {
                self.there.extend(external_id.as_ref().map(AccountKey::of));
                self.unreadable.extend(id);
            }
        }
    }

    /// The whole list, whose rows were counted apart.
    pub(super) fn counted(mut self, tally: Tally) -> Self {
        let part = std::mem::replace(&mut self.tally, tally);
        self.tally.again = part.again;
        self.tally.complain_of(part);
        self.end();
        self
    }

    /// The list ends: of what contradicts itself nothing is used.
    pub fn end(&mut self) {
        for id in std::mem::take(&mut self.tied) {
            self.tally.complain(Some(id.as_str()), "it has two accounts, and neither is the newer one");
            self.unreadable.insert(id);
        }
        self.accounts.retain(|id, _| !self.unreadable.contains(id));
        self.seen = HashMap::new();
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
                self.tally.complain(
                    Some(account.id.as_str()),
                    "it has two accounts, and it is not known which is newer",
                );
                self.unreadable.insert(account.id);
            }
        }
    }
}
