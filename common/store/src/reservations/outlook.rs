//! Needs of flavours for reservations, by the time that a new sandbox takes: what is asked for early, and what will be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_domain::policy::{Flavour, Policy};
use broker_domain::refill::TICKET_LIFE;
use broker_domain::reservation::{Supply, at_risk};
use broker_domain::{FlavourName, Reservation, ReservationId, Status, Timestamp};

use crate::{Census, Store, StoreError};

/// From an arrival until it is offered, beside its gate; and between two runs of refill.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a new sandbox of a flavour takes: as measured, or as long as one may take at most; and its gate.
///
/// # Errors
///
/// When the table does not answer.
pub async fn ready_after(
    store: &Store,
    name: &FlavourName,
    flavour: &Flavour,
) -> Result<Duration, StoreError> {
    let gate = flavour.gate.as_ref().map_or(Duration::ZERO, |gate| gate.hook.timeout);
    Ok(store.refill.ready_after(name).await?.unwrap_or(TICKET_LIFE) + gate + MARGIN)
}

/// How many of a flavour are to be there soon beside those that are kept available, because they are reserved.
///
/// # Errors
///
/// When the table does not answer.
pub async fn wanted(
    store: &Store,
    name: &FlavourName,
    flavour: &Flavour,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let all = store.reservations.all().await?;
    if !all.iter().any(|one| one.missing(now) > 0) {
        return Ok(0);
    }
    let ready_after = ready_after(store, name, flavour).await?;
    let per_minute = flavour.refill.as_ref().map_or(1, |refill| refill.rate_per_minute);
    let wanted = all.iter().map(|one| one.wanted_now(&flavour.prefix, ready_after, per_minute, now));
    Ok(wanted.map(u64::from).sum())
}

/// How many of each reservation will be missing when it is needed, within half an hour or now.
///
/// # Errors
///
/// When the table does not answer.
pub async fn outlook(
    store: &Store,
    policy: &Policy,
    all: &[Reservation],
    now: Timestamp,
) -> Result<BTreeMap<ReservationId, u64>, StoreError> {
    let mut risks = BTreeMap::new();
    let missing = |one: &&Reservation| one.missing(now) > 0;
    if !all.iter().any(|one| missing(&one)) {
        return Ok(risks);
    }
    let census = store.census.believed(now).await?;
    for (name, flavour) in policy.flavours() {
        let is_of = |one: &&Reservation| one.terms.prefix.as_str().starts_with(flavour.prefix.as_str());
        let wanted: u64 =
            all.iter().filter(missing).filter(is_of).map(|one| u64::from(one.missing(now))).sum();
        if wanted > 0 {
            let supply = supply(store, (name, flavour), census.as_ref(), wanted, now).await?;
            risks.extend(at_risk(all, &flavour.prefix, &supply, now));
        }
    }
    for one in all.iter().filter(missing) {
        if policy.flavour_within(&one.terms.prefix).is_none() {
            let free = store.refill.available(&one.terms.prefix, u64::from(one.missing(now))).await?;
            risks.extend(at_risk([one], &one.terms.prefix, &Supply { free, ..Supply::default() }, now));
        }
    }
    Ok(risks)
}

async fn supply(
    store: &Store,
    (name, flavour): (&FlavourName, &Flavour),
    census: Option<&Census>,
    wanted: u64,
    now: Timestamp,
) -> Result<Supply, StoreError> {
    let counts = census.and_then(|census| census.by_flavour.get(name.as_str()));
    let arriving = counts.and_then(|counts| counts.get(&Status::Arriving)).copied().unwrap_or(0);
    let free = store.refill.available(&flavour.prefix, wanted).await? + arriving;
    let Some(refill) = &flavour.refill else { return Ok(Supply { free, ..Supply::default() }) };
    let ready_after = ready_after(store, name, flavour).await?;
    let flow = store.refill.readable_flow(name).await?;
    let tickets = store.refill.tickets(name).await?;
    let coming: Vec<_> = tickets
        .iter()
        .filter(|ticket| ticket.is_open() && !ticket.is_late(now))
        .map(|ticket| ticket.made_at.plus(ready_after).max(now))
        .collect();
    // No round begins from a flow that cannot be read.
    let is_held = flow.is_none_or(|flow| flow.is_held(now));
    let stands_still = refill.hook.is_none() || is_held;
    let live: u64 =
        counts.into_iter().flatten().filter(|(status, _)| **status != Status::Deleted).map(|(_, n)| n).sum();
    // One that is late is not counted on; it takes its room until a list says that nothing came.
    let open = tickets.iter().filter(|ticket| ticket.is_open()).count() as u64;
    let room = u64::from(refill.max).saturating_sub(live + open);
    let more = if stands_still { 0 } else { room };
    Ok(Supply { free, coming, more, ready_after, per_minute: refill.rate_per_minute })
}
