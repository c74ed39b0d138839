//! Tests of the invariants, and property tests of accounts.

use proptest::prelude::*;

use super::super::Allocation;
use super::super::samples::{allocation, allocation_id, end, key, lease, sandbox, sandbox_id};
use super::*;

fn inventory(sandboxes: &[Sandbox], leases: &[Lease]) -> Inventory {
    let mut inventory = Inventory::default();
    sandboxes.iter().for_each(|sandbox| inventory.add_sandbox(sandbox));
    leases.iter().for_each(|lease| inventory.add_lease(lease));
    inventory
}

fn violations(sandboxes: &[Sandbox], leases: &[Lease]) -> Vec<Violation> {
    let found = suspects(&inventory(sandboxes, leases));
    for suspect in &found {
        assert!(!suspect.sandboxes.is_empty(), "nothing to read again: {suspect:?}");
    }
    let mut found: Vec<_> = found.into_iter().map(|suspect| suspect.violation).collect();
    found.sort_by_key(ToString::to_string);
    found
}

fn held(number: u8) -> Sandbox {
    sandbox(number, Status::Allocated, Some(allocation(number)))
}

/// A permit of slot 0, and what holds it: sandbox and lease of that number.
fn limited(number: u8) -> (Permit, Sandbox, Lease, PermitRecord) {
    let permit = Permit::parse("acme#lab-#0").unwrap();
    let mut allocation = allocation(number);
    allocation.permit = Some(permit.clone());
    let record = PermitRecord {
        permit: permit.clone(),
        allocation_id: allocation.id,
        lease_key: allocation.lease_key.clone(),
    };
    let lease = Lease { permit: Some(permit.clone()), ..lease(number, None) };
    (permit, sandbox(number, Status::Allocated, Some(allocation)), lease, record)
}

#[test]
fn a_permit_is_held_if_and_only_if_its_lease_is_live() {
    let judged = |sandbox: &Sandbox, lease: &Lease, records: &[PermitRecord]| {
        let mut inventory = inventory(std::slice::from_ref(sandbox), std::slice::from_ref(lease));
        inventory.expect_permits();
        records.iter().for_each(|record| inventory.add_permit(record));
        suspects(&inventory).into_iter().map(|suspect| suspect.violation.kind()).collect::<Vec<_>>()
    };
    let (_, sandbox, lease, record) = limited(1);
    assert_eq!(judged(&sandbox, &lease, std::slice::from_ref(&record)), [""; 0]);
    assert_eq!(judged(&sandbox, &lease, &[]), ["lease_without_permit"]);
    let of_another = PermitRecord { allocation_id: allocation_id(9), ..record.clone() };
    let found = judged(&sandbox, &lease, &[of_another]);
    assert_eq!(found, ["permit_without_lease", "lease_without_permit"]);
    // The sandbox tells the end which permit it has to give back.
    let forgetful = held(1);
    assert_eq!(judged(&forgetful, &lease, std::slice::from_ref(&record)), ["lease_without_permit"]);
    let unlimited = Lease { permit: None, ..lease.clone() };
    let found = judged(&sandbox, &unlimited, std::slice::from_ref(&record));
    assert_eq!(found, ["permit_without_lease", "lease_without_permit"]);
    let ended = Lease { end: Some(end(150)), ..lease };
    let returned = Sandbox { status: Status::PendingDeletion, ..sandbox };
    assert_eq!(judged(&returned, &ended, &[record]), ["permit_without_lease"]);
    assert_eq!(judged(&returned, &ended, &[]), [""; 0]);
}

#[test]
fn what_is_as_it_should_be_is_no_violation() {
    let sandboxes = [
        held(1),
        sandbox(2, Status::Available, None),
        sandbox(3, Status::Stale, None),
        sandbox(4, Status::PendingDeletion, Some(allocation(4))),
        sandbox(5, Status::DeletionFailed, Some(allocation(5))),
        sandbox(6, Status::Deleted, Some(allocation(6))),
        sandbox(8, Status::Deleted, None),
    ];
    // 7: its sandbox's tombstone is forgotten already. 8: of its sandbox only the tombstone is left.
    let ended = [4, 5, 6, 7, 8].map(|number| lease(number, Some(end(150))));
    let leases = [vec![lease(1, None)], ended.to_vec()].concat();
    assert_eq!(violations(&sandboxes, &leases), []);
}

#[test]
fn an_allocated_sandbox_needs_its_own_live_lease() {
    let wrong = [
        vec![],
        vec![lease(1, Some(end(150)))],
        vec![Lease { allocation_id: allocation_id(9), ..lease(1, None) }],
    ];
    for leases in wrong {
        let found = violations(&[held(1)], &leases);
        let expected = Violation::AllocatedWithoutLease { sandbox: sandbox_id(1) };
        assert!(found.contains(&expected), "{leases:?}: {found:?}");
    }
    let nobody = sandbox(1, Status::Allocated, None);
    let expected = Violation::AllocatedWithoutLease { sandbox: sandbox_id(1) };
    assert_eq!(violations(&[nobody], &[]), std::slice::from_ref(&expected));
    // A lease with the same allocation that names another sandbox is not its own.
    let mut elsewhere = lease(1, None);
    elsewhere.grant.sandbox_id = sandbox_id(2);
    assert!(violations(&[held(1)], &[elsewhere]).contains(&expected));
}

#[test]
fn a_live_lease_needs_its_allocated_sandbox() {
    let points_nowhere = Violation::LeaseWithoutSandbox { key: key(1), sandbox: sandbox_id(1) };
    assert_eq!(violations(&[], &[lease(1, None)]), std::slice::from_ref(&points_nowhere));
    let given_back = sandbox(1, Status::PendingDeletion, Some(allocation(1)));
    assert_eq!(violations(&[given_back], &[lease(1, None)]), std::slice::from_ref(&points_nowhere));
    let another = Allocation { id: allocation_id(9), ..allocation(1) };
    let found = violations(&[sandbox(1, Status::Allocated, Some(another))], &[lease(1, None)]);
    assert!(found.contains(&points_nowhere), "{found:?}");
}

#[test]
fn a_sandbox_has_one_owner() {
    let mut intruder = Lease { key: key(2), ..lease(1, None) };
    intruder.allocation_id = allocation_id(1);
    let found = suspects(&inventory(&[held(1)], &[lease(1, None), intruder]));
    let expected = Violation::OwnedTwice { sandbox: sandbox_id(1), owners: vec![key(1), key(2)] };
    let suspect = found.iter().find(|suspect| suspect.violation == expected).expect("found");
    assert_eq!((&suspect.leases, &suspect.sandboxes), (&vec![key(1), key(2)], &vec![sandbox_id(1)]));
    assert_eq!(expected.to_string(), "sandbox sandbox-1 has 2 live leases: track-1/track-1 track-2/track-2");
}

#[test]
fn a_key_holds_one_sandbox() {
    let second = Allocation { lease_key: key(1), ..allocation(2) };
    let found = violations(&[held(1), sandbox(2, Status::Allocated, Some(second))], &[lease(1, None)]);
    let expected = Violation::KeyHoldsSeveral { key: key(1), sandboxes: vec![sandbox_id(1), sandbox_id(2)] };
    assert!(found.contains(&expected), "{found:?}");
}

#[test]
fn what_was_handed_out_is_never_offered_again() {
    let expected = [Violation::Reoffered { sandbox: sandbox_id(1) }];
    for status in [Status::Available, Status::Stale] {
        assert_eq!(violations(&[sandbox(1, status, Some(allocation(1)))], &[]), expected, "{status}");
        // Its ended lease tells even when nothing on the sandbox does any more.
        let washed = sandbox(1, status, None);
        assert_eq!(violations(&[washed], &[lease(1, Some(end(150)))]), expected, "{status}");
    }
    // Handed out twice: the first lease has ended, the second is live.
    let second = Allocation { id: allocation_id(9), lease_key: key(2), ..allocation(1) };
    let mut again = Lease { key: key(2), ..lease(1, None) };
    again.allocation_id = allocation_id(9);
    let handed_out_again = sandbox(1, Status::Allocated, Some(second));
    assert_eq!(violations(&[handed_out_again], &[lease(1, Some(end(150))), again]), expected);
    // Another resource of the provider under the same id is another sandbox.
    let mut old = lease(1, Some(end(150)));
    old.grant.external_id = ExternalId::new("before").unwrap();
    assert_eq!(violations(&[sandbox(1, Status::Available, None)], &[old]), []);
}

/// The account of sandbox `number`.
fn account(number: u8) -> AccountKey {
    AccountKey::of(&sandbox(number, Status::Available, None).external_id)
}

fn recorded(sandboxes: &[Sandbox], leases: &[Lease], records: &[AccountRecord]) -> Vec<Violation> {
    let mut inventory = inventory(sandboxes, leases);
    records.iter().for_each(|record| inventory.add_account(record));
    inventory.expect_account_records();
    suspects(&inventory).into_iter().map(|suspect| suspect.violation).collect()
}

#[test]
fn an_account_is_one_sandbox_however_it_is_written_and_in_whatever_state() {
    let uuid = "identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab";
    for other in Status::ALL {
        let mut two = [sandbox(1, Status::Available, None), sandbox(2, other, Some(allocation(2)))];
        two[0].external_id = ExternalId::new(uuid).unwrap();
        two[1].external_id = ExternalId::new(uuid.to_uppercase()).unwrap();
        let expected = Violation::AccountTwice {
            account: AccountKey::of(&two[0].external_id),
            sandboxes: vec![sandbox_id(1), sandbox_id(2)],
        };
        assert!(violations(&two, &[]).contains(&expected), "{other}");
    }
}

#[test]
fn an_account_that_was_handed_out_is_not_offered_under_another_label() {
    let mut renamed = sandbox(2, Status::Available, None);
    renamed.external_id = sandbox(1, Status::Available, None).external_id;
    let expected = [Violation::Reoffered { sandbox: sandbox_id(2) }];
    assert_eq!(violations(&[renamed], &[lease(1, Some(end(150)))]), expected);
}

#[test]
fn a_sandbox_has_its_account_s_record_and_a_record_its_sandbox() {
    let free = [sandbox(1, Status::Available, None)];
    let of = |holder, retired| AccountRecord { key: account(1), holder: sandbox_id(holder), retired };
    assert_eq!(violations(&free, &[]), [], "a table of an older version");
    assert_eq!(recorded(&free, &[], &[of(1, false)]), []);
    assert_eq!(recorded(&free, &[], &[]), [Violation::AccountUnrecorded { sandbox: sandbox_id(1) }]);
    let elsewhere =
        |holder| Violation::AccountElsewhere { sandbox: sandbox_id(1), holder: sandbox_id(holder) };
    assert_eq!(recorded(&free, &[], &[of(1, true)]), [elsewhere(1)]);
    let dangling = |holder| Violation::AccountDangling { account: account(1), holder: sandbox_id(holder) };
    assert_eq!(recorded(&free, &[], &[of(2, false)]), [elsewhere(2), dangling(2)]);
    assert_eq!(recorded(&[], &[], &[of(1, false)]), [dangling(1)]);
    assert_eq!(recorded(&[], &[], &[of(1, true)]), [], "what was replaced is remembered");
}

#[test]
fn a_lease_names_the_account_that_its_sandbox_is() {
    let mut told = lease(1, None);
    told.grant.external_id = ExternalId::new("another").unwrap();
    let expected = Violation::LeaseTellsAnother { key: key(1), sandbox: sandbox_id(1) };
    assert_eq!(violations(&[held(1)], &[told]), [expected]);
}

#[test]
fn every_violation_has_its_word_and_names_what_it_is_about() {
    let (key, another, sandbox) = (key(1), key(1), sandbox_id(1));
    let all = [
        (Violation::OwnedTwice { sandbox: sandbox.clone(), owners: vec![] }, "owned_twice"),
        (
            Violation::KeyHoldsSeveral { key: key.clone(), sandboxes: vec![sandbox.clone()] },
            "key_holds_several",
        ),
        (Violation::LeaseWithoutSandbox { key, sandbox: sandbox.clone() }, "lease_without_sandbox"),
        (Violation::AllocatedWithoutLease { sandbox: sandbox.clone() }, "allocated_without_lease"),
        (Violation::Reoffered { sandbox: sandbox.clone() }, "reoffered"),
        (Violation::AccountTwice { account: account(1), sandboxes: vec![sandbox.clone()] }, "account_twice"),
        (Violation::AccountUnrecorded { sandbox: sandbox.clone() }, "account_unrecorded"),
        (
            Violation::AccountElsewhere { sandbox: sandbox.clone(), holder: sandbox_id(2) },
            "account_elsewhere",
        ),
        (Violation::AccountDangling { account: account(1), holder: sandbox.clone() }, "account_dangling"),
        (Violation::LeaseTellsAnother { key: another, sandbox }, "lease_tells_another"),
    ];
    for (violation, word) in all {
        assert_eq!(violation.kind(), word);
        assert!(violation.to_string().contains("sandbox-1"), "{violation}");
    }
}

#[test]
fn the_distribution_counts_what_is_held_now() {
    let lab = Some(TrackName::new("lab").unwrap());
    let in_lab = |number: u8, track: u8| Allocation {
        track_name: lab.clone(),
        lease_key: LeaseKey { key: key(number).key, track: key(track).track },
        ..allocation(number)
    };
    let sandboxes = [
        sandbox(1, Status::Allocated, Some(in_lab(1, 1))),
        sandbox(2, Status::Allocated, Some(in_lab(2, 1))),
        sandbox(3, Status::PendingDeletion, Some(in_lab(3, 1))),
        held(4),
        sandbox(5, Status::Available, None),
    ];
    let inventory = inventory(&sandboxes, &[lease(1, None), lease(4, None), lease(3, Some(end(150)))]);
    assert_eq!(*inventory.by_lab(), BTreeMap::from([(lab, 2), (None, 1)]));
    assert_eq!(inventory.tracks_with_several(), BTreeMap::from([(key(1).track, 2)]));
    assert_eq!(inventory.live_leases(), 2);
    let by_status = [(Status::Available, 1), (Status::Allocated, 3), (Status::PendingDeletion, 1)];
    assert_eq!(*inventory.by_status(), BTreeMap::from(by_status));
}

/// What a life of a sandbox leaves in the table, if nothing goes wrong.
fn lived(number: u8, step: u8) -> (Sandbox, Option<Lease>) {
    let ended = || Some(lease(number, Some(end(150))));
    let used = |status| sandbox(number, status, Some(allocation(number)));
    match step % 6 {
        0 => (sandbox(number, Status::Available, None), None),
        1 => (sandbox(number, Status::Stale, None), None),
        2 => (used(Status::Allocated), Some(lease(number, None))),
        3 => (used(Status::PendingDeletion), ended()),
        4 => (used(Status::DeletionFailed), ended()),
        _ => (used(Status::Deleted), ended()),
    }
}

proptest! {
    #[test]
    fn lives_that_keep_the_promises_are_never_suspected_and_any_planted_fault_is(
        steps in prop::collection::vec(0..6_u8, 1..20), victim in any::<prop::sample::Index>(), fault in 0..4_u8,
    ) {
        let lives: Vec<_> = (0_u8..).zip(&steps).map(|(number, step)| lived(number, *step)).collect();
        let (mut sandboxes, leases): (Vec<_>, Vec<_>) = lives.into_iter().unzip();
        let mut leases: Vec<Lease> = leases.into_iter().flatten().collect();
        prop_assert_eq!(violations(&sandboxes, &leases), []);

        let victim = victim.index(sandboxes.len());
        let number = u8::try_from(victim).unwrap();
        sandboxes[victim] = sandbox(number, Status::Allocated, Some(allocation(number)));
        leases.retain(|lease| lease.grant.sandbox_id != sandbox_id(number));
        match fault {
            0 => {}
            1 => leases.push(lease(number, Some(end(150)))),
            2 => sandboxes[victim].status = Status::Available,
            _ => {
                leases.push(lease(number, None));
                leases.push(Lease { key: key(200), ..lease(number, None) });
            }
        }
        prop_assert!(!violations(&sandboxes, &leases).is_empty());
    }
}
