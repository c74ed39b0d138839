//! Status of refill, for each flavour how many sandboxes are missing and why, and its pause: the same code for `broker refill` and
//! `/v1/admin/refill`.

use broker_domain::policy::{Flavour, Policy, Refill};
use broker_domain::refill::{Counted, Flow, HookBreaker, Round};
use broker_domain::{FlavourName, Pause, Status, Timestamp};
use serde::Serialize;

use crate::{Store, StoreError, Write, reservations};

/// One flavour that the policy refills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefillStatus {
    /// Its name.
    pub flavour: String,
    /// `running`, `stopped`, `slowed`, `paused`, `signal` or `not counted yet`.
    pub state: &'static str,
    /// How many are to be available now.
    pub desired: u64,
    /// How many are, by the census.
    pub available: u64,
    /// How many are arriving.
    pub arriving: u64,
    /// Open tickets.
    pub tickets: u64,
    /// How many must be asked for yet.
    pub missing: u64,
    /// How many there may be.
    pub max: u32,
    /// How many there are in whatever state, by the census; null if it is older than the flavour.
    pub live: Option<u64>,
    /// When the next call is made, in seconds since the epoch; null if nothing holds it up.
    pub next_call_at: Option<u64>,
    /// Since when it is paused, in seconds since the epoch; null if it is not.
    pub paused_at: Option<u64>,
    /// Who paused it.
    pub paused_by: Option<String>,
}

impl RefillStatus {
    /// Every flavour that `policy` refills.
    ///
    /// # Errors
    ///
    /// When the table does not answer.
    pub async fn all(store: &Store, policy: &Policy, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let mut found = Vec::new();
        for (name, flavour) in policy.flavours() {
            if let Some(refill) = &flavour.refill {
                found.push(Self::of(store, name, (flavour, refill), now).await?);
            }
        }
        Ok(found)
    }

    /// One flavour.
    ///
    /// # Errors
    ///
    /// When the table does not answer.
    pub async fn of(
        store: &Store,
        name: &FlavourName,
        (flavour, refill): (&Flavour, &Refill),
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let read = store.refill.readable_flow(name).await?;
        let is_readable = read.is_some();
        let flow = read.unwrap_or_default();
        let census = store.census.believed(now).await?;
        let counts = census.as_ref().and_then(|census| census.by_flavour.get(name.as_str()));
        let live = counts.map(|counts| {
            let live = counts.iter().filter(|(status, _)| **status != Status::Deleted);
            live.map(|(_, count)| count).sum::<u64>()
        });
        let tickets = store.refill.tickets(name).await?;
        let count = |status| counts.and_then(|counts| counts.get(&status)).copied().unwrap_or_default();
        let (available, arriving) = (count(Status::Available), count(Status::Arriving));
        let as_of = census.as_ref().map_or(Timestamp::from_ms(0), |census| census.as_of);
        let counted = Counted { available, arriving, live: live.unwrap_or_default(), as_of };
        let reserved = reservations::wanted(store, name, flavour, now).await?;
        let need =
            Round { refill, flow: &flow, tickets: &tickets, counted, reserved, listed: None, now }.need();
        let next_call_at = flow.next_try(now).max(flow.rests(now));
        Ok(Self {
            flavour: name.to_string(),
            state: if is_readable { state(refill, &flow, live, now) } else { "stopped" },
            desired: need.desired,
            available,
            arriving,
            tickets: tickets.iter().filter(|ticket| ticket.is_open()).count() as u64,
            missing: need.missing,
            max: refill.max,
            live,
            next_call_at: next_call_at.map(Timestamp::as_secs),
            paused_at: flow.paused.as_ref().map(|pause| pause.since.as_secs()),
            paused_by: flow.paused.and_then(|pause| pause.by),
        })
    }
}

/// That new sandboxes of a flavour are not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefillHeld {
    /// The flavour.
    pub flavour: FlavourName,
    /// Who paused it; `None` if its hook does not answer, nothing arrives that it has had made, or its flow cannot be read.
    pub paused: Option<Pause>,
    /// When the hook is tried next, if it does not answer.
    pub next_try_at: Option<Timestamp>,
}

impl RefillHeld {
    /// Those of the flavours that `policy` refills, of which new sandboxes are not asked for: all are read at once, a hundred in
    /// a call, and a policy has no more.
    ///
    /// # Errors
    ///
    /// When the table does not answer.
    pub async fn all(store: &Store, policy: &Policy, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let refilled = policy.flavours().iter().filter(|(_, flavour)| flavour.refill.is_some());
        let names: Vec<_> = refilled.map(|(name, _)| name.clone()).collect();
        let mut held = Vec::new();
        for (flavour, flow) in store.refill.flows(&names).await? {
            if flow.as_ref().is_none_or(|flow| flow.is_held(now)) {
                let next_try_at = flow.as_ref().and_then(|flow| flow.next_try(now));
                held.push(Self { flavour, next_try_at, paused: flow.and_then(|flow| flow.paused) });
            }
        }
        Ok(held)
    }
}

fn state(refill: &Refill, flow: &Flow, live: Option<u64>, now: Timestamp) -> &'static str {
    if flow.paused.is_some() {
        "paused"
    } else if flow.is_stopped(now) {
        "stopped"
    } else if refill.hook.is_none() {
        "signal"
    } else if live.is_none() {
        "not counted yet"
    } else if flow.rests(now).is_some() {
        "slowed"
    } else {
        "running"
    }
}

/// Pauses a flavour's refill for `by`, at `now`; one that is paused stays so for whom it is, who is told.
///
/// # Errors
///
/// When the table does not answer.
pub async fn pause_refill(
    store: &Store,
    name: &FlavourName,
    by: &str,
    now: Timestamp,
) -> Result<Write<Pause>, StoreError> {
    loop {
        let flow = store.refill.flow(name).await?;
        if let Some(pause) = flow.paused {
            let is_applied = pause.is_of(by, now);
            return Ok(if is_applied { Write::Applied } else { Write::Rejected(pause) });
        }
        let after = Flow { version: flow.version + 1, paused: Some(Pause::new(by, now)), ..flow };
        if wrote(store, name, &after).await? {
            return Ok(Write::Applied);
        }
    }
}

/// Resumes a flavour's refill, also after its hook failed so often that it is not called; one that nothing holds up stays as it is.
///
/// # Errors
///
/// When the table does not answer.
pub async fn resume_refill(store: &Store, name: &FlavourName) -> Result<Write, StoreError> {
    loop {
        let flow = store.refill.flow(name).await?;
        if flow.paused.is_none() && flow.rests_until.is_none() && flow.breaker == HookBreaker::default() {
            return Ok(Write::Rejected(()));
        }
        let version = flow.version + 1;
        let after =
            Flow { version, paused: None, rests_until: None, breaker: HookBreaker::default(), ..flow };
        if wrote(store, name, &after).await? {
            return Ok(Write::Applied);
        }
    }
}

/// Whether it was written: a round may have been faster.
async fn wrote(store: &Store, name: &FlavourName, flow: &Flow) -> Result<bool, StoreError> {
    match store.refill.write_flow(name, flow).await {
        Ok(write) => Ok(write.is_applied()),
        Err(StoreError::Conflict) => Ok(false),
        Err(error) => Err(error),
    }
}
