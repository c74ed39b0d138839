//! The judgement of permits: one is held if and only if its lease is live, by sandbox and lease alike.

use super::{Inventory, LeaseKey, Permit, Suspect, Violation};

pub(super) fn judge(inventory: &Inventory, found: &mut Vec<Suspect>) {
    if !inventory.permits_read {
        return;
    }
    for (permit, record) in &inventory.permits {
        let lease = inventory.leases.get(&record.lease_key);
        let holds = lease.is_some_and(|lease| {
            lease.live && lease.allocation_id == record.allocation_id && lease.permit.as_ref() == Some(permit)
        });
        if !holds {
            let (permit, key) = (permit.clone(), record.lease_key.clone());
            let violation = Violation::PermitWithoutLease { permit: permit.clone(), key: key.clone() };
            found.push(suspect(inventory, violation, permit, key));
        }
    }
    for (key, lease) in inventory.leases.iter().filter(|(_, lease)| lease.live) {
        let held = |permit: &Permit| {
            inventory.permits.get(permit).is_some_and(|record| record.allocation_id == lease.allocation_id)
        };
        let told = inventory
            .sandboxes
            .get(&lease.sandbox)
            .filter(|sandbox| sandbox.allocation.as_ref().is_some_and(|(id, _)| *id == lease.allocation_id));
        let sandbox_agrees = told.is_none_or(|sandbox| sandbox.permit == lease.permit);
        let permit = lease.permit.as_ref().or_else(|| told.and_then(|sandbox| sandbox.permit.as_ref()));
        let Some(permit) = permit else { continue };
        if !(sandbox_agrees && held(permit)) {
            let (permit, key) = (permit.clone(), key.clone());
            let violation = Violation::LeaseWithoutPermit { key: key.clone(), permit: permit.clone() };
            found.push(suspect(inventory, violation, permit, key));
        }
    }
}

fn suspect(inventory: &Inventory, violation: Violation, permit: Permit, key: LeaseKey) -> Suspect {
    let sandbox = inventory.leases.get(&key).map(|lease| lease.sandbox.clone());
    Suspect {
        violation,
        sandboxes: sandbox.into_iter().collect(),
        leases: vec![key],
        accounts: Vec::new(),
        permits: vec![permit],
    }
}
