//! The judgement of one line of what was handed out: the step that it asks for, or a verdict when it asks for none.

use std::collections::HashMap;

use super::{Asked, HandedOut, Known, LineVerdict, Purpose, Sight, Step};
use crate::{
    AccountKey, Allocation, EndReason, Fingerprint, Grant, IdempotencyKey, Lease, LeaseEnd, LeaseKey,
    Sandbox, SandboxId, Status, Term, Timestamp,
};

pub(super) fn judge_line(
    known: &Known,
    asked: &Asked<'_>,
    line: &HandedOut,
    by_account: &HashMap<AccountKey, &SandboxId>,
) -> Result<(Purpose, Step), LineVerdict> {
    let id = &line.sandbox_id;
    let account = line.external_id.as_ref().map(AccountKey::of);
    if let Some(other) =
        account.as_ref().and_then(|account| by_account.get(account)).filter(|other| **other != id)
    {
        return Err(LineVerdict::Conflict(format!("the account of {id} is {other} in the table")));
    }
    let Some(sandbox) = known.sandboxes.get(id) else { return insert(asked, line) };
    let same = account.is_none_or(|account| account == AccountKey::of(&sandbox.external_id));
    if !same {
        return Err(LineVerdict::Conflict(format!(
            "{id} is another account in the table: {}",
            sandbox.external_id
        )));
    }
    match (sandbox.status, &sandbox.allocation) {
        (
            Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Quarantined,
            None,
        ) => free(known, asked, line, sandbox),
        (Status::Allocated, Some(allocation)) => held(asked, line, sandbox, allocation),
        (Status::Deleted, _) => match (asked.sight)(id) {
            Sight::Listed { external_id, .. }
                if line.external_id.is_none()
                    && AccountKey::of(&external_id) != AccountKey::of(&sandbox.external_id) =>
            {
                Err(LineVerdict::Conflict(format!(
                    "{id} was deleted, and is {external_id} at the provider now: say in its line which external_id was meant"
                )))
            }
            Sight::Listed { .. }
            | Sight::Absent
            | Sight::NotBelieved { .. }
            | Sight::Unreadable
            | Sight::NotAsked => Err(LineVerdict::AsItIs),
        },
        (Status::Unknown, _) => Err(LineVerdict::Conflict(format!(
            "{id} is in a state of a newer program: reconcile with that one"
        ))),
        // What is wrong with these is for the judge of the whole table to say.
        (Status::Allocated, None)
        | (
            Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Quarantined,
            Some(_),
        )
        | (Status::PendingDeletion | Status::DeletionFailed, _) => Err(LineVerdict::AsItIs),
    }
}

fn insert(asked: &Asked<'_>, line: &HandedOut) -> Result<(Purpose, Step), LineVerdict> {
    let id = &line.sandbox_id;
    let said = line.name.clone().zip(line.external_id.clone());
    let unclear = |why: &str| Err(LineVerdict::Unclear(format!("{id} is not in the table, and {why}")));
    let (name, external_id) = match ((asked.sight)(id), said) {
        (Sight::Listed { external_id, .. }, Some((_, said)))
            if AccountKey::of(&external_id) != AccountKey::of(&said) =>
        {
            return Err(LineVerdict::Conflict(format!(
                "{id} is {said} in its line and {external_id} at the provider"
            )));
        }
        (Sight::Listed { name, external_id }, _) => (name, external_id),
        (Sight::Absent | Sight::NotBelieved { .. } | Sight::NotAsked | Sight::Unreadable, Some(said)) => said,
        (Sight::Absent, None) => return Err(LineVerdict::Unknown),
        (Sight::NotBelieved { others }, None) => {
            return unclear(&format!(
                "the provider does not list it, but misses {others} others: not believed; say name and external_id in its line"
            ));
        }
        (Sight::Unreadable | Sight::NotAsked, None) => {
            return unclear(
                "what the provider lists cannot be read: set BROKER_PROVIDER_URL, or say name and external_id in its line",
            );
        }
    };
    Ok((Purpose::Insert, Step::Insert { sandbox_id: id.clone(), name, external_id }))
}

fn free(
    known: &Known,
    asked: &Asked<'_>,
    line: &HandedOut,
    sandbox: &Sandbox,
) -> Result<(Purpose, Step), LineVerdict> {
    let Some(key) = line.key().filter(|_| !line.returned) else {
        return Ok((Purpose::GiveUp, give_up(asked, line, sandbox)));
    };
    let stands = known.leases.get(&key);
    if let Some(live) = stands.filter(|lease| lease.end.is_none()) {
        let (track, other) = (&key.track, &live.grant.sandbox_id);
        return Err(LineVerdict::Conflict(format!(
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
            attributes: sandbox.attributes.clone(),
        },
        term: Term::default(),
        tenant: None,
        permit: None,
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
    let unknown_owner =
        || LeaseKey { key: IdempotencyKey::from(asked.unknown_owner), track: asked.unknown_owner.clone() };
    let now = asked.now.floor_to_second();
    let allocation = Allocation {
        id: (asked.mint)().allocation_id,
        lease_key: line.key().unwrap_or_else(unknown_owner),
        track_name: line.track_name.clone(),
        allocated_at: line.allocated_at.map_or(now, Timestamp::from_secs),
        expires_at: line.expires_at.map_or(now, Timestamp::from_secs),
        permit: None,
    };
    let end = LeaseEnd::by_broker(EndReason::Released, asked.now, allocation.expires_at);
    Step::Retire { sandbox: sandbox.clone(), allocation, end }
}

fn held(
    asked: &Asked<'_>,
    line: &HandedOut,
    sandbox: &Sandbox,
    allocation: &Allocation,
) -> Result<(Purpose, Step), LineVerdict> {
    let end = || LeaseEnd::by_broker(EndReason::Released, asked.now, allocation.expires_at);
    let step = || Step::End { sandbox: sandbox.clone(), allocation: allocation.clone(), end: end() };
    // An earlier run's claim for an unknown owner, which it did not come to end.
    let of_unknown_owner = allocation.lease_key.track == *asked.unknown_owner;
    if of_unknown_owner || (line.returned && line.speaks_of(allocation)) {
        return Ok((Purpose::End, step()));
    }
    if line.speaks_of(allocation) {
        return Err(LineVerdict::AsItIs);
    }
    let (id, track) = (&line.sandbox_id, &allocation.lease_key.track);
    Err(LineVerdict::Conflict(format!("{id} is in the hands of {track} by another key than its line's")))
}
