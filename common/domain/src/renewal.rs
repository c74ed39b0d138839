//! The renewal of a lease by its owner: how far its end moves, and whether that is worth a write.
//!
//! Invariants: an end never moves back, and never further than the longest lease from the allocation. The store's condition
//! lets it through while the lease is live, also in its grace, so a renewal and an expiry at the same moment have one winner.

use std::time::Duration;

use super::{Allocation, EndReason, LabDuration, Sandbox, Status, Term, Timestamp, TrackId};

/// A renewal by less is answered without a write.
const NOT_WORTH_A_WRITE: Duration = Duration::from_secs(60);

/// Until when a lease is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewUntil {
    /// For as long again as it was asked for at first, from now; one with a heartbeat for three.
    Again,
    /// For so long from now.
    For(LabDuration),
    /// Until then.
    Until(Timestamp),
}

/// An owner's request to renew a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewRequest {
    /// Until when.
    pub until: RenewUntil,
    /// Whether any other end is of no use.
    pub exact: bool,
}

/// The bounds of every lease: they are settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseBounds {
    /// The longest that a lease may last from its allocation.
    pub longest: Duration,
    /// How long one lasts that does not say.
    pub usual: LabDuration,
}

/// What a renewal comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When the lease ends now.
    pub expires_at: Timestamp,
    /// The latest end that it can be given.
    pub latest: Timestamp,
    /// Whether its end moves far enough to be written.
    pub moves: bool,
}

/// Why a lease cannot be renewed exactly as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRenewable {
    /// The end that is nearest to the wanted one.
    pub nearest: Timestamp,
    /// The latest end that it can be given.
    pub latest: Timestamp,
}

/// What an owner may renew of the sandbox that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewVerdict<'s> {
    /// The lease is live.
    Live(&'s Allocation),
    /// It was the owner's, and ended; so.
    Ended(Option<EndReason>),
    /// The sandbox is not this owner's.
    NotOwner,
    /// Its state is a newer program's.
    Newer,
}

/// The verdict on `sandbox` for a renewal by `track`.
pub fn judge_renewal<'s>(sandbox: &'s Sandbox, track: &TrackId) -> RenewVerdict<'s> {
    let Some(allocation) = sandbox.allocation.as_ref().filter(|a| a.lease_key.track == *track) else {
        return RenewVerdict::NotOwner;
    };
    match sandbox.status {
        Status::Allocated => RenewVerdict::Live(allocation),
        Status::Quarantined | Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => {
            RenewVerdict::Ended(sandbox.end_reason)
        }
        Status::Arriving | Status::Available | Status::Reserved | Status::Stale => RenewVerdict::NotOwner,
        Status::Unknown => RenewVerdict::Newer,
    }
}

/// What `wanted` makes of the end of `allocation` at `now`.
pub fn renew(
    allocation: &Allocation,
    term: Term,
    wanted: &RenewRequest,
    bounds: &LeaseBounds,
    now: Timestamp,
) -> Result<Renewal, NotRenewable> {
    let (old, now) = (allocation.expires_at, now.floor_to_second());
    let (until, worth) = match (wanted.until, term.heartbeat) {
        (RenewUntil::Again, Some(beat)) => (now.plus(beat.lease()), beat.as_duration()),
        (RenewUntil::Again, None) => {
            (now.plus(term.hours.unwrap_or(bounds.usual).as_duration()), NOT_WORTH_A_WRITE)
        }
        (RenewUntil::For(hours), _) => (now.plus(hours.as_duration()), NOT_WORTH_A_WRITE),
        (RenewUntil::Until(until), _) => (until.floor_to_second(), NOT_WORTH_A_WRITE),
    };
    // An owner that said for how many hours at most it beats is held to it. A message has no more hours than the longest: those are
    // also what one has that said none.
    let is_said = |hours: &LabDuration| wanted.until == RenewUntil::Again && *hours < LabDuration::LONGEST;
    let said = term.heartbeat.and(term.hours).filter(is_said);
    let longest = said.map_or(bounds.longest, |hours| hours.as_duration().min(bounds.longest));
    // An operator may have given it longer than an owner can.
    let latest = allocation.allocated_at.plus(longest).max(old);
    let expires_at = until.clamp(old, latest);
    if wanted.exact && expires_at != until {
        return Err(NotRenewable { nearest: expires_at, latest });
    }
    let moved = expires_at.since(old);
    let moves = if wanted.exact { !moved.is_zero() } else { moved >= worth };
    Ok(Renewal { expires_at: if moves { expires_at } else { old }, latest, moves })
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
