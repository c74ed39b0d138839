//! Accounts of the stand-in, and the calls it received.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use broker_domain::{Sandbox, Status, Timestamp};
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

impl StandInAccount {
    fn new(number: usize, csp_id: String, name: String, now: Timestamp) -> Self {
        let uuid = super::uuid_of(number);
        Self {
            uuid,
            id: format!("identity/accounts/{uuid}"),
            csp_id,
            name,
            account_type: "sandbox",
            state: "active",
            created_at: iso(now),
        }
    }
}

/// Whether the provider has a sandbox in this state.
const fn is_there(status: Status) -> bool {
    match status {
        Status::Arriving
        | Status::Available
        | Status::Reserved
        | Status::Allocated
        | Status::Quarantined
        | Status::PendingDeletion
        | Status::DeletionFailed => true,
        Status::Stale | Status::Deleted | Status::Unknown => false,
    }
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

    /// Lists what `pool` has, where a stand-in made it. No number is given again, and what an earlier stand-in was still to
    /// replace is replaced: there are as many accounts as at first, at least.
    pub(super) fn resume(&self, pool: &[Sandbox], now: Timestamp) {
        let mut state = self.state();
        let accounts = state.accounts.len();
        for sandbox in pool {
            let Some(number) = super::number_of(&sandbox.external_id) else { continue };
            state.made = state.made.max(number.saturating_add(1));
            if is_there(sandbox.status) {
                let (csp_id, name) = (sandbox.id.to_string(), sandbox.name.to_string());
                state.accounts.insert(number, StandInAccount::new(number, csp_id, name, now));
            } else {
                state.accounts.remove(&number);
            }
        }
        while state.accounts.len() < accounts {
            state.make(None, now);
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
        let csp_id = csp_id.map_or_else(|| format!("seed-{number:06}"), str::to_owned);
        let account = StandInAccount::new(number, csp_id, format!("sandbox-{number:06}"), now);
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

#[cfg(test)]
mod tests {
    use broker_domain::{ExternalId, ProviderAttributes, SandboxId, SandboxName, Term};

    use super::super::uuid_of;
    use super::*;

    fn sandbox(number: usize, status: Status) -> Sandbox {
        Sandbox {
            id: SandboxId::new(format!("seed-{number:06}")).unwrap(),
            name: SandboxName::new(format!("lab-{number}")).unwrap(),
            external_id: ExternalId::new(format!("identity/accounts/{}", uuid_of(number))).unwrap(),
            attributes: ProviderAttributes::default(),
            status,
            version: 1,
            allocation: None,
            term: Term::default(),
            deletion_requested_at: None,
            end_reason: None,
        }
    }

    fn listed(pool: &[Sandbox]) -> Vec<String> {
        let (now, options) =
            (Timestamp::from_secs(9), StandInOptions { accounts: 3, page_size: 9, regrow_after: None });
        let world = World::new(options, now);
        world.resume(pool, now);
        let shown = world.shown(now);
        shown["accounts"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_stand_in_lists_what_the_pool_of_an_earlier_one_has_and_gives_no_number_again() {
        let first = ["seed-000000", "seed-000001", "seed-000002"];
        assert_eq!(listed(&[]), first);
        let seeds = [0, 1, 2].map(|number| sandbox(number, Status::Available));
        assert_eq!(listed(&seeds), first);
        let [gone, stays, _] = seeds.clone();
        let gone = Sandbox { status: Status::Deleted, ..gone };
        let later = [sandbox(3, Status::Allocated), sandbox(4, Status::Deleted)];
        let pool = [&[gone, stays][..], &later].concat();
        assert_eq!(listed(&pool), ["seed-000001", "seed-000002", "seed-000003"]);
        let missing = [sandbox(1, Status::Stale), sandbox(2, Status::PendingDeletion)];
        assert_eq!(listed(&[&pool[..], &missing].concat()), ["seed-000002", "seed-000003", "seed-000005"]);
    }

    #[test]
    fn what_another_provider_has_is_not_listed() {
        let external_id = ExternalId::new("identity/accounts/0b9e4a3c-5a0e-4b6e-9c55-0d6f3f1f2a77").unwrap();
        let foreign = Sandbox { external_id, ..sandbox(7, Status::Available) };
        assert_eq!(listed(&[foreign]).len(), 3);
    }
}
