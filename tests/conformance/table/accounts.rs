//! Accounts: each belongs to one sandbox, live or deleted, at every write that brings one in.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{AccountKey, ExternalId, Sandbox, SandboxId, SandboxName, Status};
use broker_store::accounts::{Doubled, Recorded, ensure_recorded, record_all};
use broker_store::verify::verify;
use broker_store::{Candidate, EntryConflict, GateQuestion, NewSandbox, Seen, Unused, Write};
use broker_tests::together;

use crate::place::{Place, candidate, sandbox};

const UUID: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

pub(super) fn external(text: &str) -> ExternalId {
    ExternalId::new(format!("identity/accounts/{text}")).expect("a valid id")
}

fn of(number: usize, external_id: ExternalId) -> NewSandbox {
    NewSandbox { external_id, ..sandbox(number) }
}

async fn violations(place: &Place) -> Vec<&'static str> {
    let report = verify(&place.store, place.clock.now()).await.expect("read");
    let mut kinds: Vec<_> = report.violations.into_iter().map(|found| found.kind).collect();
    kinds.sort_unstable();
    kinds
}

/// The account's record: its holder, and whether it is retired.
async fn record(place: &Place, external_id: &ExternalId) -> Option<(String, bool)> {
    let page = place.store.scans.page(0, 1, None).await.expect("read");
    let key = AccountKey::of(external_id);
    let record = page.items.accounts.into_iter().find(|record| record.key == key)?;
    Some((record.holder.to_string(), record.retired))
}

async fn remove(place: &Place, key: &str) {
    use aws_sdk_dynamodb::types::AttributeValue::S;
    let delete = place.aws.dynamodb.delete_item().table_name(&place.table);
    delete.key("PK", S(key.to_owned())).key("SK", S("META".to_owned())).send().await.expect("DeleteItem");
}

async fn version(place: &Place, id: &SandboxId) -> u64 {
    place.store.sandboxes.get(id).await.expect("read").expect("there").version
}

/// A tombstone of sandbox 0, whose account is that of [`UUID`].
pub(super) async fn tombstone(place: &Place) -> broker_store::Record {
    let (store, now) = (&place.store, place.clock.now());
    assert_eq!(store.sandboxes.insert(&of(0, external(UUID)), now).await.expect("asked"), Write::Applied);
    let arrived = version(place, &sandbox(0).id).await;
    let free = Candidate { version: arrived, ..candidate(&of(0, external(UUID))) };
    assert_eq!(store.sandboxes.admit(&free, now).await.expect("asked"), Write::Applied);
    let version = arrived + 1;
    let free = Candidate { version, ..free };
    let (free, allocation) = place.hold(free).await;
    let end = broker_domain::LeaseEnd::by_broker(broker_domain::EndReason::Released, now, now);
    store.leases.end(&free.sandbox_id, &allocation, &end).await.expect("ended");
    let seen = Seen { id: &free.sandbox_id, version: version + 2 };
    let buried = store.deletions.write_tombstone(seen, Status::PendingDeletion, &external(UUID), now).await;
    assert_eq!(buried.expect("asked"), Write::Applied);
    store.sandboxes.record(&free.sandbox_id).await.expect("read").expect("there")
}

#[tokio::test]
async fn an_account_enters_the_pool_once_however_it_is_written_and_labelled() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    assert!(matches!(store.sandboxes.insert(&of(0, external(UUID)), now).await, Ok(Write::Applied)));
    let by = sandbox(0).id;
    for spelled in [UUID.to_owned(), UUID.to_uppercase(), UUID.replace('-', "")] {
        let told = store.sandboxes.insert(&of(1, external(&spelled)), now).await.expect("asked");
        assert_eq!(told, Write::Rejected(EntryConflict::AccountTaken { by: by.clone() }), "{spelled}");
        let told = store.sandboxes.seed(&of(1, external(&spelled)), now).await.expect("asked");
        assert_eq!(told, Write::Rejected(EntryConflict::AccountTaken { by: by.clone() }), "{spelled}");
    }
    assert_eq!(store.sandboxes.record(&sandbox(1).id).await.expect("read"), None);
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn many_who_insert_one_account_at_a_time_make_one_sandbox() {
    let place = Place::with_table().await;
    let now = place.clock.now();
    let insert = |number| {
        let store = place.another_store();
        async move {
            loop {
                match store.sandboxes.insert(&of(number, external(UUID)), now).await {
                    Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                    told => return told.expect("asked"),
                }
            }
        }
    };
    let told = together((0..8).map(insert).collect::<Vec<_>>()).await;
    let new = told.iter().filter(|told| matches!(told, Write::Applied)).count();
    assert_eq!(new, 1, "{told:?}");
    assert_eq!(store_size(&place).await, 1);
}

async fn store_size(place: &Place) -> u64 {
    place.store.sandboxes.count(&Policy::default()).await.expect("counted").by_status().values().sum()
}

#[tokio::test]
async fn a_refresh_takes_the_new_account_and_gives_the_old_one_back() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    place.seed(2).await;
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    let (was, is) = (sandbox(0).external_id, external(UUID));
    let from = Unused { status: Status::Available, version: 1, name: &sandbox(0).name, external_id: &was };
    let of_another = of(0, sandbox(1).external_id);
    let told = store.sandboxes.found(from, &of_another, now).await.expect("asked");
    assert_eq!(
        told,
        Write::Rejected(EntryConflict::AccountTaken { by: sandbox(1).id }),
        "ids that change places are left alone"
    );
    assert_eq!(store.sandboxes.found(from, &of(0, is.clone()), now).await.expect("asked"), Write::Applied);
    assert_eq!(record(&place, &was).await, None, "it was never used");
    assert_eq!(record(&place, &is).await, Some((sandbox(0).id.to_string(), false)));
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn what_is_another_account_or_has_another_name_arrives_and_no_hook_was_asked_about_it() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store.sandboxes, place.clock.now());
    ensure_recorded(&place.store, &place.entropy, now).await.expect("recorded");
    place.seed(2).await;
    let stands =
        async |number| store.record(&sandbox(number).id).await.expect("read").expect("a record of a sandbox");
    let found = async |number, listed: &NewSandbox| {
        let Sandbox { status, version, name, external_id, .. } = stands(number).await.sandbox;
        let from = Unused { status, version, name: &name, external_id: &external_id };
        assert_eq!(store.found(from, listed, now).await.expect("asked"), Write::Applied);
        stands(number).await
    };
    // Another spelling of its account is no other account.
    let spelled = sandbox(0).external_id.as_str().to_uppercase();
    let respelled = NewSandbox { external_id: ExternalId::new(&spelled).expect("an id"), ..sandbox(0) };
    let after = found(0, &respelled).await;
    assert_eq!(
        (after.sandbox.status, &after.sandbox.external_id),
        (Status::Available, &respelled.external_id)
    );
    let (remade, name) = (external(UUID), SandboxName::new("renamed").expect("a name"));
    let renamed = NewSandbox { name, ..sandbox(1) };
    for (number, listed) in [(0, &NewSandbox { external_id: remade.clone(), ..sandbox(0) }), (1, &renamed)] {
        let after = found(number, listed).await;
        assert_eq!((after.sandbox.status, after.due), (Status::Arriving, Some(now.floor_to_second())));
    }
    // While its gate is asked.
    let arrival = Candidate {
        name: renamed.name.clone(),
        version: stands(1).await.sandbox.version,
        ..candidate(&sandbox(1))
    };
    let (question, later) =
        (GateQuestion { id: place.entropy.uuid(), attempts: 4 }, now.plus(Duration::from_secs(60)));
    assert_eq!(store.ask_gate(&arrival, question, later, now).await.expect("asked"), Write::Applied);
    let listed = NewSandbox { attributes: Some(Default::default()), ..renamed.clone() };
    let after = found(1, &listed).await;
    assert_eq!((after.gate, after.due), (Some(question), Some(later.floor_to_second())), "it waits on");
    let after = found(1, &NewSandbox { external_id: external("2"), ..listed }).await;
    assert_eq!(
        (after.sandbox.status, after.gate, after.due),
        (Status::Arriving, None, Some(now.floor_to_second()))
    );
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn what_was_handed_out_keeps_its_account_for_good() {
    let place = Place::with_table().await;
    ensure_recorded(&place.store, &place.entropy, place.clock.now()).await.expect("recorded");
    let grave = tombstone(&place).await;
    let (store, now) = (&place.store, place.clock.now());
    let taken = Write::Rejected(EntryConflict::AccountTaken { by: sandbox(0).id });
    assert_eq!(store.sandboxes.insert(&of(1, external(UUID)), now).await.expect("asked"), taken);
    // Another resource under the old id: what was handed out is remembered all the same.
    let later = now.plus(Duration::from_secs(60));
    let spelled_otherwise = of(0, external(&UUID.to_uppercase()));
    let told = store.sandboxes.insert_over_tombstone(&spelled_otherwise, &grave, later, later).await;
    assert_eq!(told.expect("asked"), Write::Rejected(EntryConflict::MovedOn(())), "the same account");
    let told = store.sandboxes.insert_over_tombstone(&of(0, external("2")), &grave, later, later).await;
    assert_eq!(told.expect("asked"), Write::Applied);
    assert_eq!(record(&place, &external(UUID)).await, Some((sandbox(0).id.to_string(), true)));
    assert_eq!(store.sandboxes.insert(&of(1, external(UUID)), later).await.expect("asked"), taken);
    let fresh = store.sandboxes.record(&sandbox(0).id).await.expect("read").expect("there").sandbox;
    let (version, name, external_id) = (fresh.version, &fresh.name, &fresh.external_id);
    let from = Unused { status: Status::Arriving, version, name, external_id };
    let told = store.sandboxes.found(from, &of(0, external(UUID)), later).await.expect("asked");
    assert_eq!(
        told,
        Write::Rejected(EntryConflict::AccountTaken { by: sandbox(0).id }),
        "nor does its own sandbox get it back"
    );
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn a_tombstone_that_is_listed_under_another_account_is_deleted_as_that_one_and_remembers_both() {
    let place = Place::with_table().await;
    ensure_recorded(&place.store, &place.entropy, place.clock.now()).await.expect("recorded");
    let grave = tombstone(&place).await;
    let (store, now, grave) = (&place.store, place.clock.now(), grave.sandbox);
    store.sandboxes.insert(&sandbox(5), now).await.expect("inserted");
    let of_another = of(0, sandbox(5).external_id);
    let told = store.sandboxes.revive_deletion(&grave, &of_another, now).await.expect("asked");
    assert_eq!(told, Write::Rejected(EntryConflict::AccountTaken { by: sandbox(5).id }));
    let told = store.sandboxes.revive_deletion(&grave, &of(0, external("2")), now).await;
    assert_eq!(told.expect("asked"), Write::Applied);
    let pending = store.sandboxes.get(&grave.id).await.expect("read").expect("there");
    assert!(pending.deletion_requested_at > grave.deletion_requested_at, "another deletion: {pending:?}");
    assert_eq!(record(&place, &external(UUID)).await, Some((sandbox(0).id.to_string(), true)));
    assert_eq!(record(&place, &external("2")).await, Some((sandbox(0).id.to_string(), false)));
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn what_nobody_used_gives_its_account_back_and_repeats_no_version() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    assert_eq!(store.sandboxes.insert(&sandbox(0), now).await.expect("asked"), Write::Applied);
    let id: SandboxId = sandbox(0).id;
    let version = version(&place, &id).await;
    assert_eq!(
        store.sandboxes.missing(Status::Arriving, Seen { id: &id, version }, now).await.expect("asked"),
        Write::Applied
    );
    let stale = Candidate { version: version + 1, ..candidate(&sandbox(0)) };
    assert_eq!(store.sandboxes.remove_stale(&stale).await.expect("asked"), Write::Applied);
    assert_eq!(record(&place, &sandbox(0).external_id).await, None);
    let later = now.plus(Duration::from_secs(24 * 3_600));
    let told = store.sandboxes.insert(&of(1, sandbox(0).external_id), later).await.expect("asked");
    assert_eq!(told, Write::Applied, "under another label, and at another version");
    assert!(self::version(&place, &of(1, sandbox(0).external_id).id).await > version + 1);
}

#[tokio::test]
async fn a_table_of_an_older_version_gets_its_records_before_anything_enters() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let grave = tombstone(&place).await;
    place.store.sandboxes.seed(&sandbox(7), now).await.expect("seeded");
    for external_id in [&grave.sandbox.external_id, &sandbox(7).external_id] {
        remove(&place, &format!("EXT#{external_id}")).await;
    }
    assert!(violations(&place).await.is_empty(), "an older table is none the worse");
    // An older version let the same account in twice.
    store.sandboxes.seed(&of(8, external(UUID)), now).await.expect("seeded");
    remove(&place, &format!("EXT#{}", grave.sandbox.external_id)).await;
    assert_eq!(violations(&place).await, ["account_twice", "reoffered"]);
    let recorded = record_all(store, &place.entropy, now).await.expect("recorded");
    let doubled = vec![Doubled { sandbox: sandbox(8).id, by: sandbox(0).id }];
    assert_eq!(recorded, Recorded { written: 2, doubled, ..Recorded::default() });
    let withdrawn = store.sandboxes.record(&sandbox(8).id).await.expect("read").expect("there").sandbox;
    assert_eq!(withdrawn.status, Status::Stale, "the used one has the account");
    assert_eq!(ensure_recorded(store, &place.entropy, now).await.expect("asked"), None, "once is enough");
    let (version, name, external_id) = (withdrawn.version, &withdrawn.name, &withdrawn.external_id);
    let from = Unused { status: Status::Stale, version, name, external_id };
    let told = store.sandboxes.found(from, &of(8, external(UUID)), now).await.expect("asked");
    assert_eq!(
        told,
        Write::Rejected(EntryConflict::AccountTaken { by: sandbox(0).id }),
        "sync does not bring it back"
    );
    let stale = Candidate { version: withdrawn.version, ..candidate(&of(8, external(UUID))) };
    assert_eq!(
        store.sandboxes.remove_stale(&stale).await.expect("asked"),
        Write::Applied,
        "and it is removed in the end"
    );
    assert_eq!(record(&place, &external(UUID)).await, Some((sandbox(0).id.to_string(), false)));
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn an_account_is_one_without_regard_to_case() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    assert_eq!(
        store.sandboxes.insert(&of(0, external("Lab-Seven")), now).await.expect("asked"),
        Write::Applied
    );
    for spelled in ["Lab-Seven", "lab-seven", "LAB-SEVEN"] {
        let told = store.sandboxes.insert(&of(1, external(spelled)), now).await.expect("asked");
        assert_eq!(told, Write::Rejected(EntryConflict::AccountTaken { by: sandbox(0).id }), "{spelled}");
    }
    // Its own sandbox may be listed in another spelling.
    let version = version(&place, &sandbox(0).id).await;
    let (name, was) = (&sandbox(0).name, &external("Lab-Seven"));
    let from = Unused { status: Status::Arriving, version, name, external_id: was };
    let told = store.sandboxes.found(from, &of(0, external("lab-seven")), now).await.expect("asked");
    assert_eq!(told, Write::Applied);
    assert_eq!(record(&place, &external("LAB-Seven")).await, Some((sandbox(0).id.to_string(), false)));
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

/// Puts an account's record under the key of a version that told accounts apart by case; `retired` is one for good.
async fn spell(place: &Place, external_id: &ExternalId, holder: &str, retired: bool) {
    use aws_sdk_dynamodb::types::AttributeValue::{N, S};
    remove(place, &format!("EXT#{}", AccountKey::of(external_id))).await;
    let put = place.aws.dynamodb.put_item().table_name(&place.table);
    let put = put.item("PK", S(format!("EXT#{external_id}"))).item("SK", S("META".to_owned()));
    let put = put.item("sandbox_id", S(holder.to_owned()));
    let put = if retired { put.item("retired_at", N("1700000000".to_owned())) } else { put };
    put.send().await.expect("PutItem");
}

#[tokio::test]
async fn records_that_tell_accounts_apart_by_case_are_moved_before_anything_enters() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    let (held, gone, both) = (external("Held"), external("Gone"), external("Both"));
    let used = external("Used");
    store.sandboxes.seed(&of(0, held.clone()), now).await.expect("seeded");
    store.sandboxes.seed(&of(2, both.clone()), now).await.expect("seeded");
    let holder = sandbox(0).id.to_string();
    spell(&place, &held, &holder, false).await;
    spell(&place, &gone, &holder, true).await;
    // A worker of this version has written this one anew already.
    spell(&place, &both, sandbox(2).id.as_str(), false).await;
    store.sandboxes.seed(&of(2, external("both")), now).await.expect("asked");
    // It was handed out under that spelling, and has entered again under another one.
    spell(&place, &used, &holder, true).await;
    store.sandboxes.seed(&of(3, external("used")), now).await.expect("seeded");
    let pool = place.aws.dynamodb.update_item().table_name(&place.table);
    let pool = pool.key("PK", aws_sdk_dynamodb::types::AttributeValue::S("POOL".to_owned()));
    let pool = pool.key("SK", aws_sdk_dynamodb::types::AttributeValue::S("META".to_owned()));
    pool.update_expression("REMOVE account_spelling").send().await.expect("UpdateItem");

    let recorded = ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    let doubled = vec![Doubled { sandbox: sandbox(0).id, by: sandbox(3).id }];
    let expected = Recorded { respelled: 3, doubled: doubled.clone(), ..Recorded::default() };
    assert_eq!(recorded, Some(expected), "what is retired is not forgotten for another's sake");
    assert_eq!(record(&place, &held).await, Some((holder.clone(), false)));
    assert_eq!(record(&place, &gone).await, Some((holder, true)));
    for spelled in ["held", "GONE", "bOTH"] {
        let told = store.sandboxes.insert(&of(1, external(spelled)), now).await.expect("asked");
        assert!(matches!(told, Write::Rejected(EntryConflict::AccountTaken { .. })), "{spelled}: {told:?}");
    }
    let again = record_all(store, &place.entropy, now).await.expect("asked");
    assert_eq!(again, Recorded { doubled, ..Recorded::default() }, "the others are moved");
    remove(&place, &format!("EXT#{used}")).await;
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}

#[tokio::test]
async fn half_a_transaction_of_a_restored_table_is_named_and_mended() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    place.seed(3).await;
    ensure_recorded(store, &place.entropy, now).await.expect("recorded");
    remove(&place, "SBX#sandbox-000").await;
    remove(&place, "EXT#identity/accounts/1").await;
    assert_eq!(violations(&place).await, ["account_dangling", "account_unrecorded"]);
    let recorded = record_all(store, &place.entropy, now).await.expect("recorded");
    assert_eq!((recorded.written, recorded.dropped), (1, 1));
    assert_eq!(violations(&place).await, Vec::<&str>::new());
}
