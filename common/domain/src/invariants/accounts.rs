//! The judgement of accounts: each is one sandbox's, its record says whose, and a lease names its sandbox's.

use std::collections::HashMap;

use super::{
    AccountKey, AllocationId, Inventory, SandboxFact, SandboxId, Status, Suspect, Violation,
    offered as is_offered,
};

pub(super) fn judge(inventory: &Inventory, found: &mut Vec<Suspect>) {
    let mut sandboxes: HashMap<AccountKey, Vec<SandboxId>> = HashMap::new();
    for (id, sandbox) in &inventory.sandboxes {
        sandboxes.entry(AccountKey::of(&sandbox.external_id)).or_default().push(id.clone());
    }
    for (account, ids) in &mut sandboxes {
        ids.sort();
        if ids.len() > 1 {
            let violation = Violation::AccountTwice { account: account.clone(), sandboxes: ids.clone() };
            found.push(suspect(violation, ids.clone(), account));
        }
        for id in ids {
            judge_record(inventory, account, id, found);
        }
    }
    for (account, record) in &inventory.accounts {
        let has_it = |ids: &Vec<SandboxId>| ids.contains(&record.holder);
        if !record.retired && !sandboxes.get(account).is_some_and(has_it) {
            let holder = record.holder.clone();
            let violation = Violation::AccountDangling { account: account.clone(), holder: holder.clone() };
            found.push(suspect(violation, vec![holder], account));
        }
    }
    judge_leases(inventory, found);
}

/// What the record of the account that `id` is says of it.
fn judge_record(inventory: &Inventory, account: &AccountKey, id: &SandboxId, found: &mut Vec<Suspect>) {
    let violation = match inventory.accounts.get(account) {
        None if inventory.accounts_recorded => Violation::AccountUnrecorded { sandbox: id.clone() },
        Some(record) if record.retired || record.holder != *id => {
            Violation::AccountElsewhere { sandbox: id.clone(), holder: record.holder.clone() }
        }
        None | Some(_) => return,
    };
    found.push(suspect(violation, vec![id.clone()], account));
}

fn judge_leases(inventory: &Inventory, found: &mut Vec<Suspect>) {
    for (key, lease) in inventory.leases.iter().filter(|(_, lease)| lease.live) {
        let sandbox = inventory.sandboxes.get(&lease.sandbox);
        let tells_another =
            |s: &SandboxFact| AccountKey::of(&s.external_id) != AccountKey::of(&lease.external_id);
        if sandbox.is_some_and(|s| s.status == Status::Allocated && tells_another(s)) {
            found.push(Suspect {
                violation: Violation::LeaseTellsAnother { key: key.clone(), sandbox: lease.sandbox.clone() },
                sandboxes: vec![lease.sandbox.clone()],
                leases: vec![key.clone()],
                accounts: Vec::new(),
                permits: Vec::new(),
            });
        }
    }
}

fn suspect(violation: Violation, sandboxes: Vec<SandboxId>, account: &AccountKey) -> Suspect {
    Suspect { violation, sandboxes, leases: Vec::new(), accounts: vec![account.clone()], permits: Vec::new() }
}

/// The available and the allocated sandboxes, by account, with their allocation ids.
pub(super) fn offered(inventory: &Inventory) -> HashMap<AccountKey, Vec<(&SandboxId, Option<AllocationId>)>> {
    let mut offered: HashMap<_, Vec<_>> = HashMap::new();
    for (id, sandbox) in inventory.sandboxes.iter().filter(|(_, sandbox)| is_offered(sandbox.status)) {
        let allocation = sandbox.allocation.as_ref().map(|(allocation, _)| *allocation);
        offered.entry(AccountKey::of(&sandbox.external_id)).or_default().push((id, allocation));
    }
    offered
}
