//! What each flavour is short of and why, and an operator's pause: the same code for `broker refill` and `/v1/admin/refill`.

use broker_domain::policy::{Flavour, Policy, Refill};
use broker_domain::refill::{Counted, Flow, HookBreaker, Round};
use broker_domain::{FlavourName, Status, Timestamp};
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
        let flow = store.refill.flow(name).await?;
        let census = store.census.get().await?;
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
        let need = Round { refill, flow: &flow, tickets: &tickets, counted, reserved, now }.need();
        let next_call_at = flow.breaker.probe_at.max(flow.rests_until.filter(|until| now < *until));
        Ok(Self {
            flavour: name.to_string(),
            state: state(refill, &flow, live, now),
            desired: need.desired,
            available,
            arriving,
            tickets: tickets.iter().filter(|ticket| ticket.is_open()).count() as u64,
            missing: need.missing,
            max: refill.max,
            live,
            next_call_at: next_call_at.map(Timestamp::as_secs),
        })
    }
}

fn state(refill: &Refill, flow: &Flow, live: Option<u64>, now: Timestamp) -> &'static str {
    if flow.paused_at.is_some() {
        "paused"
    } else if flow.breaker.is_open() {
        "stopped"
    } else if refill.hook.is_none() {
        "signal"
    } else if live.is_none() {
        "not counted yet"
    } else if flow.rests_until.is_some_and(|until| now < until) {
        "slowed"
    } else {
        "running"
    }
}

/// Pauses a flavour's refill, or resumes it, also after its hook failed so often that it is not called.
///
/// # Errors
///
/// When the table does not answer.
pub async fn pause_refill(
    store: &Store,
    name: &FlavourName,
    paused: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    loop {
        let flow = store.refill.flow(name).await?;
        let version = flow.version + 1;
        let after = if paused {
            Flow { version, paused_at: flow.paused_at.or(Some(now)), ..flow }
        } else {
            Flow { version, paused_at: None, rests_until: None, breaker: HookBreaker::default(), ..flow }
        };
        match store.refill.write_flow(name, &after).await {
            Ok(Write::Applied) => return Ok(()),
            // A round wrote it meanwhile.
            Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
}
