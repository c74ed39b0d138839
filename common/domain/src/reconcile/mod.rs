//! Reconciliation of a restored table, from the lines of what was handed out and the provider's list.
//!
//! [`decide`] returns the next steps, in five stages, each only when the one before has nothing left: halves of
//! transactions are mended, returns end their leases, missing sandboxes are inserted, the rest is leased to its owner
//! or given up, and sandboxes that the provider does not list any more become stale. The dry run applies the steps to what was read
//! ([`Known::apply`]); `--apply` writes them. Both call this function until it returns no step. A list that misses more than
//! sync believes says of no sandbox that it is gone.
//!
//! Invariants: pure; the order of the lines has no effect; a run that ended after any step is continued by the next; no
//! step offers a sandbox; a contradiction, or a lease that is still live, is a conflict that an operator has to solve.

mod judge;
mod known;
mod lines;
mod mend;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::{
    AccountKey, AllocationId, ExternalId, LeaseKey, RequestId, Sandbox, SandboxId, SandboxName, Status,
    Timestamp, TrackId, most_missing,
};

pub use known::Known;
pub use lines::{HandedOut, Lines};
pub use step::Step;

use judge::judge_line;

/// What the provider says of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// There is no provider to ask.
    NotAsked,
    /// Its whole list does not have it.
    Absent,
    /// The same, but so many others are missing from the list that it is not believed.
    NotBelieved {
        /// How many others.
        others: u64,
    },
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

/// The provider's list, if there is a provider. Absent is what neither of two names ([`Listing::after`]).
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
    /// The same after an earlier list: what only that one names is there, in a form that is not known.
    pub fn after(mut self, earlier: Self) -> Self {
        let seen = earlier.accounts.into_keys().chain(earlier.unreadable);
        self.unreadable.extend(seen.filter(|id| !self.accounts.contains_key(id)));
        self.there.extend(earlier.there);
        self
    }

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
    /// A line says that it was used, and it must not be handed out.
    GiveUp,
    /// The provider does not list it.
    Missing,
}

/// What a line asks for when no step is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineVerdict {
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
    /// The claim's request id, for the lease. No request has it.
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
    /// The track of a lease whose owner is not known.
    pub unknown_owner: &'a TrackId,
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
    pub verdicts: BTreeMap<SandboxId, LineVerdict>,
    /// How many the provider does not list, if they are too many to be believed.
    pub missing_not_believed: u64,
}

/// What is to be done next with what is known.
pub fn decide(known: &Known, asked: &Asked<'_>) -> Decision {
    let missing_not_believed = missing_not_believed(known, asked);
    let doubted = |id: &SandboxId| {
        let sight = (asked.sight)(id);
        let is_doubted = missing_not_believed > 0 && sight == Sight::Absent;
        if is_doubted { Sight::NotBelieved { others: missing_not_believed } } else { sight }
    };
    let asked = &Asked { sight: &doubted, ..*asked };
    let steps = mend::mends(known, asked);
    let mut decision = Decision { steps, missing_not_believed, ..Decision::default() };
    if !decision.steps.is_empty() {
        return decision;
    }
    let by_account: HashMap<AccountKey, &SandboxId> =
        known.sandboxes.values().map(|s| (AccountKey::of(&s.external_id), &s.id)).collect();
    let mut wanted: BTreeMap<Purpose, Vec<Step>> = BTreeMap::new();
    for (id, line) in &asked.lines.0 {
        let judged = match line {
            Ok(line) => judge_line(known, asked, line, &by_account),
            Err(contradiction) => Err(LineVerdict::Conflict(contradiction.clone())),
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
fn apart(steps: Vec<Step>, verdicts: &mut BTreeMap<SandboxId, LineVerdict>) -> Vec<Step> {
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
        verdicts
            .extend(steps.iter().map(|step| (step.sandbox_id().clone(), LineVerdict::Conflict(why.clone()))));
    }
    kept
}

/// What is offered, or is to be, that no line names.
fn unnamed<'a>(known: &'a Known, asked: &'a Asked<'_>) -> impl Iterator<Item = &'a Sandbox> {
    known.sandboxes.values().filter(|sandbox| {
        matches!(sandbox.status, Status::Arriving | Status::Available | Status::Reserved)
            && sandbox.allocation.is_none()
            && !asked.lines.0.contains_key(&sandbox.id)
    })
}

/// Of these, what the provider does not list.
fn missing<'a>(known: &'a Known, asked: &'a Asked<'_>) -> impl Iterator<Item = Step> {
    let absent = unnamed(known, asked).filter(|sandbox| {
        (asked.sight)(&sandbox.id) == Sight::Absent && !(asked.is_there)(&sandbox.external_id)
    });
    absent.map(|sandbox| Step::Missing { sandbox: sandbox.clone() })
}

/// How many these are, if they are more than sync believes.
fn missing_not_believed(known: &Known, asked: &Asked<'_>) -> u64 {
    let missing = missing(known, asked).count() as u64;
    if missing > most_missing(unnamed(known, asked).count() as u64) { missing } else { 0 }
}
