//! Invariants of the table's contents: the promises of the broker, checked over an inventory of sandboxes and leases.
//!
//! [`suspects`] names everything that contradicts "one owner per sandbox, one sandbox per key, never offered twice". A
//! scan is no snapshot, so it only finds suspects: the caller reads the items of each again in one transaction and judges
//! that small inventory with the same function before it calls one a violation. Nothing is read or repaired here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{
    AccountKey, AccountRecord, AllocationId, ExternalId, Lease, LeaseKey, Permit, PermitRecord, Sandbox,
    SandboxId, Status, TrackId, TrackName,
};

mod accounts;
mod permits;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Several live leases point to one sandbox.
    OwnedTwice {
        /// The sandbox.
        sandbox: SandboxId,
        /// The keys of the leases, sorted.
        owners: Vec<LeaseKey>,
    },
    /// Several sandboxes are allocated to one key.
    KeyHoldsSeveral {
        /// The key.
        key: LeaseKey,
        /// The sandboxes, sorted.
        sandboxes: Vec<SandboxId>,
    },
    /// A live lease points nowhere, to a sandbox that is not allocated, or to another allocation.
    LeaseWithoutSandbox {
        /// The lease.
        key: LeaseKey,
        /// Where it points.
        sandbox: SandboxId,
    },
    /// An allocated sandbox has no live lease with its allocation id.
    AllocatedWithoutLease {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// A sandbox that was handed out is offered, or was handed out, again.
    Reoffered {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// Several sandboxes, live or dead, are one account of the provider.
    AccountTwice {
        /// The account.
        account: AccountKey,
        /// The sandboxes, sorted.
        sandboxes: Vec<SandboxId>,
    },
    /// The record of a sandbox's account is missing.
    AccountUnrecorded {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The record of a sandbox's account names another sandbox, or says that no sandbox may have it.
    AccountElsewhere {
        /// The sandbox.
        sandbox: SandboxId,
        /// The one that its account's record names.
        holder: SandboxId,
    },
    /// The record of an account names a sandbox that does not have it.
    AccountDangling {
        /// The account.
        account: AccountKey,
        /// The sandbox that its record names.
        holder: SandboxId,
    },
    /// A live lease tells its owner another account than its sandbox is.
    LeaseTellsAnother {
        /// The lease.
        key: LeaseKey,
        /// Its sandbox.
        sandbox: SandboxId,
    },
    /// A permit is held without a live lease of its allocation.
    PermitWithoutLease {
        /// The permit.
        permit: Permit,
        /// The key that its record names.
        key: LeaseKey,
    },
    /// A live lease does not hold the permit that it, or its sandbox, says.
    LeaseWithoutPermit {
        /// The lease.
        key: LeaseKey,
        /// The permit.
        permit: Permit,
    },
}

impl Violation {
    /// The word in machine-readable output.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::OwnedTwice { .. } => "owned_twice",
            Self::KeyHoldsSeveral { .. } => "key_holds_several",
            Self::LeaseWithoutSandbox { .. } => "lease_without_sandbox",
            Self::AllocatedWithoutLease { .. } => "allocated_without_lease",
            Self::Reoffered { .. } => "reoffered",
            Self::AccountTwice { .. } => "account_twice",
            Self::AccountUnrecorded { .. } => "account_unrecorded",
            Self::AccountElsewhere { .. } => "account_elsewhere",
            Self::AccountDangling { .. } => "account_dangling",
            Self::LeaseTellsAnother { .. } => "lease_tells_another",
            Self::PermitWithoutLease { .. } => "permit_without_lease",
            Self::LeaseWithoutPermit { .. } => "lease_without_permit",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnedTwice { sandbox, owners } => {
                write!(f, "sandbox {sandbox} has {} live leases:", owners.len())?;
                owners.iter().try_for_each(|key| write!(f, " {}/{}", key.track, key.key))
            }
            Self::KeyHoldsSeveral { key, sandboxes } => {
                write!(f, "track {} with key {} holds {} sandboxes:", key.track, key.key, sandboxes.len())?;
                sandboxes.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::LeaseWithoutSandbox { key, sandbox } => write!(
                f,
                "the live lease of track {} with key {} points to {sandbox}, which is not allocated by it",
                key.track, key.key
            ),
            Self::AllocatedWithoutLease { sandbox } => {
                write!(f, "sandbox {sandbox} is allocated without a live lease")
            }
            Self::Reoffered { sandbox } => {
                write!(f, "sandbox {sandbox} was handed out before and is offered or allocated again")
            }
            Self::AccountTwice { account, sandboxes } => {
                write!(f, "account {account} is {} sandboxes:", sandboxes.len())?;
                sandboxes.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::AccountUnrecorded { sandbox } => {
                write!(f, "the account of sandbox {sandbox} has no record: `broker init` writes it")
            }
            Self::AccountElsewhere { sandbox, holder } => {
                write!(f, "the account of sandbox {sandbox} is recorded for {holder}")
            }
            Self::AccountDangling { account, holder } => {
                write!(f, "account {account} is recorded for sandbox {holder}, which does not have it")
            }
            Self::LeaseTellsAnother { key, sandbox } => write!(
                f,
                "the live lease of track {} with key {} names another account than its sandbox {sandbox} is",
                key.track, key.key
            ),
            Self::PermitWithoutLease { permit, key } => write!(
                f,
                "permit {permit} is held for track {} with key {}, which has no live lease that holds it: \
                 `broker job run sweep` frees it",
                key.track, key.key
            ),
            Self::LeaseWithoutPermit { key, permit } => write!(
                f,
                "the live lease of track {} with key {} does not hold its permit {permit}",
                key.track, key.key
            ),
        }
    }
}

/// A violation that one inventory shows, with the items that must be read together to confirm it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The violation, if it is confirmed.
    pub violation: Violation,
    /// The sandboxes involved.
    pub sandboxes: Vec<SandboxId>,
    /// The leases involved.
    pub leases: Vec<LeaseKey>,
    /// The accounts whose records it is about.
    pub accounts: Vec<AccountKey>,
    /// The permits that it is about.
    pub permits: Vec<Permit>,
}

/// The fields of a sandbox that the promises concern.
#[derive(Clone, Debug)]
struct SandboxFact {
    status: Status,
    external_id: ExternalId,
    allocation: Option<(AllocationId, LeaseKey)>,
    permit: Option<Permit>,
}

/// The fields of a lease that the promises concern.
#[derive(Clone, Debug)]
struct LeaseFact {
    live: bool,
    allocation_id: AllocationId,
    sandbox: SandboxId,
    external_id: ExternalId,
    permit: Option<Permit>,
}

/// What was read of the table: every sandbox, every lease and every account's record, or those of one suspect.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    sandboxes: HashMap<SandboxId, SandboxFact>,
    leases: HashMap<LeaseKey, LeaseFact>,
    accounts: HashMap<AccountKey, AccountRecord>,
    accounts_recorded: bool,
    permits: HashMap<Permit, PermitRecord>,
    permits_read: bool,
    by_status: BTreeMap<Status, u64>,
    by_lab: BTreeMap<Option<TrackName>, u64>,
    by_track: HashMap<TrackId, u64>,
}

impl Inventory {
    /// Adds a sandbox.
    pub fn add_sandbox(&mut self, sandbox: &Sandbox) {
        *self.by_status.entry(sandbox.status).or_default() += 1;
        if let (Status::Allocated, Some(allocation)) = (sandbox.status, &sandbox.allocation) {
            *self.by_lab.entry(allocation.track_name.clone()).or_default() += 1;
            *self.by_track.entry(allocation.lease_key.track.clone()).or_default() += 1;
        }
        let fact = SandboxFact {
            status: sandbox.status,
            external_id: sandbox.external_id.clone(),
            allocation: sandbox.allocation.as_ref().map(|a| (a.id, a.lease_key.clone())),
            permit: sandbox.allocation.as_ref().and_then(|a| a.permit.clone()),
        };
        self.sandboxes.insert(sandbox.id.clone(), fact);
    }

    /// Adds a lease.
    pub fn add_lease(&mut self, lease: &Lease) {
        let fact = LeaseFact {
            live: lease.end.is_none(),
            allocation_id: lease.allocation_id,
            sandbox: lease.grant.sandbox_id.clone(),
            external_id: lease.grant.external_id.clone(),
            permit: lease.permit.clone(),
        };
        self.leases.insert(lease.key.clone(), fact);
    }

    /// Adds an account's record.
    pub fn add_account(&mut self, record: &AccountRecord) {
        self.accounts.insert(record.key.clone(), record.clone());
    }

    /// Adds a permit that is held.
    pub fn add_permit(&mut self, record: &PermitRecord) {
        self.permits.insert(record.permit.clone(), record.clone());
    }

    /// From now on permits are judged: those that are not added are free.
    pub const fn expect_permits(&mut self) {
        self.permits_read = true;
    }

    /// From now on every sandbox must have its account's record. A table of an older version has none at first.
    pub const fn expect_account_records(&mut self) {
        self.accounts_recorded = true;
    }

    /// The number of sandboxes in each state; states without any are absent.
    pub const fn by_status(&self) -> &BTreeMap<Status, u64> {
        &self.by_status
    }

    /// The number of sandboxes that each lab holds now; `None` is "no lab named".
    pub const fn by_lab(&self) -> &BTreeMap<Option<TrackName>, u64> {
        &self.by_lab
    }

    /// Tracks that hold more than one sandbox now (allowed, with several keys), sorted.
    pub fn tracks_with_several(&self) -> BTreeMap<TrackId, u64> {
        self.by_track
            .iter()
            .filter(|(_, held)| **held > 1)
            .map(|(track, held)| (track.clone(), *held))
            .collect()
    }

    /// The number of live leases.
    pub fn live_leases(&self) -> usize {
        self.leases.values().filter(|lease| lease.live).count()
    }
}

/// Everything in `inventory` that contradicts the promises, in no particular order.
pub fn suspects(inventory: &Inventory) -> Vec<Suspect> {
    let mut found = Vec::new();
    judge_leases(inventory, &mut found);
    judge_sandboxes(inventory, &mut found);
    accounts::judge(inventory, &mut found);
    permits::judge(inventory, &mut found);
    found
}

fn judge_leases(inventory: &Inventory, found: &mut Vec<Suspect>) {
    let mut owners: HashMap<&SandboxId, Vec<LeaseKey>> = HashMap::new();
    let offered = accounts::offered(inventory);
    for (key, lease) in &inventory.leases {
        let sandbox = inventory.sandboxes.get(&lease.sandbox);
        let points_to_its_allocation =
            sandbox.and_then(|s| s.allocation.as_ref()).is_some_and(|(id, _)| *id == lease.allocation_id);
        if lease.live {
            owners.entry(&lease.sandbox).or_default().push(key.clone());
            // What else a newer program leaves a live lease beside is for that one to judge.
            let held = |s: &SandboxFact| matches!(s.status, Status::Allocated | Status::Unknown);
            if !(points_to_its_allocation && sandbox.is_some_and(held)) {
                found.push(Suspect {
                    violation: Violation::LeaseWithoutSandbox {
                        key: key.clone(),
                        sandbox: lease.sandbox.clone(),
                    },
                    sandboxes: vec![lease.sandbox.clone()],
                    leases: vec![key.clone()],
                    accounts: Vec::new(),
                    permits: Vec::new(),
                });
            }
        }
        let of_its_account = offered.get(&AccountKey::of(&lease.external_id));
        for (id, allocation) in of_its_account.into_iter().flatten() {
            let is_its_own = **id == lease.sandbox && *allocation == Some(lease.allocation_id);
            if !is_its_own {
                found.push(reoffered((*id).clone(), vec![key.clone()]));
            }
        }
    }
    for (sandbox, mut owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
        owners.sort();
        found.push(Suspect {
            violation: Violation::OwnedTwice { sandbox: sandbox.clone(), owners: owners.clone() },
            sandboxes: vec![sandbox.clone()],
            leases: owners,
            accounts: Vec::new(),
            permits: Vec::new(),
        });
    }
}

fn judge_sandboxes(inventory: &Inventory, found: &mut Vec<Suspect>) {
    let mut held: HashMap<&LeaseKey, Vec<SandboxId>> = HashMap::new();
    for (id, sandbox) in &inventory.sandboxes {
        match (sandbox.status, &sandbox.allocation) {
            (Status::Arriving | Status::Available | Status::Reserved | Status::Stale, Some((_, key))) => {
                found.push(reoffered(id.clone(), vec![key.clone()]))
            }
            (Status::Allocated, Some((allocation_id, key))) => {
                held.entry(key).or_default().push(id.clone());
                let leased = inventory.leases.get(key).is_some_and(|lease| {
                    lease.live && lease.allocation_id == *allocation_id && lease.sandbox == *id
                });
                if !leased {
                    found.push(without_lease(id.clone(), vec![key.clone()]));
                }
            }
            (Status::Allocated, None) => found.push(without_lease(id.clone(), Vec::new())),
            (
                Status::Arriving
                | Status::Available
                | Status::Reserved
                | Status::Stale
                | Status::Quarantined
                | Status::PendingDeletion
                | Status::DeletionFailed
                | Status::Deleted
                | Status::Unknown,
                _,
            ) => {}
        }
    }
    for (key, mut sandboxes) in held.into_iter().filter(|(_, sandboxes)| sandboxes.len() > 1) {
        sandboxes.sort();
        found.push(Suspect {
            violation: Violation::KeyHoldsSeveral { key: key.clone(), sandboxes: sandboxes.clone() },
            sandboxes,
            leases: vec![key.clone()],
            accounts: Vec::new(),
            permits: Vec::new(),
        });
    }
}

/// Whether a sandbox in this state is on its way to its next owner, or held by one.
const fn offered(status: Status) -> bool {
    match status {
        Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Allocated => true,
        Status::Quarantined
        | Status::PendingDeletion
        | Status::DeletionFailed
        | Status::Deleted
        | Status::Unknown => false,
    }
}

fn reoffered(sandbox: SandboxId, leases: Vec<LeaseKey>) -> Suspect {
    let violation = Violation::Reoffered { sandbox: sandbox.clone() };
    Suspect { violation, sandboxes: vec![sandbox], leases, accounts: Vec::new(), permits: Vec::new() }
}

fn without_lease(sandbox: SandboxId, leases: Vec<LeaseKey>) -> Suspect {
    Suspect {
        violation: Violation::AllocatedWithoutLease { sandbox: sandbox.clone() },
        sandboxes: vec![sandbox],
        leases,
        accounts: Vec::new(),
        permits: Vec::new(),
    }
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
