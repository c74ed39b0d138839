//! Mending halves of transactions: AWS says that a backup or an export taken during one may hold a part of it.
//!
//! A suspect ([`suspects`]) is mended where the other half follows from the protocol: a
//! sandbox is handed out once, and a key's lease is replaced only after its end, so of two claims of one key the later
//! stands. Invariant: a sandbox is given only to the track that claimed it, and none is offered. What it does not do:
//! mend what is not half a transaction; that stays a suspect, and keeps the pool closed.

use super::known::allocation_of;
use super::{Asked, Known, Purpose, Step};
use crate::{
    AccountKey, Allocation, EndReason, Fingerprint, Grant, Lease, LeaseEnd, Sandbox, SandboxId, Status, Term,
    Violation, suspects,
};

/// The steps that mend what can be, each about a sandbox and a key of its own.
pub(super) fn mends(known: &Known, asked: &Asked<'_>) -> Vec<(Purpose, Step)> {
    let mut violations: Vec<_> =
        suspects(&known.inventory()).into_iter().map(|found| found.violation).collect();
    violations.sort_by_cached_key(ToString::to_string);
    let mut steps: Vec<Step> = Vec::new();
    for step in violations.iter().filter_map(|violation| mend(known, asked, violation)) {
        // Two violations may be one half; what is in the way of another is for the next round.
        let is_met = |met: &Step| {
            met.sandbox_id() == step.sandbox_id()
                || met.lease_key().is_some() && met.lease_key() == step.lease_key()
        };
        if !steps.iter().any(is_met) {
            steps.push(step);
        }
    }
    steps.into_iter().map(|step| (Purpose::Mend, step)).collect()
}

fn mend(known: &Known, asked: &Asked<'_>, violation: &Violation) -> Option<Step> {
    match violation {
        Violation::LeaseWithoutSandbox { key, .. } => dangling(known, asked, known.live(key)?),
        Violation::AllocatedWithoutLease { sandbox } => {
            let sandbox = known.sandboxes.get(sandbox)?;
            alone(known, asked, sandbox, sandbox.allocation.as_ref()?)
        }
        Violation::Reoffered { sandbox } => used(known, known.sandboxes.get(sandbox)?),
        // Each half of these is one of those above.
        Violation::OwnedTwice { .. } | Violation::KeyHoldsSeveral { .. } => None,
        // The accounts' records are mended before, and two sandboxes of one account are for people.
        Violation::AccountTwice { .. }
        | Violation::AccountUnrecorded { .. }
        | Violation::AccountElsewhere { .. }
        | Violation::AccountDangling { .. }
        | Violation::LeaseTellsAnother { .. }
        // Permits are mended apart.
        | Violation::PermitWithoutLease { .. }
        | Violation::LeaseWithoutPermit { .. } => None,
    }
}

/// A live lease whose sandbox is not allocated by it.
fn dangling(known: &Known, asked: &Asked<'_>, lease: &Lease) -> Option<Step> {
    let Some(sandbox) = known.sandboxes.get(&lease.grant.sandbox_id) else {
        let Grant { sandbox_id, name, external_id, .. } = lease.grant.clone();
        return Some(Step::Insert { sandbox_id, name, external_id });
    };
    match (sandbox.status, &sandbox.allocation) {
        // The claim's other half, if it is the same resource still.
        (
            Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Quarantined,
            None,
        ) if is_of(lease, sandbox) && owners(known, sandbox) == 1 => {
            let (sandbox, lease) = (sandbox.clone(), Box::new(lease.clone()));
            Some(Step::Bind { sandbox, stands: Some(lease.clone()), lease })
        }
        // The end's other half.
        (
            Status::Quarantined | Status::PendingDeletion | Status::DeletionFailed | Status::Deleted,
            Some(allocation),
        ) if allocation.id == lease.allocation_id => {
            let at = sandbox.deletion_requested_at.unwrap_or(asked.now);
            let reason = sandbox.end_reason.filter(|reason| *reason != EndReason::Unknown);
            let end = LeaseEnd::by_broker(reason.unwrap_or(EndReason::Released), at, lease.grant.expires_at);
            Some(Step::EndLease { lease: lease.clone(), end })
        }
        (
            Status::Arriving
            | Status::Available
            | Status::Reserved
            | Status::Stale
            | Status::Allocated
            | Status::Quarantined
            | Status::PendingDeletion
            | Status::DeletionFailed
            | Status::Deleted
            | Status::Unknown,
            _,
        ) => None,
    }
}

/// An allocated sandbox without its live lease.
fn alone(known: &Known, asked: &Asked<'_>, sandbox: &Sandbox, allocation: &Allocation) -> Option<Step> {
    let retire =
        |end: LeaseEnd| Some(Step::Retire { sandbox: sandbox.clone(), allocation: allocation.clone(), end });
    let now = || LeaseEnd::by_broker(EndReason::Released, asked.now, allocation.expires_at);
    let Some(lease) = known.leases.get(&allocation.lease_key) else {
        return Some(bind(asked, sandbox, allocation, None));
    };
    let later = lease.grant.allocated_at.as_secs().cmp(&allocation.allocated_at.as_secs());
    match (&lease.end, later) {
        // The end's other half.
        (Some(end), _) if lease.allocation_id == allocation.id => retire(end.clone()),
        // The key claimed again since, which it could only after the end of this one.
        (Some(_) | None, std::cmp::Ordering::Greater) => retire(now()),
        // The claim's other half; the lease that it replaced is the one that was copied.
        (Some(_), _) => Some(bind(asked, sandbox, allocation, Some(lease))),
        (None, std::cmp::Ordering::Less) => Some(overtaken(known, asked, lease)),
        (None, std::cmp::Ordering::Equal) => None,
    }
}

/// A live lease whose key claimed another sandbox later: it had ended by then.
fn overtaken(known: &Known, asked: &Asked<'_>, lease: &Lease) -> Step {
    let end = LeaseEnd::by_broker(EndReason::Released, asked.now, lease.grant.expires_at);
    let held = known.sandboxes.get(&lease.grant.sandbox_id).filter(|sandbox| {
        let by = sandbox.allocation.as_ref().map(|allocation| allocation.id);
        sandbox.status == Status::Allocated && by == Some(lease.allocation_id)
    });
    match held {
        Some(sandbox) => Step::End { sandbox: sandbox.clone(), allocation: allocation_of(lease), end },
        None => Step::EndLease { lease: lease.clone(), end },
    }
}

fn bind(asked: &Asked<'_>, sandbox: &Sandbox, allocation: &Allocation, stands: Option<&Lease>) -> Step {
    let lease = Lease {
        key: allocation.lease_key.clone(),
        request_id: (asked.mint)().request_id,
        allocation_id: allocation.id,
        fingerprint: Fingerprint::unknown(),
        grant: Grant {
            sandbox_id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            external_id: sandbox.external_id.clone(),
            track_name: allocation.track_name.clone(),
            allocated_at: allocation.allocated_at,
            expires_at: allocation.expires_at,
            attributes: sandbox.attributes.clone(),
        },
        term: Term { hours: None, heartbeat: sandbox.term.heartbeat },
        tenant: None,
        permit: allocation.permit.clone(),
        end: None,
    };
    Step::Bind { sandbox: sandbox.clone(), stands: stands.cloned().map(Box::new), lease: Box::new(lease) }
}

/// A sandbox that is offered as it was before the claim whose lease has ended since.
fn used(known: &Known, sandbox: &Sandbox) -> Option<Step> {
    let is_offered = sandbox.status.is_unused() && sandbox.allocation.is_none();
    let ended = leases_of(known, &sandbox.id).find(|lease| lease.end.is_some() && is_of(lease, sandbox));
    let lease = ended.filter(|_| is_offered && owners(known, sandbox) == 0)?;
    Some(Step::Retire { sandbox: sandbox.clone(), allocation: allocation_of(lease), end: lease.end.clone()? })
}

fn is_of(lease: &Lease, sandbox: &Sandbox) -> bool {
    AccountKey::of(&lease.grant.external_id) == AccountKey::of(&sandbox.external_id)
}

fn owners(known: &Known, sandbox: &Sandbox) -> usize {
    leases_of(known, &sandbox.id).filter(|lease| lease.end.is_none()).count()
}

fn leases_of<'a>(known: &'a Known, id: &SandboxId) -> impl Iterator<Item = &'a Lease> {
    let (id, leases) = (id.clone(), known.leases.values());
    leases.filter(move |lease| lease.grant.sandbox_id == id)
}
