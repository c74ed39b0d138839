//! Difference between the table and the provider's list, and the decisions of sync. Pure, but for the [`Spool`]s.
//!
//! Both lists are divided twice, so that memory holds one partition of them: by id, where what all rows of an id say is
//! settled and meets the table's sandbox, and then by account, where it is decided whose each account is.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use broker_domain::{AccountKey, ExternalId, ProviderAttributes, SandboxId, SandboxName, Status};
use broker_provider::{Account, AccountId, Listed, ListedRow, Mark, Rows, Sighting, Tally};
use serde::{Deserialize, Serialize};

use super::doubtful::{Doubt, DoubtfulRow, DoubtfulRows};
use super::spool::{Spool, SpoolError};

/// Partitions of a list: of 10 million sandboxes, memory holds 20,000 at a time.
const PARTS: usize = 512;
/// Allocated sandboxes that are named.
const NAMED: usize = 10;

/// A sandbox as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownSandbox {
    pub(super) status: Status,
    pub(super) version: u64,
    pub(super) name: SandboxName,
    pub(super) external_id: ExternalId,
    /// Its attributes, if they are kept and were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attributes: Option<ProviderAttributes>,
}

impl KnownSandbox {
    /// Whether that row is its account.
    pub(super) fn is_account_of(&self, row: &Account) -> bool {
        AccountKey::of(&self.external_id) == AccountKey::of(&row.external_id)
    }

    /// Whether it is as the provider lists it, as far as both are known.
    fn is_as_listed(&self, account: &Account) -> bool {
        let attributes = self.attributes.as_ref().zip(account.attributes.as_ref());
        self.name == account.name
            && self.external_id == account.external_id
            && attributes.is_none_or(|(ours, theirs)| ours == theirs)
    }
}

/// The sandboxes that the index lists, by id. Of one that is listed twice the later version counts.
#[derive(Debug)]
pub(super) struct Ours(Spool<(SandboxId, KnownSandbox)>);

impl Ours {
    pub(super) fn new(dir: Arc<Path>) -> Self {
        Self(Spool::new(dir, PARTS))
    }

    pub(super) fn add(&mut self, id: SandboxId, known: KnownSandbox) -> Result<(), SpoolError> {
        let key = id.clone();
        self.0.push_by(&key, &(id, known))
    }

    fn part(&self, part: usize) -> Result<HashMap<SandboxId, KnownSandbox>, SpoolError> {
        let mut ours: HashMap<SandboxId, KnownSandbox> = HashMap::new();
        for record in self.0.part(part) {
            let (id, known) = record?;
            let newer = ours.get(&id).is_none_or(|before| before.version < known.version);
            if newer {
                ours.insert(id, known);
            }
        }
        Ok(ours)
    }
}

/// The provider's list while it is read.
#[derive(Debug)]
pub(super) struct Theirs {
    sandboxes: Spool<Sighting>,
    accounts: Spool<ByAccount>,
    marks: Spool<Mark>,
    /// Why a row could not be kept: it outlives a list that is given up.
    failed: Arc<Mutex<Option<SpoolError>>>,
}

impl Theirs {
    pub(super) fn new(dir: Arc<Path>, failed: Arc<Mutex<Option<SpoolError>>>) -> Self {
        Self {
            sandboxes: Spool::new(Arc::clone(&dir), PARTS),
            accounts: Spool::new(Arc::clone(&dir), PARTS),
            marks: Spool::new(dir, PARTS),
            failed,
        }
    }

    fn keep(&mut self, row: ListedRow) -> Result<(), SpoolError> {
        if let Some(mark) = row.mark {
            self.marks.push_by(&mark.ids, &mark)?;
        }
        let Some(sighting) = row.sighting else { return Ok(()) };
        let (id, external_id) = match &sighting {
            Sighting::Account(account) => (Some(&account.id), Some(&account.external_id)),
            Sighting::Unreadable { id, external_id } => (id.as_ref(), external_id.as_ref()),
        };
        if let Some(external_id) = external_id {
            let there = ByAccount::There { external_id: external_id.clone() };
            self.accounts.push_by(&AccountKey::of(external_id), &there)?;
        }
        if let Some(id) = id {
            self.sandboxes.push_by(id, &sighting)?;
        }
        Ok(())
    }

    /// Rows that came on another page already.
    fn again(&self) -> Result<u64, SpoolError> {
        let mut again = 0;
        for part in 0..PARTS {
            let mut seen = HashMap::new();
            for mark in self.marks.part(part) {
                let Mark { ids, page } = mark?;
                again += u64::from(*seen.entry(ids).or_insert(page) != page);
            }
        }
        Ok(again)
    }
}

impl Rows for Theirs {
    fn take(&mut self, row: ListedRow) -> Result<(), String> {
        self.keep(row).map_err(|error| {
            let told = error.to_string();
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        })
    }
}

/// What is known of an account.
#[derive(Debug, Serialize, Deserialize)]
enum ByAccount {
    /// The provider has it.
    There { external_id: ExternalId },
    /// A sandbox of the index; whether the list has its id, and whether that is for another account.
    Ours { id: SandboxId, known: KnownSandbox, has_id: bool, is_remade: bool },
    /// A row of the list, and the sandbox of the index that has its id.
    Listed { account: Account, known: Option<KnownSandbox> },
}

/// A sandbox that the list does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Missing {
    pub(super) id: SandboxId,
    pub(super) status: Status,
    pub(super) version: u64,
}

/// The difference.
#[derive(Debug)]
pub(super) struct Diff {
    /// Counts of the rows, unreadable ones among them.
    pub(super) tally: Tally,
    /// Sandboxes that the provider lists, and rows without a usable id.
    pub(super) listed: u64,
    /// Rows that are refused.
    pub(super) doubtful: DoubtfulRows,
    /// The list has no row that could be a sandbox.
    pub(super) is_empty: bool,
    /// Why a sandbox that is not listed may exist all the same.
    pub(super) doubt: Option<String>,
    /// What is missing is so in one list only: the second one failed.
    pub(super) is_unconfirmed: bool,
    /// The number of rows that cannot be read and may be of new sandboxes: those without a usable id, and accounts that no other row
    /// names and no sandbox of the index has.
    pub(super) hidden: u64,
    /// The number of those that are offered, or are to be, before any change.
    pub(super) available: u64,
    /// Listed, and not in the index.
    pub(super) unknown: Spool<Account>,
    /// In the pool, in quarantine or stale, and listed with other names, ids or attributes.
    pub(super) found: Spool<(Account, KnownSandbox)>,
    /// Arriving, available or put aside, and not listed.
    pub(super) missing: Spool<Missing>,
    /// The number of those that are allocated or in quarantine, before any change.
    pub(super) in_use: u64,
    /// How many of all these have an account that is not in this list.
    pub(super) unlisted: u64,
    /// The number of rows that are not refused, and are another account than the index has under their id.
    pub(super) remade: u64,
    /// How many are allocated, and not listed; some of them.
    pub(super) allocated_missing: u64,
    pub(super) some_allocated_missing: Vec<SandboxId>,
}

impl Diff {
    fn new(dir: &Arc<Path>, tally: Tally) -> Self {
        Self {
            tally,
            listed: 0,
            doubtful: DoubtfulRows::default(),
            is_empty: true,
            doubt: None,
            is_unconfirmed: false,
            hidden: 0,
            available: 0,
            unknown: Spool::new(Arc::clone(dir), 1),
            found: Spool::new(Arc::clone(dir), 1),
            missing: Spool::new(Arc::clone(dir), PARTS),
            in_use: 0,
            unlisted: 0,
            remade: 0,
            allocated_missing: 0,
            some_allocated_missing: Vec::new(),
        }
    }
}

/// The difference between the table and the provider's list. Missing is only what `before`, an earlier difference, misses,
/// too.
///
/// A row is the sandbox whose account it names, whatever its label: under another label it is refused, and its sandbox is
/// not missing. Of several rows of one account without a sandbox, the first by label counts.
pub(super) fn between(
    ours: &Ours,
    theirs: Theirs,
    tally: Tally,
    before: Option<&Diff>,
    dir: &Arc<Path>,
) -> Result<Diff, SpoolError> {
    let mut diff = Diff::new(dir, tally);
    diff.tally.again = theirs.again()?;
    diff.is_empty = theirs.accounts.len() == 0;
    let Theirs { sandboxes, mut accounts, .. } = theirs;
    for part in 0..PARTS {
        meet(&ours.part(part)?, sandboxes.part(part), &mut accounts, &mut diff)?;
    }
    drop(sandboxes);
    diff.listed += diff.tally.unidentified;
    diff.hidden += diff.tally.unidentified;
    diff.is_empty &= diff.listed == 0;
    diff.doubt = diff.tally.doubt();
    for part in 0..PARTS {
        let before = before.map(|before| before.missing.part(part).map(|missing| Ok(missing?.id)));
        let before = before.map(Iterator::collect::<Result<HashSet<_>, SpoolError>>).transpose()?;
        decide(accounts.part(part), before.as_ref(), part, &mut diff)?;
    }
    Ok(diff)
}

/// Lets the rows of a partition by id meet the table's sandboxes of these ids.
fn meet(
    ours: &HashMap<SandboxId, KnownSandbox>,
    rows: impl Iterator<Item = Result<Sighting, SpoolError>>,
    accounts: &mut Spool<ByAccount>,
    diff: &mut Diff,
) -> Result<(), SpoolError> {
    let mut listed = Listed::default();
    for row in rows {
        let row = row?;
        // One that names its account is met by that.
        if let Sighting::Unreadable { id: Some(id), external_id: None } = &row {
            diff.hidden += u64::from(!ours.contains_key(id));
        }
        listed.add(row);
    }
    listed.end();
    diff.listed += listed.found();
    diff.tally.complain_of(std::mem::take(&mut listed.tally));
    for (id, known) in ours {
        diff.available += u64::from(is_in_pool(known.status));
        diff.in_use += u64::from(is_in_use(known.status));
        let is_remade = listed.accounts.get(id).is_some_and(|row| !known.is_account_of(row));
        let (id, known, has_id) = (id.clone(), known.clone(), listed.has(id));
        let key = AccountKey::of(&known.external_id);
        accounts.push_by(&key, &ByAccount::Ours { id, known, has_id, is_remade })?;
    }
    for account in listed.accounts.into_values() {
        let key = AccountKey::of(&account.external_id);
        let known = ours.get(&account.id).cloned();
        accounts.push_by(&key, &ByAccount::Listed { account, known })?;
    }
    Ok(())
}

/// Decides about the accounts of partition `part`.
fn decide(
    records: impl Iterator<Item = Result<ByAccount, SpoolError>>,
    before: Option<&HashSet<SandboxId>>,
    part: usize,
    diff: &mut Diff,
) -> Result<(), SpoolError> {
    let (mut there, mut ours, mut rows) = (HashSet::new(), Vec::new(), Vec::new());
    for record in records {
        match record? {
            ByAccount::There { external_id } => drop(there.insert(AccountKey::of(&external_id))),
            ByAccount::Ours { id, known, has_id, is_remade } => ours.push((id, known, has_id, is_remade)),
            ByAccount::Listed { account, known } => rows.push((account, known)),
        }
    }
    // Of several of ours with one account (an older version let them in) the one that is in use.
    ours.sort_by(|(a, x, ..), (b, y, ..)| (x.status.is_unused(), a).cmp(&(y.status.is_unused(), b)));
    rows.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let mut holders = HashMap::new();
    for (id, known, has_id, is_remade) in ours {
        let key = AccountKey::of(&known.external_id);
        if !there.contains(&key) {
            let counts = is_in_pool(known.status) || is_in_use(known.status);
            diff.unlisted += u64::from(counts && (!has_id || is_remade));
            if !has_id {
                diff.miss(&id, &known, before, part)?;
            }
        }
        holders.entry(key).or_insert(id);
    }
    for (account, known) in rows {
        let key = AccountKey::of(&account.external_id);
        let holder = holders.entry(key).or_insert_with(|| account.id.clone());
        let doubt = if *holder == account.id {
            doubt(&account, known.as_ref())
        } else {
            Some(Doubt::AccountOf(holder.clone()))
        };
        match doubt {
            Some(doubt) => {
                diff.doubtful.add(DoubtfulRow { id: account.id, external_id: account.external_id, doubt });
            }
            None => diff.list(account, known)?,
        }
    }
    diff.hidden += there.iter().filter(|key| !holders.contains_key(key)).count() as u64;
    Ok(())
}

impl Diff {
    /// Adds a sandbox of ours that is not listed.
    fn miss(
        &mut self,
        id: &SandboxId,
        known: &KnownSandbox,
        before: Option<&HashSet<SandboxId>>,
        part: usize,
    ) -> Result<(), SpoolError> {
        match known.status {
            Status::Arriving | Status::Available | Status::Reserved
                if before.is_none_or(|before| before.contains(id)) =>
            {
                let (status, version) = (known.status, known.version);
                self.missing.push(part, &Missing { id: id.clone(), status, version })?;
            }
            Status::Allocated => {
                self.allocated_missing += 1;
                if self.some_allocated_missing.len() < NAMED {
                    self.some_allocated_missing.push(id.clone());
                }
            }
            Status::Arriving
            | Status::Available
            | Status::Reserved
            | Status::Stale
            | Status::PendingDeletion
            | Status::Quarantined
            | Status::DeletionFailed
            | Status::Deleted
            | Status::Unknown => {}
        }
        Ok(())
    }

    /// Adds a row that is not refused.
    fn list(&mut self, account: Account, known: Option<KnownSandbox>) -> Result<(), SpoolError> {
        let Some(known) = known else { return self.unknown.push(0, &account) };
        self.remade += u64::from(!known.is_account_of(&account));
        match known.status {
            Status::Arriving | Status::Available | Status::Reserved | Status::Quarantined
                if known.is_as_listed(&account) =>
            {
                Ok(())
            }
            // What is put aside, or is let go from quarantine, is offered as it stands.
            Status::Arriving | Status::Available | Status::Reserved | Status::Quarantined | Status::Stale => {
                self.found.push(0, &(account, known))
            }
            // An allocated sandbox stays with its owner; a pending deletion is deleted as it was read.
            Status::Allocated
            | Status::PendingDeletion
            | Status::DeletionFailed
            | Status::Deleted
            | Status::Unknown => Ok(()),
        }
    }
}

/// Whether it is offered, or is to be.
const fn is_in_pool(status: Status) -> bool {
    matches!(status, Status::Arriving | Status::Available | Status::Reserved)
}

/// Whether it is neither offered nor on its way out: the provider should list it, and it never becomes stale.
const fn is_in_use(status: Status) -> bool {
    matches!(status, Status::Allocated | Status::Quarantined)
}

/// Why a row whose account is no other sandbox's is refused all the same.
fn doubt(account: &Account, known: Option<&KnownSandbox>) -> Option<Doubt> {
    let key = AccountKey::of(&account.external_id);
    let stays =
        known.is_some_and(|known| known.status != Status::Stale && AccountKey::of(&known.external_id) == key);
    if !stays && AccountId::of(&account.external_id).is_none() {
        return Some(Doubt::NoAccount);
    }
    let is_held = known
        .is_some_and(|known| known.status == Status::Allocated && AccountKey::of(&known.external_id) != key);
    is_held.then_some(Doubt::AnotherAccount)
}
