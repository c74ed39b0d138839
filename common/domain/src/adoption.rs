//! Adoption plan for a pool that another tool kept: what each of its sandboxes becomes.
//!
//! Invariants: a key gets at most one lease, and none beside a live one; a sandbox with any trace of an owner never
//! enters the pool; every sandbox becomes something. Sandboxes that are already ours are not judged here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use super::{AccountKey, ExternalId, LeaseKey, SandboxId, SandboxName, Status, Timestamp, TrackName};

/// A sandbox as another tool left it: without lease and index keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignSandbox {
    /// Its id.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// Its status in the other tool.
    pub status: Status,
    /// Its present or last owner, if the row names one.
    pub tenancy: Option<Tenancy>,
    /// Whether anything in the row shows that it was ever handed out.
    pub used: bool,
}

/// The owner of a sandbox, as another tool recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// The owner and the owner's key.
    pub lease_key: LeaseKey,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// When it was handed out.
    pub allocated_at: Timestamp,
    /// When the owner's time ends.
    pub expires_at: Timestamp,
}

/// What a sandbox becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// A sandbox in its former status, handled by the jobs from now on.
    AsItIs,
    /// Its owner keeps it, under a lease.
    Lease(Tenancy),
    /// Pending deletion at the provider. It may still be in use, so this is done only when the operator confirms it.
    GiveUp(Surplus),
}

/// Why a sandbox cannot be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surplus {
    /// Its key holds another sandbox that was handed out later.
    KeyHoldsAnother,
    /// It is allocated, and no owner is recorded.
    OwnerUnknown,
    /// It is available, and bears traces of an owner.
    UsedBefore,
}

impl Surplus {
    /// The wording in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyHoldsAnother => "its key holds another one",
            Self::OwnerUnknown => "it is allocated, its owner is not recorded",
            Self::UsedBefore => "it is available, but was used before",
        }
    }
}

/// What becomes of `sandboxes`, given the keys that hold a live lease. Of several sandboxes of one key, the one that
/// was handed out last is kept: the owner was given that one last.
pub fn adoptions<T>(
    mut sandboxes: Vec<(ForeignSandbox, T)>,
    mut held: HashSet<LeaseKey>,
) -> Vec<(ForeignSandbox, T, Adoption)> {
    let handed_out = |sandbox: &ForeignSandbox| sandbox.tenancy.as_ref().map(|tenancy| tenancy.allocated_at);
    sandboxes.sort_by(|(a, _), (b, _)| (Reverse(handed_out(a)), &a.id).cmp(&(Reverse(handed_out(b)), &b.id)));
    let of_each = sandboxes.into_iter().map(|(sandbox, row)| {
        let adoption = adoption(&sandbox, &mut held);
        (sandbox, row, adoption)
    });
    of_each.collect()
}

/// Those of `sandboxes` whose account is one of `taken`, or another row's too, apart from the rest. Of several rows of one
/// account the one that was used is kept; if several were, only people can tell whose it is.
pub fn split_doubled<T>(
    sandboxes: Vec<(ForeignSandbox, T)>,
    taken: &HashSet<AccountKey>,
) -> (Vec<(ForeignSandbox, T)>, Vec<ForeignSandbox>) {
    let mut by_account: BTreeMap<AccountKey, Vec<(ForeignSandbox, T)>> = BTreeMap::new();
    for row in sandboxes {
        by_account.entry(AccountKey::of(&row.0.external_id)).or_default().push(row);
    }
    let (mut single, mut doubled) = (Vec::new(), Vec::new());
    for (account, mut rows) in by_account {
        rows.sort_by(|(a, _), (b, _)| (!a.used, &a.id).cmp(&(!b.used, &b.id)));
        let used = rows.iter().filter(|(row, _)| row.used).count();
        let kept = usize::from(used < 2 && !taken.contains(&account));
        doubled.extend(rows.split_off(kept).into_iter().map(|(row, _)| row));
        single.append(&mut rows);
    }
    (single, doubled)
}

fn adoption(sandbox: &ForeignSandbox, held: &mut HashSet<LeaseKey>) -> Adoption {
    match (sandbox.status, &sandbox.tenancy) {
        (Status::Allocated, Some(tenancy)) if held.insert(tenancy.lease_key.clone()) => {
            Adoption::Lease(tenancy.clone())
        }
        (Status::Allocated, Some(_)) => Adoption::GiveUp(Surplus::KeyHoldsAnother),
        (Status::Allocated, None) => Adoption::GiveUp(Surplus::OwnerUnknown),
        (status, _) if status.is_unused() && sandbox.used => Adoption::GiveUp(Surplus::UsedBefore),
        (
            Status::Arriving
            | Status::Available
            | Status::Reserved
            | Status::Stale
            | Status::Quarantined
            | Status::PendingDeletion
            | Status::DeletionFailed
            | Status::Deleted
            | Status::Unknown,
            _,
        ) => Adoption::AsItIs,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{IdempotencyKey, TrackId};
    use super::*;

    fn foreign(number: usize, status: Status, owner: Option<(u8, u64)>, used: bool) -> ForeignSandbox {
        let tenancy = owner.map(|(track, at)| {
            let track = TrackId::new(format!("track-{track}")).unwrap();
            Tenancy {
                lease_key: LeaseKey { key: IdempotencyKey::from(&track), track },
                track_name: None,
                allocated_at: Timestamp::from_secs(at),
                expires_at: Timestamp::from_secs(at + 3_600),
            }
        });
        ForeignSandbox {
            id: SandboxId::new(format!("sandbox-{number}")).unwrap(),
            name: SandboxName::new(format!("name-{number}")).unwrap(),
            external_id: ExternalId::new(format!("external-{number}")).unwrap(),
            status,
            used: used || tenancy.is_some(),
            tenancy,
        }
    }

    fn planned(sandboxes: Vec<ForeignSandbox>, held: &[LeaseKey]) -> Vec<(ForeignSandbox, Adoption)> {
        let rows = sandboxes.into_iter().map(|sandbox| (sandbox, ())).collect();
        let planned = adoptions(rows, held.iter().cloned().collect());
        planned.into_iter().map(|(sandbox, (), adoption)| (sandbox, adoption)).collect()
    }

    #[test]
    fn the_sandbox_that_was_handed_out_last_is_kept() {
        let rows = vec![
            foreign(1, Status::Allocated, Some((1, 100)), true),
            foreign(2, Status::Allocated, Some((1, 200)), true),
            foreign(3, Status::Allocated, Some((2, 50)), true),
        ];
        for rows in [rows.clone(), rows.into_iter().rev().collect()] {
            for (sandbox, adoption) in planned(rows, &[]) {
                let kept = matches!(adoption, Adoption::Lease(_));
                assert_eq!(kept, sandbox.id.as_str() != "sandbox-1", "{sandbox:?}");
            }
        }
    }

    #[test]
    fn what_nobody_may_have_says_why() {
        let rows = vec![
            foreign(1, Status::Allocated, None, false),
            foreign(2, Status::Available, None, true),
            foreign(3, Status::Allocated, Some((1, 1)), true),
            foreign(4, Status::PendingDeletion, Some((1, 1)), true),
            foreign(5, Status::Available, None, false),
        ];
        let mut why: Vec<_> =
            planned(rows, &[foreign(0, Status::Allocated, Some((1, 1)), true).tenancy.unwrap().lease_key])
                .into_iter()
                .map(|(sandbox, adoption)| {
                    let why = match adoption {
                        Adoption::GiveUp(surplus) => surplus.as_str(),
                        Adoption::AsItIs => "as it is",
                        Adoption::Lease(_) => "a lease",
                    };
                    (sandbox.id.to_string(), why)
                })
                .collect();
        why.sort();
        let why: Vec<_> = why.iter().map(|(_, why)| *why).collect();
        let expected = [
            "it is allocated, its owner is not recorded",
            "it is available, but was used before",
            "its key holds another one",
            "as it is",
            "as it is",
        ];
        assert_eq!(why, expected);
    }

    fn any_foreign() -> impl Strategy<Value = Vec<ForeignSandbox>> {
        let row =
            (prop::sample::select(&Status::ALL[..]), prop::option::of((0..4_u8, 0..3_u64)), any::<bool>());
        prop::collection::vec(row, 0..24).prop_map(|rows| {
            rows.into_iter()
                .enumerate()
                .map(|(number, (status, owner, used))| foreign(number, status, owner, used))
                .collect()
        })
    }

    #[test]
    fn an_account_is_taken_over_once_by_the_row_that_was_used() {
        let row = |number, account: &str, used| {
            let external_id = ExternalId::new(account).unwrap();
            let row = foreign(number, Status::Available, None, used);
            (ForeignSandbox { external_id, ..row }, ())
        };
        let rows = vec![
            row(1, "a", false),
            row(2, "a", true),
            row(3, "b", true),
            row(4, "b", true),
            row(5, "c", false),
            row(6, "d", false),
            row(7, "e", false),
            row(8, "e", false),
        ];
        let taken = HashSet::from([AccountKey::of(&ExternalId::new("c").unwrap())]);
        let ids = |rows: Vec<&ForeignSandbox>| {
            let mut ids: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
            ids.sort();
            ids.join(" ")
        };
        let (single, doubled) = split_doubled(rows, &taken);
        assert_eq!(ids(single.iter().map(|(row, ())| row).collect()), "sandbox-2 sandbox-6 sandbox-7");
        assert_eq!(ids(doubled.iter().collect()), "sandbox-1 sandbox-3 sandbox-4 sandbox-5 sandbox-8");
    }

    proptest! {
        #[test]
        fn whatever_another_tool_left_becomes_something_that_keeps_the_promises(rows in any_foreign(), held in prop::collection::btree_set(0..4_u8, 0..3)) {
            let held: Vec<_> = held
                .into_iter()
                .filter_map(|track| foreign(0, Status::Allocated, Some((track, 0)), true).tenancy)
                .map(|tenancy| tenancy.lease_key)
                .collect();
            let count = rows.len();
            let planned = planned(rows, &held);
            prop_assert_eq!(planned.len(), count, "every sandbox becomes something");
            let mut keys: HashSet<_> = held.into_iter().collect();
            for (sandbox, adoption) in planned {
                match adoption {
                    Adoption::Lease(tenancy) => {
                        prop_assert_eq!(sandbox.status, Status::Allocated);
                        prop_assert!(keys.insert(tenancy.lease_key), "a key holds two");
                    }
                    Adoption::AsItIs => {
                        let offered = sandbox.status.is_unused();
                        prop_assert!(sandbox.status != Status::Allocated);
                        prop_assert!(!(offered && sandbox.used), "a used one is offered");
                    }
                    Adoption::GiveUp(_) => {
                        prop_assert!(sandbox.status == Status::Allocated || sandbox.status.is_unused());
                    }
                }
            }
        }
    }
}
