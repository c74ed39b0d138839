//! Accounts of the stand-in, and the calls it received.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use broker_domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::faults::{Fault, Faults};
use super::hooks::HookState;

/// The initial accounts of a stand-in.
#[derive(Clone, Copy, Debug)]
pub struct StandInOptions {
    /// The number of accounts; their ids and names are those of `broker pool seed`.
    pub accounts: usize,
    /// The number of accounts of a page.
    pub page_size: usize,
    /// The time after which a deleted account is replaced by a new one, with a new id.
    pub regrow_after: Option<Duration>,
}

#[derive(Clone, Debug, Serialize)]
struct StandInAccount {
    #[serde(skip)]
    uuid: Uuid,
    id: String,
    csp_id: String,
    name: String,
    account_type: &'static str,
    state: &'static str,
    created_at: String,
}

/// A page of the list.
#[derive(Debug)]
pub(super) struct ListedPage {
    pub(super) rows: Vec<Value>,
    /// The number of the last page.
    pub(super) last: usize,
    /// How many rows all pages have.
    pub(super) count: usize,
}

impl Fault {
    /// An account as it is told under this fault.
    fn told(&self, account: &StandInAccount) -> Value {
        let mut row = json!(account);
        for instead in ["*", &account.csp_id].iter().filter_map(|of| self.rows.get(*of)) {
            for (member, value) in instead {
                row[member.as_str()] = value.clone();
            }
        }
        row
    }
}

/// A deletion that was asked for.
#[derive(Clone, Debug, Serialize)]
struct Deletion {
    at_ms: u64,
    uuid: String,
    outcome: String,
    /// The trace context of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

/// A request for more accounts.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wish {
    /// The number of new ones.
    count: usize,
    /// The id of the account to replace.
    csp_id: Option<String>,
    /// New labels of accounts, by those that they have; two may change places.
    relabel: BTreeMap<String, String>,
    /// Rows as they are written here, beside what is there: a label and an account's id, each perhaps a second time.
    rows: Vec<WishedRow>,
}

/// A row that is listed as it is wished.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WishedRow {
    csp_id: String,
    id: String,
}

#[derive(Debug, Default)]
pub(super) struct WorldState {
    /// By number: pages keep their order.
    accounts: BTreeMap<usize, StandInAccount>,
    made: usize,
    growing: Vec<Timestamp>,
    pub(super) faults: Faults,
    calls: (u32, u32),
    deletions: Vec<Deletion>,
    pub(super) hooks: HookState,
}

/// The state of the stand-in.
#[derive(Debug)]
pub struct World {
    state: Mutex<WorldState>,
    page_size: usize,
    regrow_after: Option<Duration>,
}

impl World {
    pub(super) fn new(options: StandInOptions, now: Timestamp) -> Self {
        let mut state = WorldState::default();
        (0..options.accounts).for_each(|_| state.make(None, now));
        Self {
            state: Mutex::new(state),
            page_size: options.page_size.max(1),
            regrow_after: options.regrow_after,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the faults.
    pub fn misbehave(&self, faults: Faults) {
        self.state().faults = faults;
    }

    pub(super) fn list_fault(&self) -> Fault {
        let mut state = self.state();
        state.calls.0 += 1;
        let call = state.calls.0;
        state.faults.list.of_call(call)
    }

    pub(super) fn delete_fault(&self, csp_id: Option<&str>) -> Fault {
        let mut state = self.state();
        state.calls.1 += 1;
        let call = state.calls.1;
        if state.faults.delete.only.as_deref().is_some_and(|only| csp_id != Some(only)) {
            return Fault::default();
        }
        state.faults.delete.of_call(call)
    }

    /// Page `page` (from 1), with what is wrong with it.
    pub(super) fn page(&self, page: usize, fault: &Fault, now: Timestamp) -> ListedPage {
        let mut state = self.state();
        state.grow(now);
        let listed = state.accounts.values().filter(|account| !fault.forget.contains(&account.csp_id));
        let rows: Vec<Value> = listed.map(|account| fault.told(account)).collect();
        let last = rows.len().div_ceil(self.page_size).max(1);
        let turned = page.saturating_sub(1);
        let from = turned * self.page_size;
        let shifted = i64::try_from(from).unwrap_or(i64::MAX);
        let shifted = if turned > 0 { shifted.saturating_sub(fault.shift) } else { shifted };
        let count = rows.len() + fault.more_rows.len();
        let from = usize::try_from(shifted).unwrap_or(0);
        let mut rows: Vec<_> = rows.into_iter().skip(from).take(self.page_size).collect();
        if page >= last {
            rows.extend(fault.more_rows.iter().cloned());
        }
        if fault.reorder {
            rows.reverse();
        }
        if fault.double {
            rows = rows.into_iter().flat_map(|row| [row.clone(), row]).collect();
        }
        ListedPage { rows, last, count }
    }

    /// The `csp_id` of an account.
    pub(super) fn csp_id(&self, uuid: Uuid) -> Option<String> {
        let state = self.state();
        state.accounts.values().find(|account| account.uuid == uuid).map(|account| account.csp_id.clone())
    }

    /// Removes an account; returns whether it existed.
    pub(super) fn remove(&self, uuid: Uuid, now: Timestamp) -> bool {
        let mut state = self.state();
        let before = state.accounts.len();
        state.accounts.retain(|_, account| account.uuid != uuid);
        let removed = state.accounts.len() < before;
        if let Some(after) = self.regrow_after.filter(|_| removed) {
            state.growing.push(now.plus(after));
        }
        removed
    }

    pub(super) fn log(&self, uuid: &str, outcome: &str, traceparent: Option<String>, now: Timestamp) {
        let (uuid, outcome) = (uuid.to_owned(), outcome.to_owned());
        let deletion = Deletion { at_ms: now.as_ms(), uuid, outcome, traceparent };
        self.state().deletions.push(deletion);
    }

    pub(super) fn add(&self, wish: &Wish, now: Timestamp) -> Value {
        let mut state = self.state();
        if let Some(csp_id) = &wish.csp_id {
            state.accounts.retain(|_, account| account.csp_id != *csp_id);
            state.make(Some(csp_id), now);
        }
        (0..wish.count).for_each(|_| state.make(None, now));
        for account in state.accounts.values_mut() {
            if let Some(label) = wish.relabel.get(&account.csp_id) {
                account.csp_id.clone_from(label);
            }
        }
        wish.rows.iter().for_each(|row| state.list(row, now));
        json!({ "accounts": state.accounts.len() })
    }

    /// Its accounts, deletions and calls, as JSON of `GET /stand-in`.
    pub fn shown(&self, now: Timestamp) -> Value {
        let mut state = self.state();
        state.grow(now);
        let ids: Vec<_> = state.accounts.values().map(|account| &account.csp_id).collect();
        json!({
            "accounts": ids, "deletions": state.deletions, "made": state.made,
            "lists": state.calls.0, "deletes": state.calls.1,
            "hooks": state.hooks.heard,
        })
    }
}

impl WorldState {
    /// A new account: id, name and uuid follow from its number, as in `broker pool seed`.
    fn make(&mut self, csp_id: Option<&str>, now: Timestamp) {
        let number = self.made;
        self.made += 1;
        let uuid = super::uuid_of(number);
        let account = StandInAccount {
            uuid,
            id: format!("identity/accounts/{uuid}"),
            csp_id: csp_id.map_or_else(|| format!("seed-{number:06}"), str::to_owned),
            name: format!("sandbox-{number:06}"),
            account_type: "sandbox",
            state: "active",
            created_at: iso(now),
        };
        self.accounts.insert(number, account);
    }

    /// A new account whose name begins with `prefix`.
    pub(super) fn make_named(&mut self, prefix: &str, now: Timestamp) {
        let number = self.made;
        self.make(None, now);
        if let Some(account) = self.accounts.get_mut(&number).filter(|_| !prefix.is_empty()) {
            account.name = format!("{prefix}{number:06}");
        }
    }

    /// A row beside the others; its account can be deleted if its id says which it is.
    fn list(&mut self, row: &WishedRow, now: Timestamp) {
        let number = self.made;
        self.make(Some(&row.csp_id), now);
        if let Some(account) = self.accounts.get_mut(&number) {
            account.id.clone_from(&row.id);
            let uuid = row.id.rsplit('/').next().and_then(|tail| Uuid::try_parse(tail).ok());
            account.uuid = uuid.unwrap_or(account.uuid);
        }
    }

    fn grow(&mut self, now: Timestamp) {
        let (ripe, growing) = std::mem::take(&mut self.growing).into_iter().partition(|at| *at <= now);
        self.growing = growing;
        let ripe: Vec<Timestamp> = ripe;
        ripe.into_iter().for_each(|at| self.make(None, at));
    }
}

/// ISO 8601, UTC.
fn iso(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_secs(secs).fmt(Format::DateTime).unwrap_or_default()
}
