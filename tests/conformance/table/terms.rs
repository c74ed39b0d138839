//! Terms of conditions, each alone: everything is as the write wants it but one thing.
//!
//! A write that names state and version is safe by either in most stories; here the other one is taken away.

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::{
    EndReason, ExternalId, FlavourName, LeaseEnd, Quarantine, QuarantineCause, Sandbox, SandboxName, Status,
    Timestamp,
};
use broker_store::quarantine::{self, QuarantineAct, QuarantineSelection};
use broker_store::{
    Candidate, ClaimOutcome, EntryConflict, GateQuestion, NewSandbox, Seen, StoreError, Unused, Write,
};

use crate::place::{Place, candidate, sandbox};

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Changes one attribute of an item behind the broker's back.
pub(super) async fn alter(place: &Place, key: &str, name: &str, value: AttributeValue) {
    let update = place.aws.dynamodb.update_item().table_name(&place.table);
    let update = update.key("PK", text(key)).key("SK", text("META")).update_expression("SET #name = :value");
    let update =
        update.expression_attribute_names("#name", name).expression_attribute_values(":value", value);
    update.send().await.expect("UpdateItem");
}

/// The writes that want a sandbox in one state, at one version.
const WRITES: [(&str, Status); 14] = [
    ("postpone", Status::PendingDeletion),
    ("attempt_failed", Status::PendingDeletion),
    ("give_up", Status::PendingDeletion),
    ("bury", Status::PendingDeletion),
    ("retry_deletion", Status::DeletionFailed),
    ("admit", Status::Arriving),
    ("ask_gate", Status::Arriving),
    ("quarantine", Status::Available),
    ("quarantine_guarded", Status::Arriving),
    ("release", Status::Quarantined),
    ("retire", Status::Quarantined),
    ("missing", Status::Available),
    ("found", Status::Stale),
    ("revive_deletion", Status::Deleted),
];

async fn write(place: &Place, name: &str, seen: Seen<'_>, now: Timestamp) -> Result<Write, StoreError> {
    let store = &place.store;
    match name {
        "postpone" => store.deletions.postpone(seen, now, now).await,
        "attempt_failed" => store.deletions.attempt_failed(seen, 1, "no", now, now).await,
        "give_up" => store.deletions.give_up(seen, 5, "no", now, now).await,
        "bury" => {
            store.deletions.write_tombstone(seen, Status::PendingDeletion, &sandbox(0).external_id, now).await
        }
        "retry_deletion" => store.deletions.retry(seen, now).await,
        "admit" => store.sandboxes.admit(&sandbox(0).arrived(seen.version), now).await,
        "ask_gate" => {
            let question = GateQuestion { id: place.entropy.uuid(), attempts: 1 };
            store.sandboxes.ask_gate(&sandbox(0).arrived(seen.version), question, now, now).await
        }
        "quarantine" => {
            let quarantine = Quarantine::by_broker(QuarantineCause::Gate, "no", now);
            store.sandboxes.quarantine(seen, Status::Available, &quarantine).await
        }
        "quarantine_guarded" => {
            let quarantine = Quarantine::by_broker(QuarantineCause::Gate, "no", now);
            let flavour = FlavourName::new("small").expect("a name");
            let guard = store.sandboxes.quarantine_guard(&flavour).await.expect("read");
            let (from, guarded) = (Status::Arriving, (&flavour, &guard));
            store.sandboxes.quarantine_guarded(seen, from, &quarantine, guarded, now).await
        }
        "release" => store.sandboxes.release_quarantined(seen, now).await,
        "retire" => store.sandboxes.retire_quarantined(seen, now).await,
        "missing" => store.sandboxes.missing(Status::Available, seen, now).await,
        "found" => {
            let (name, external_id) = (&sandbox(0).name, &sandbox(0).external_id);
            let from = Unused { status: Status::Stale, version: seen.version, name, external_id };
            store.sandboxes.found(from, &sandbox(0), now).await.map(changed)
        }
        "revive_deletion" => {
            let stands = store.sandboxes.get(seen.id).await.expect("read").expect("there");
            let tombstone = Sandbox { version: seen.version, ..stands };
            store.sandboxes.revive_deletion(&tombstone, &sandbox(0), now).await.map(changed)
        }
        other => panic!("{other} is no write"),
    }
}

fn changed(entered: Write<EntryConflict>) -> Write {
    match entered {
        Write::Applied => Write::Applied,
        Write::Rejected(EntryConflict::MovedOn(())) => Write::Rejected(()),
        Write::Rejected(EntryConflict::AccountTaken { by }) => panic!("its own account is {by}'s"),
    }
}

#[tokio::test]
async fn a_write_wants_the_state_and_the_version_that_were_read() {
    let place = Place::with_table().await;
    place.seed(1).await;
    let (id, now) = (sandbox(0).id, place.clock.now());
    let seen = Seen { id: &id, version: 4 };
    for (name, wanted) in WRITES {
        for (status, version) in Status::ALL.map(|status| (status, 4)).into_iter().chain([(wanted, 5)]) {
            alter(&place, "SBX#sandbox-000", "status", text(status.as_str())).await;
            alter(&place, "SBX#sandbox-000", "version", number(version)).await;
            let expected =
                if (status, version) == (wanted, 4) { Write::Applied } else { Write::Rejected(()) };
            let told = write(&place, name, seen, now).await.expect("asked");
            assert_eq!(told, expected, "{name} of {status} at version {version}");
        }
    }
}

#[tokio::test]
async fn what_goes_into_quarantine_by_itself_wants_the_guard_as_it_was_counted_with() {
    let place = Place::with_table().await;
    place.seed(2).await;
    let (store, now) = (&place.store.sandboxes, place.clock.now());
    let flavour = FlavourName::new("small").expect("a name");
    let why = Quarantine::by_broker(QuarantineCause::Gate, "no", now);
    let none = store.quarantine_guard(&flavour).await.expect("read");
    for number in [0, 1] {
        alter(&place, &format!("SBX#sandbox-00{number}"), "status", text("arriving")).await;
    }
    let write = async |number: usize, guard: &_| {
        let (id, version) = (sandbox(number).id, candidate(&sandbox(number)).version);
        let seen = Seen { id: &id, version };
        store.quarantine_guarded(seen, Status::Arriving, &why, (&flavour, guard), now).await
    };
    assert_eq!(write(0, &none).await.expect("asked"), Write::Applied);
    assert!(
        matches!(write(1, &none).await, Err(StoreError::Conflict)),
        "counted before the first went there"
    );
    let stands = store.quarantine_guard(&flavour).await.expect("read");
    assert_eq!((stands.version, stands.count(&Default::default(), now)), (1, 1));
    assert_eq!(write(0, &stands).await.expect("asked"), Write::Rejected(()), "it is there already");
    assert_eq!(write(1, &stands).await.expect("asked"), Write::Applied);
}

#[tokio::test]
async fn what_was_ever_handed_out_is_neither_found_nor_forgotten() {
    let place = Place::with_table().await;
    place.seed(1).await;
    let (free, now) = (candidate(&sandbox(0)), place.clock.now());
    let key = "SBX#sandbox-000";
    alter(&place, key, "status", text("stale")).await;
    for (name, value) in [("status", text("available")), ("version", number(2))] {
        alter(&place, key, name, value).await;
        assert_eq!(
            place.store.sandboxes.remove_stale(&free).await.expect("asked"),
            Write::Rejected(()),
            "{name}"
        );
        alter(&place, key, "status", text("stale")).await;
        alter(&place, key, "version", number(1)).await;
    }
    alter(&place, key, "allocation_id", text(&place.entropy.uuid().to_string())).await;
    assert_eq!(place.store.sandboxes.remove_stale(&free).await.expect("asked"), Write::Rejected(()));
    let (name, external_id) = (&free.name, &free.external_id);
    let from = Unused { status: Status::Stale, version: 1, name, external_id };
    let found = place.store.sandboxes.found(from, &sandbox(0), now).await.expect("asked");
    assert_eq!(found, Write::Rejected(EntryConflict::MovedOn(())));
    alter(&place, key, "status", text("quarantined")).await;
    let seen = Seen { id: &free.sandbox_id, version: 1 };
    let released = place.store.sandboxes.release_quarantined(seen, now).await.expect("asked");
    assert_eq!(released, Write::Rejected(()), "nor let out of quarantine");
    let retired = place.store.sandboxes.retire_quarantined(seen, now).await.expect("asked");
    assert_eq!(retired, Write::Applied);
}

#[tokio::test]
async fn what_the_provider_was_asked_to_delete_leaves_the_quarantine_for_its_deletion_only() {
    let place = Place::with_table().await;
    place.seed(1).await;
    let (store, id, key) = (&place.store, sandbox(0).id, "SBX#sandbox-000");
    alter(&place, key, "status", text("quarantined")).await;
    alter(&place, key, "state_key", text("000000000007")).await;
    alter(&place, key, "deletion_requested_at", number(7)).await;
    let seen = Seen { id: &id, version: 1 };
    let now = place.clock.now();
    assert_eq!(store.sandboxes.release_quarantined(seen, now).await.expect("asked"), Write::Rejected(()));
    let selection = QuarantineSelection::Ids(vec![id.clone()]);
    let foreseen = quarantine::foresee(store, &QuarantineAct::Release, selection, now).await;
    let refused = foreseen.expect("asked").refused;
    assert!(refused.len() == 1 && refused[0].why.contains("only be retired"), "{refused:?}");
    // The same account under another name: its deletion is still asked for, and the hook before it is asked anew.
    let (was, name) = (sandbox(0), SandboxName::new("renamed").expect("a name"));
    let renamed = NewSandbox { name, ..sandbox(0) };
    let from =
        |version, name| Unused { status: Status::Quarantined, version, name, external_id: &was.external_id };
    for (clock, version, asked_at) in [(Timestamp::from_secs(7), 1, 8), (Timestamp::from_secs(99), 2, 99)] {
        let (is, listed) = if version == 1 { (&was, &renamed) } else { (&renamed, &was) };
        let found = store.sandboxes.found(from(version, &is.name), listed, clock).await;
        assert_eq!(found.expect("asked"), Write::Applied);
        let requested_at =
            store.sandboxes.get(&id).await.expect("read").expect("there").deletion_requested_at;
        assert_eq!(requested_at, Some(Timestamp::from_secs(asked_at)));
    }
    let seen = Seen { id: &id, version: 3 };
    assert_eq!(store.sandboxes.release_quarantined(seen, now).await.expect("asked"), Write::Rejected(()));
    let seed = Candidate { version: 3, ..candidate(&was) };
    assert_eq!(store.sandboxes.remove_unused_seed(&seed).await.expect("asked"), Write::Rejected(()));
    // Another account under its id, which nobody asked to delete.
    let external_id = ExternalId::new("identity/accounts/other").expect("a valid id");
    let remade = NewSandbox { external_id, ..sandbox(0) };
    assert_eq!(store.sandboxes.found(from(3, &was.name), &remade, now).await.expect("asked"), Write::Applied);
    let back = NewSandbox { external_id: was.external_id.clone(), ..sandbox(1) };
    let taken = Write::Rejected(EntryConflict::AccountTaken { by: id.clone() });
    assert_eq!(
        store.sandboxes.insert(&back, now).await.expect("asked"),
        taken,
        "the first one does not come back"
    );
    let seen = Seen { id: &id, version: 4 };
    assert_eq!(store.sandboxes.release_quarantined(seen, now).await.expect("asked"), Write::Applied);
}

#[tokio::test]
async fn a_tombstone_is_of_the_resource_that_was_deleted() {
    let place = Place::with_table().await;
    place.seed(1).await;
    let (id, now) = (sandbox(0).id, place.clock.now());
    alter(&place, "SBX#sandbox-000", "status", text("pending_deletion")).await;
    let seen = Seen { id: &id, version: 1 };
    let other = ExternalId::new("identity/accounts/other").expect("a valid id");
    let buried = place
        .store
        .deletions
        .write_tombstone(seen, Status::PendingDeletion, &other, now)
        .await
        .expect("asked");
    assert_eq!(buried, Write::Rejected(()));
    let buried = place
        .store
        .deletions
        .write_tombstone(seen, Status::PendingDeletion, &sandbox(0).external_id, now)
        .await;
    assert_eq!(buried.expect("asked"), Write::Applied);
    let tombstone = place.store.sandboxes.record(&id).await.expect("read").expect("there");
    let another = NewSandbox { external_id: other, ..sandbox(0) };
    let later = now.plus(std::time::Duration::from_secs(60));
    let key = "SBX#sandbox-000";
    for (name, value, back) in
        [("status", text("pending_deletion"), text("deleted")), ("version", number(7), number(2))]
    {
        alter(&place, key, name, value).await;
        let told = place.store.sandboxes.insert_over_tombstone(&another, &tombstone, later, later).await;
        assert_eq!(told.expect("asked"), Write::Rejected(EntryConflict::MovedOn(())), "{name}");
        alter(&place, key, name, back).await;
    }
    let told = place.store.sandboxes.insert_over_tombstone(&another, &tombstone, later, later).await;
    assert_eq!(told.expect("asked"), Write::Applied);
}

#[tokio::test]
async fn only_what_is_available_is_claimed_whatever_its_version() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    for status in Status::ALL.into_iter().filter(|status| *status != Status::Available) {
        alter(&place, "SBX#sandbox-000", "status", text(status.as_str())).await;
        let told = place.claim(&place.ask("student-1"), &free).await;
        assert_eq!(told, ClaimOutcome::LostCandidate, "{status}");
    }
}

#[tokio::test]
async fn a_lease_and_its_sandbox_end_and_last_together_or_not_at_all() {
    const SANDBOX: &str = "SBX#sandbox-000";
    const LEASE: &str = "LEASE#student-1#student-1";
    let place = Place::with_table().await;
    let (free, allocation) = place.held().await;
    let (store, now) = (&place.store, place.clock.now());
    let end = LeaseEnd::by_broker(EndReason::Released, now, now);
    let (own, other) = (text(&allocation.id.to_string()), text(&place.entropy.uuid().to_string()));
    let until = allocation.expires_at.plus(std::time::Duration::from_secs(60));
    for (key, name, value, back) in [
        (SANDBOX, "status", text("pending_deletion"), text("allocated")),
        (SANDBOX, "allocation_id", other.clone(), own.clone()),
        (LEASE, "allocation_id", other, own),
    ] {
        alter(&place, key, name, value).await;
        let told = store.leases.extend(&free.sandbox_id, &allocation, until, now).await.expect("asked");
        assert_eq!(told, Write::Rejected(()), "longer: {key} {name}");
        let told = store.leases.end(&free.sandbox_id, &allocation, &end).await.expect("asked");
        assert_eq!(told, Write::Rejected(()), "end: {key} {name}");
        let broken = Quarantine::by_broker(QuarantineCause::Report, "broken", now);
        let told = store.leases.report(&free.sandbox_id, &allocation, &end, &broken).await.expect("asked");
        assert_eq!(told, Write::Rejected(()), "report: {key} {name}");
        alter(&place, key, name, back).await;
    }
    alter(&place, LEASE, "ended_at", number(now.as_secs())).await;
    let told = store.leases.extend(&free.sandbox_id, &allocation, until, now).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "a lease that ended gets no longer");
    let told = store.leases.end(&free.sandbox_id, &allocation, &end).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "and does not end again");
    let sandbox = store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
    assert_eq!((sandbox.status, sandbox.version), (Status::Allocated, 2));
}

#[tokio::test]
async fn a_return_ends_only_what_its_key_holds_and_held_when_it_was_asked_for() {
    const SANDBOX: &str = "SBX#sandbox-000";
    const LEASE: &str = "LEASE#student-1#student-1";
    let place = Place::with_table().await;
    let (free, allocation) = place.held().await;
    let (store, now) = (&place.store, place.clock.now());
    let end = LeaseEnd::by_broker(EndReason::Returned, now, now);
    let (key, by) = (&allocation.lease_key, allocation.allocated_at);
    let later = number(by.as_secs() + 1);
    for (item, name, value, back) in [
        (SANDBOX, "status", text("pending_deletion"), text("allocated")),
        (SANDBOX, "allocated_to_track", text("student-2"), text("student-1")),
        (SANDBOX, "idempotency_key", text("another"), text("student-1")),
        (SANDBOX, "allocated_at", later, number(by.as_secs())),
        (LEASE, "sandbox_id", text("sandbox-001"), text("sandbox-000")),
        (LEASE, "expires_at", number(by.as_secs()), number(allocation.expires_at.as_secs())),
    ] {
        alter(&place, item, name, value).await;
        let told = store.leases.return_sandbox(&free.sandbox_id, key, by, by, &end).await.expect("asked");
        assert_eq!(told, Write::Rejected(()), "{item} {name}");
        alter(&place, item, name, back).await;
    }
    assert_eq!(
        store.leases.return_sandbox(&free.sandbox_id, key, by, by, &end).await.expect("asked"),
        Write::Applied
    );
    alter(&place, SANDBOX, "status", text("allocated")).await;
    let told = store.leases.return_sandbox(&free.sandbox_id, key, by, by, &end).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "a lease that ended does not end again");
}

#[tokio::test]
async fn a_seed_is_removed_in_each_state_of_what_nobody_used_and_not_once_somebody_did() {
    let place = Place::with_table().await;
    let (store, seed) = (&place.store.sandboxes, candidate(&sandbox(0)));
    let unused = [Status::Arriving, Status::Available, Status::Stale, Status::Quarantined];
    let put = async |status: Status| {
        // The last one may be left.
        store.seed(&sandbox(0), Timestamp::from_ms(0)).await.expect("seeded");
        alter(&place, "SBX#sandbox-000", "status", text(status.as_str())).await;
        alter(&place, "SBX#sandbox-000", "version", number(1)).await;
    };
    for status in Status::ALL {
        put(status).await;
        let expected = if unused.contains(&status) { Write::Applied } else { Write::Rejected(()) };
        assert_eq!(store.remove_unused_seed(&seed).await.expect("asked"), expected, "{status}");
    }
    put(Status::Quarantined).await;
    let allocation = place.entropy.allocation_id().to_string();
    alter(&place, "SBX#sandbox-000", "allocation_id", text(&allocation)).await;
    assert_eq!(store.remove_unused_seed(&seed).await.expect("asked"), Write::Rejected(()));
}
