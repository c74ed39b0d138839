//! Reconciling: what becomes of a restored table, given the lines of what was handed out and the provider's list.
//!
//! [`decide`] says what is to be done next, in five stages, each only when the one before has nothing left: halves of
//! transactions are mended, returns end their leases, what the table lacks is inserted, the rest is leased to its owner
//! or given up, and what the provider lists no more becomes stale. The dry run applies the steps to what was read
//! ([`Known::apply`]); `--apply` writes them. Both ask this function again until it has no step.
//!
//! Invariants: pure; the order of lines means nothing; a run that ended after any step is gone on with by the next; no
//! step offers anything; what contradicts itself, or a lease that stands, is a conflict, which only people can solve.

mod lines;
mod mend;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::{
    AccountKey, Allocation, AllocationId, EndReason, ExternalId, Fingerprint, Grant, IdempotencyKey,
    Inventory, Lease, LeaseEnd, LeaseKey, RequestId, Sandbox, SandboxId, SandboxName, Status, Timestamp,
    TrackId,
};

pub use lines::{HandedOut, Lines};

/// What was read of the table.
#[derive(Clone, Debug, Default)]
pub struct Known {
    sandboxes: HashMap<SandboxId, Sandbox>,
    leases: HashMap<LeaseKey, Lease>,
}

impl Known {
    /// Adds a sandbox, or replaces what was known of it.
    pub fn add_sandbox(&mut self, sandbox: Sandbox) {
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// Adds a lease, or replaces what was known of its key.
    pub fn add_lease(&mut self, lease: Lease) {
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Forgets the sandbox and the lease that a step is about.
    pub fn forget(&mut self, step: &Step) {
        self.sandboxes.remove(step.sandbox_id());
        step.lease_key().map(|key| self.leases.remove(key));
    }

    /// Whether there is no sandbox.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty()
    }

    /// The same as [`suspects`](super::suspects) judges it.
    pub fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        self.sandboxes.values().for_each(|sandbox| inventory.add_sandbox(sandbox));
        self.leases.values().for_each(|lease| inventory.add_lease(lease));
        inventory
    }

    fn live(&self, key: &LeaseKey) -> Option<&Lease> {
        self.leases.get(key).filter(|lease| lease.end.is_none())
    }

    /// What would be known after `step`.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Insert { sandbox_id, name, external_id } => self.add_sandbox(Sandbox {
                id: sandbox_id.clone(),
                name: name.clone(),
                external_id: external_id.clone(),
                status: Status::Available,
                version: 1,
                allocation: None,
                deletion_requested_at: None,
                end_reason: None,
            }),
            Step::Bind { sandbox, lease, .. } => {
                let status = Status::Allocated;
                let allocation = Some(allocation_of(lease));
                self.add_sandbox(Sandbox {
                    status,
                    version: sandbox.version + 1,
                    allocation,
                    ..sandbox.clone()
                });
                self.add_lease(Lease::clone(lease));
            }
            Step::EndLease { lease, end } => {
                self.add_lease(Lease { end: Some(end.clone()), ..lease.clone() })
            }
            Step::Retire { sandbox, allocation, end } => self.add_sandbox(retired(sandbox, allocation, end)),
            Step::End { sandbox, allocation, end } => {
                self.add_sandbox(retired(sandbox, allocation, end));
                if let Some(lease) = self.leases.get_mut(&allocation.lease_key) {
                    lease.end = Some(end.clone());
                }
            }
            Step::Missing { sandbox } => self.add_sandbox(Sandbox {
                status: Status::Stale,
                version: sandbox.version + 1,
                ..sandbox.clone()
            }),
        }
    }
}

fn allocation_of(lease: &Lease) -> Allocation {
    Allocation {
        id: lease.allocation_id,
        lease_key: lease.key.clone(),
        track_name: lease.grant.track_name.clone(),
        allocated_at: lease.grant.allocated_at,
        expires_at: lease.grant.expires_at,
    }
}

fn retired(sandbox: &Sandbox, allocation: &Allocation, end: &LeaseEnd) -> Sandbox {
    Sandbox {
        status: Status::PendingDeletion,
        version: sandbox.version + 1,
        allocation: Some(allocation.clone()),
        deletion_requested_at: Some(end.at),
        end_reason: Some(end.reason),
        ..sandbox.clone()
    }
}

/// One write, on the condition that all it names is as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A sandbox that the table lacks enters it; nobody can claim it, the pool is closed.
    Insert {
        /// Ours.
        sandbox_id: SandboxId,
        /// The provider's name.
        name: SandboxName,
        /// The provider's id.
        external_id: ExternalId,
    },
    /// Lease and sandbox point to each other from now on.
    Bind {
        /// As it was read: in nobody's hands, or in those of this lease.
        sandbox: Sandbox,
        /// What stands at the lease's key: nothing, an ended one, or this one.
        stands: Option<Box<Lease>>,
        /// As it shall be.
        lease: Box<Lease>,
    },
    /// A lease ends whose sandbox is out of its hands.
    EndLease {
        /// As it was read, live.
        lease: Lease,
        /// How it ended.
        end: LeaseEnd,
    },
    /// A sandbox goes the way of every used one; no live lease points to it.
    Retire {
        /// As it was read.
        sandbox: Sandbox,
        /// Who had it.
        allocation: Allocation,
        /// How that ended.
        end: LeaseEnd,
    },
    /// Lease and sandbox end together.
    End {
        /// As it was read.
        sandbox: Sandbox,
        /// By which it is held.
        allocation: Allocation,
        /// How it ended.
        end: LeaseEnd,
    },
    /// The provider does not list it any more.
    Missing {
        /// As it was read, available.
        sandbox: Sandbox,
    },
}

impl Step {
    /// The sandbox that it is about.
    pub const fn sandbox_id(&self) -> &SandboxId {
        match self {
            Self::Insert { sandbox_id, .. } => sandbox_id,
            Self::EndLease { lease, .. } => &lease.grant.sandbox_id,
            Self::Bind { sandbox, .. }
            | Self::Retire { sandbox, .. }
            | Self::End { sandbox, .. }
            | Self::Missing { sandbox } => &sandbox.id,
        }
    }

    /// The lease that it is about, if one is.
    pub fn lease_key(&self) -> Option<&LeaseKey> {
        match self {
            Self::Bind { lease, .. } => Some(&lease.key),
            Self::EndLease { lease, .. } => Some(&lease.key),
            Self::End { allocation, .. } => Some(&allocation.lease_key),
            Self::Insert { .. } | Self::Retire { .. } | Self::Missing { .. } => None,
        }
    }
}

/// What the provider says of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// There is no provider to ask.
    NotAsked,
    /// Its whole list does not have it.
    Absent,
    /// It is, or may be, listed in a form that cannot be read.
    Unreadable,
    /// It lists this.
    Listed {
        /// Its name.
        name: SandboxName,
        /// The provider's id.
        external_id: ExternalId,
    },
}

/// The provider's list, if there is a provider.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What it lists in a form that can be read.
    pub accounts: HashMap<SandboxId, (SandboxName, ExternalId)>,
    /// Every account that it names, under whatever id.
    pub there: HashSet<AccountKey>,
    /// What it lists in another one.
    pub unreadable: HashSet<SandboxId>,
    /// Whether it is to be believed that it names everything.
    pub whole: bool,
    /// Whether it names nothing at all.
    pub is_empty: bool,
}

impl Listing {
    /// What `listing` says of a sandbox.
    pub fn sight(listing: Option<&Self>, id: &SandboxId) -> Sight {
        let Some(listing) = listing else { return Sight::NotAsked };
        match listing.accounts.get(id) {
            Some((name, external_id)) => {
                Sight::Listed { name: name.clone(), external_id: external_id.clone() }
            }
            None if listing.whole && !listing.unreadable.contains(id) => Sight::Absent,
            None => Sight::Unreadable,
        }
    }
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Half a transaction becomes a whole one.
    Mend,
    /// A line says that its lease has ended.
    End,
    /// A line speaks of what the table lacks.
    Insert,
    /// A line says whose it is.
    Lease,
    /// A line says that it was used, and nobody is to have it.
    GiveUp,
    /// The provider does not list it.
    Missing,
}

/// What a line asks for when no step is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The table says the same.
    AsItIs,
    /// Lines or table contradict it: only people can tell. Why.
    Conflict(String),
    /// Neither table nor provider has it.
    Unknown,
    /// Whether anybody has it cannot be told. Why.
    Unclear(String),
}

/// Ids for what is bound or given up.
#[derive(Clone, Copy, Debug)]
pub struct Minted {
    /// The allocation's id: of whatever was handed out, whether or not it still is.
    pub allocation_id: AllocationId,
    /// Who claimed, for the lease. Nobody's request has it.
    pub request_id: RequestId,
}

/// What everything was read from, and when.
pub struct Asked<'a> {
    /// What was handed out.
    pub lines: &'a Lines,
    /// What the provider says of a sandbox.
    pub sight: &'a dyn Fn(&SandboxId) -> Sight,
    /// Whether it names an account, under whatever id.
    pub is_there: &'a dyn Fn(&ExternalId) -> bool,
    /// Ids, new ones each time.
    pub mint: &'a dyn Fn() -> Minted,
    /// Who had what nobody is known to have had.
    pub nobody: &'a TrackId,
    /// How long an owner has a sandbox whose line does not say it.
    pub lease: Duration,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done next, and what lines are left with.
#[derive(Debug, Default)]
pub struct Decision {
    /// Steps of one stage, each about a sandbox and a key of its own; none: it is done.
    pub steps: Vec<(Purpose, Step)>,
    /// What lines without a step ask for.
    pub verdicts: BTreeMap<SandboxId, Verdict>,
}

/// What is to be done next with what is known.
pub fn decide(known: &Known, asked: &Asked<'_>) -> Decision {
    let mut decision = Decision { steps: mend::mends(known, asked), ..Decision::default() };
    if !decision.steps.is_empty() {
        return decision;
    }
    let by_account: HashMap<String, &SandboxId> =
        known.sandboxes.values().map(|s| (s.external_id.as_str().to_ascii_lowercase(), &s.id)).collect();
    let mut wanted: BTreeMap<Purpose, Vec<Step>> = BTreeMap::new();
    for (id, line) in &asked.lines.0 {
        let judged = match line {
            Ok(line) => judge_line(known, asked, line, &by_account),
            Err(contradiction) => Err(Verdict::Conflict(contradiction.clone())),
        };
        match judged {
            Ok((purpose, step)) => wanted.entry(purpose).or_default().push(step),
            Err(verdict) => drop(decision.verdicts.insert(id.clone(), verdict)),
        }
    }
    for stage in [&[Purpose::End][..], &[Purpose::Insert], &[Purpose::Lease, Purpose::GiveUp]] {
        for purpose in stage {
            let steps = wanted.remove(purpose).unwrap_or_default();
            let steps = if *purpose == Purpose::Lease { apart(steps, &mut decision.verdicts) } else { steps };
            decision.steps.extend(steps.into_iter().map(|step| (*purpose, step)));
        }
        if !decision.steps.is_empty() {
            return decision;
        }
    }
    decision.steps = missing(known, asked).map(|step| (Purpose::Missing, step)).collect();
    decision
}

/// Leases of one key that several lines ask for are no step at all: a key holds one, and only people can tell which.
fn apart(steps: Vec<Step>, verdicts: &mut BTreeMap<SandboxId, Verdict>) -> Vec<Step> {
    let mut by_key: BTreeMap<Option<LeaseKey>, Vec<Step>> = BTreeMap::new();
    for step in steps {
        by_key.entry(step.lease_key().cloned()).or_default().push(step);
    }
    let mut kept = Vec::new();
    for (key, mut steps) in by_key {
        if steps.len() == 1 {
            kept.append(&mut steps);
            continue;
        }
        let owner = key.map(|key| format!("{}/{}", key.track, key.key)).unwrap_or_default();
        let why = format!("{} lines say that {owner} has a sandbox, and a key holds one", steps.len());
        verdicts.extend(steps.iter().map(|step| (step.sandbox_id().clone(), Verdict::Conflict(why.clone()))));
    }
    kept
}

fn judge_line(
    known: &Known,
    asked: &Asked<'_>,
    line: &HandedOut,
    by_account: &HashMap<String, &SandboxId>,
) -> Result<(Purpose, Step), Verdict> {
    let id = &line.sandbox_id;
    let account = line.external_id.as_ref().map(|account| account.as_str().to_ascii_lowercase());
    if let Some(other) =
        account.as_ref().and_then(|account| by_account.get(account)).filter(|other| **other != id)
    {
        return Err(Verdict::Conflict(format!("the account of {id} is {other} in the table")));
    }
    let Some(sandbox) = known.sandboxes.get(id) else { return insert(asked, line) };
    let same = account.is_none_or(|account| account == sandbox.external_id.as_str().to_ascii_lowercase());
    if !same {
        return Err(Verdict::Conflict(format!(
            "{id} is another account in the table: {}",
            sandbox.external_id
        )));
    }
    match (sandbox.status, &sandbox.allocation) {
        (Status::Available | Status::Stale, None) => free(known, asked, line, sandbox),
        (Status::Allocated, Some(allocation)) => held(asked, line, sandbox, allocation),
        (Status::Deleted, _) => match (asked.sight)(id) {
            Sight::Listed { external_id, .. }
                if line.external_id.is_none() && external_id != sandbox.external_id =>
            {
                Err(Verdict::Conflict(format!(
                    "{id} was deleted, and is {external_id} at the provider now: say in its line which external_id was meant"
                )))
            }
            Sight::Listed { .. } | Sight::Absent | Sight::Unreadable | Sight::NotAsked => {
                Err(Verdict::AsItIs)
            }
        },
        // What is wrong with these is for the judge of the whole table to say.
        (Status::Allocated, None)
        | (Status::Available | Status::Stale, Some(_))
        | (Status::PendingDeletion | Status::DeletionFailed, _) => Err(Verdict::AsItIs),
    }
}

fn insert(asked: &Asked<'_>, line: &HandedOut) -> Result<(Purpose, Step), Verdict> {
    let id = &line.sandbox_id;
    let said = line.name.clone().zip(line.external_id.clone());
    let found = match ((asked.sight)(id), said) {
        (Sight::Listed { external_id, .. }, Some((_, said)))
            if !external_id.as_str().eq_ignore_ascii_case(said.as_str()) =>
        {
            return Err(Verdict::Conflict(format!(
                "{id} is {said} in its line and {external_id} at the provider"
            )));
        }
        (Sight::Listed { name, external_id }, _) => Some((name, external_id)),
        (Sight::Absent | Sight::NotAsked | Sight::Unreadable, Some(said)) => Some(said),
        (Sight::Absent, None) => return Err(Verdict::Unknown),
        (Sight::Unreadable | Sight::NotAsked, None) => None,
    };
    match found {
        Some((name, external_id)) => {
            Ok((Purpose::Insert, Step::Insert { sandbox_id: id.clone(), name, external_id }))
        }
        None => Err(Verdict::Unclear(format!(
            "{id} is not in the table, and what the provider lists cannot be read: set BROKER_PROVIDER_URL, or say name and external_id in its line"
        ))),
    }
}

fn free(
    known: &Known,
    asked: &Asked<'_>,
    line: &HandedOut,
    sandbox: &Sandbox,
) -> Result<(Purpose, Step), Verdict> {
    let Some(key) = line.key().filter(|_| !line.returned) else {
        return Ok((Purpose::GiveUp, give_up(asked, line, sandbox)));
    };
    let stands = known.leases.get(&key);
    if let Some(live) = stands.filter(|lease| lease.end.is_none()) {
        let (track, other) = (&key.track, &live.grant.sandbox_id);
        return Err(Verdict::Conflict(format!(
            "{track} has {other} in the table, and no line says that it was given back: a key holds one"
        )));
    }
    let minted = (asked.mint)();
    let (allocated_at, expires_at) = times(asked, line);
    let lease = Lease {
        key,
        request_id: minted.request_id,
        allocation_id: minted.allocation_id,
        fingerprint: Fingerprint::unknown(),
        grant: Grant {
            sandbox_id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            external_id: sandbox.external_id.clone(),
            track_name: line.track_name.clone(),
            allocated_at,
            expires_at,
        },
        end: None,
    };
    Ok((
        Purpose::Lease,
        Step::Bind {
            sandbox: sandbox.clone(),
            stands: stands.cloned().map(Box::new),
            lease: Box::new(lease),
        },
    ))
}

fn times(asked: &Asked<'_>, line: &HandedOut) -> (Timestamp, Timestamp) {
    let allocated_at = line.allocated_at.map_or(asked.now.floor_to_second(), Timestamp::from_secs);
    let expires_at = line.expires_at.map(Timestamp::from_secs);
    (allocated_at, expires_at.unwrap_or_else(|| asked.now.floor_to_second().plus(asked.lease)))
}

fn give_up(asked: &Asked<'_>, line: &HandedOut, sandbox: &Sandbox) -> Step {
    let nobody = || LeaseKey { key: IdempotencyKey::from(asked.nobody), track: asked.nobody.clone() };
    let now = asked.now.floor_to_second();
    let allocation = Allocation {
        id: (asked.mint)().allocation_id,
        lease_key: line.key().unwrap_or_else(nobody),
        track_name: line.track_name.clone(),
        allocated_at: line.allocated_at.map_or(now, Timestamp::from_secs),
        expires_at: line.expires_at.map_or(now, Timestamp::from_secs),
    };
    let end = LeaseEnd::by_broker(EndReason::Released, asked.now);
    Step::Retire { sandbox: sandbox.clone(), allocation, end }
}

fn held(
    asked: &Asked<'_>,
    line: &HandedOut,
    sandbox: &Sandbox,
    allocation: &Allocation,
) -> Result<(Purpose, Step), Verdict> {
    let end = || LeaseEnd::by_broker(EndReason::Released, asked.now);
    let step = || Step::End { sandbox: sandbox.clone(), allocation: allocation.clone(), end: end() };
    // An earlier program's claim for what nobody is known to have, which it did not come to end.
    let nobodys = allocation.lease_key.track == *asked.nobody;
    if nobodys || (line.returned && line.speaks_of(allocation)) {
        return Ok((Purpose::End, step()));
    }
    if line.speaks_of(allocation) {
        return Err(Verdict::AsItIs);
    }
    let (id, track) = (&line.sandbox_id, &allocation.lease_key.track);
    Err(Verdict::Conflict(format!("{id} is in the hands of {track} by another key than its line's")))
}

/// Available ones that no line names and the provider does not list.
fn missing<'a>(known: &'a Known, asked: &'a Asked<'_>) -> impl Iterator<Item = Step> + 'a {
    let unnamed = known.sandboxes.values().filter(|sandbox| {
        sandbox.status == Status::Available
            && sandbox.allocation.is_none()
            && !asked.lines.0.contains_key(&sandbox.id)
    });
    let absent = unnamed.filter(|sandbox| {
        (asked.sight)(&sandbox.id) == Sight::Absent && !(asked.is_there)(&sandbox.external_id)
    });
    absent.map(|sandbox| Step::Missing { sandbox: sandbox.clone() })
}
