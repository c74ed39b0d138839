//! `broker pool verify`: it finds what a story plants and nothing else.

use std::collections::BTreeMap;

use broker_tests::cli::Violation;
use broker_tests::table::{Item, Table, lease_key, now_s, number, sandbox_key, text};
use broker_tests::{Broker, Setup, story, together, wait_for_condition};

/// Two leases of a key of their own, one sandbox that was given back, and three that are free.
struct Scene {
    held: String,
    other: String,
    returned: String,
}

impl Scene {
    async fn set(broker: &Broker) -> Self {
        let mut sandboxes = Vec::new();
        for track in ["holder", "other", "returner"] {
            let answer = broker.allocate(track).lab("lab").send().await.expect_status(201);
            sandboxes.push(answer.sandbox_id().to_owned());
        }
        let returned = sandboxes.pop().expect("three of them");
        broker.return_sandbox(&returned, "returner").send().await.expect_status(200);
        let other = sandboxes.pop().expect("two of them");
        Self { held: sandboxes.remove(0), other, returned }
    }
}

fn with(mut item: Item, attributes: &[(&str, &str)]) -> Item {
    for (name, value) in attributes {
        item.insert((*name).to_owned(), text(value));
    }
    item
}

/// `found` holds a violation of this kind about this sandbox.
#[track_caller]
fn assert_found(found: &[Violation], kind: &str, sandbox: &str) {
    let about =
        |violation: &Violation| violation.kind == kind && violation.detail.to_string().contains(sandbox);
    assert!(found.iter().any(about), "no {kind} about {sandbox} in {found:#?}");
}

fn setup() -> Setup {
    Setup::new().apis(1).workers(1).pool(6)
}

const STRANGE_ALLOCATION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test]
async fn verify_finds_an_allocated_sandbox_without_a_live_lease() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let key = lease_key("holder", "holder");
        let lease = table.must_get(&key).await;
        table.delete(&key).await;
        assert_found(&broker.violations().await, "allocated_without_lease", &scene.held);
        table.put(lease).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_live_lease_that_points_nowhere() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let key = sandbox_key(&scene.held);
        let sandbox = table.must_get(&key).await;
        table.delete(&key).await;
        assert_found(&broker.violations().await, "lease_without_sandbox", &scene.held);
        table.put(sandbox).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_live_lease_of_another_allocation() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let sandbox = table.must_get(&sandbox_key(&scene.held)).await;
        table.put(with(sandbox.clone(), &[("allocation_id", STRANGE_ALLOCATION)])).await;
        let found = broker.violations().await;
        assert_found(&found, "lease_without_sandbox", &scene.held);
        assert_found(&found, "allocated_without_lease", &scene.held);
        table.put(sandbox).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_sandbox_that_two_keys_own() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let key = lease_key("intruder", "intruder");
        let lease = table.must_get(&lease_key("holder", "holder")).await;
        let owner =
            [("PK", key.as_str()), ("allocated_to_track", "intruder"), ("idempotency_key", "intruder")];
        table.put(with(lease, &owner)).await;
        assert_found(&broker.violations().await, "owned_twice", &scene.held);
        table.delete(&key).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_key_that_holds_two_sandboxes() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let held = table.must_get(&sandbox_key(&scene.held)).await;
        let other = table.must_get(&sandbox_key(&scene.other)).await;
        let lease = table.must_get(&lease_key("other", "other")).await;
        let owner = [("allocated_to_track", "holder"), ("idempotency_key", "holder")];
        table.put(with(other.clone(), &owner)).await;
        assert_found(&broker.violations().await, "key_holds_several", &scene.other);
        assert_eq!(table.must_get(&sandbox_key(&scene.held)).await, held, "verify wrote");
        assert_eq!(table.must_get(&lease_key("other", "other")).await, lease, "verify wrote");
        table.put(other).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_used_sandbox_that_is_offered_again() {
    story(setup(), async |broker| {
        let (scene, table) = (Scene::set(broker).await, broker.table());
        let returned = table.must_get(&sandbox_key(&scene.returned)).await;
        let offered = with(returned.clone(), &[("status", "available")]);
        table.put(offered.clone()).await;
        assert_found(&broker.violations().await, "reoffered", &scene.returned);

        // Also when nothing on the sandbox tells of its past any more: the ended lease does.
        let mut washed = offered;
        for trace in ["allocation_id", "allocated_to_track", "idempotency_key", "allocated_at", "expires_at"]
        {
            washed.remove(trace);
        }
        for trace in ["track_name", "lab_duration_hours", "deletion_requested_at", "deletion_reason"] {
            washed.remove(trace);
        }
        table.put(washed).await;
        assert_found(&broker.violations().await, "reoffered", &scene.returned);
        table.put(returned).await;
    })
    .await;
}

/// Three sandboxes that are put aside for a reservation, whose id it is; no worker is left that would mend what is planted.
async fn put_aside(broker: &mut Broker) -> String {
    let make = ["reservation", "create", "--tenant", "acme", "--name-prefix", "sandbox-", "--count", "3"];
    let made: serde_json::Value = broker.cli_ok(&[&make[..], &["--json"]].concat()).await.json();
    let id = made["id"].as_str().expect("an id").to_owned();
    broker.job("serve").await;
    wait_for_condition("them to be put aside", async || match broker.stats().await.reserved {
        3 => Ok(()),
        now => Err(now),
    })
    .await;
    broker.stop_workers().await;
    id
}

/// Verify names so many by this kind once the reservation was changed, and nothing else; before, it finds nothing.
async fn reservation_is_found(
    broker: &Broker,
    id: &str,
    (kind, many): (&str, usize),
    change: impl AsyncFnOnce(&Table, Item),
) {
    let table = broker.table();
    let before = table.get_at("RESERVATION", id).await.expect("a reservation");
    broker.verify().await;
    change(&table, before.clone()).await;
    let found = broker.violations().await;
    assert_eq!(found.len(), many, "{found:#?}");
    assert!(found.iter().all(|found| found.kind == kind), "{found:#?}");
    assert_found(&found, kind, id);
    table.put(before).await;
}

#[tokio::test]
async fn verify_finds_what_is_put_aside_for_nobody() {
    story(setup(), async |broker| {
        let id = put_aside(broker).await;
        let delete = async |table: &Table, _| table.delete_at("RESERVATION", &id).await;
        reservation_is_found(broker, &id, ("reserved_for_nobody", 3), delete).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_what_is_put_aside_for_a_reservation_that_it_does_not_fit() {
    story(setup(), async |broker| {
        let id = put_aside(broker).await;
        let sandboxes: Vec<serde_json::Value> =
            broker.cli_ok(&["pool", "list", "--status", "reserved", "--json"]).await.json();
        let fits = sandboxes[0]["name"].as_str().expect("a name");
        let change = async |table: &Table, item| table.put(with(item, &[("reserved_prefix", fits)])).await;
        reservation_is_found(broker, &id, ("reserved_wrongly", 2), change).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_what_stays_put_aside_when_its_reservation_has_ended() {
    story(setup(), async |broker| {
        let id = put_aside(broker).await;
        let end = async |table: &Table, item: Item| {
            let ended = async |ago: u64| {
                let mut item = with(item.clone(), &[("closed_why", "over")]);
                item.insert("closed_at_ms".to_owned(), number((now_s() - ago) * 1_000));
                table.put(item).await;
            };
            // It goes back within ten minutes, if the pool is open.
            ended(60).await;
            broker.verify().await;
            ended(11 * 60).await;
            broker.cli_ok(&["pool", "pause"]).await;
            broker.verify().await;
            broker.cli_ok(&["pool", "resume"]).await;
        };
        reservation_is_found(broker, &id, ("reserved_too_long", 3), end).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_what_is_put_aside_and_not_counted() {
    story(setup(), async |broker| {
        let id = put_aside(broker).await;
        let count = async |table: &Table, mut item: Item| {
            item.insert("held".to_owned(), number(2));
            table.put(item).await;
        };
        reservation_is_found(broker, &id, ("reserved_uncounted", 1), count).await;
    })
    .await;
}

#[tokio::test]
async fn verify_tells_how_many_sandboxes_each_lab_holds() {
    story(Setup::new().pool(10), async |broker| {
        for (track, lab) in [("a", "lab-one"), ("b", "lab-one"), ("c", "lab-two")] {
            broker.allocate(track).lab(lab).send().await.expect_status(201);
        }
        let by_lab = broker.verify().await.by_lab;
        let expected = BTreeMap::from([("lab-one".to_owned(), 2), ("lab-two".to_owned(), 1)]);
        assert_eq!(by_lab, expected);
    })
    .await;
}

#[tokio::test]
async fn verify_finds_nothing_while_a_hundred_users_allocate_and_return() {
    const ROUNDS: usize = 3;
    story(Setup::new().apis(2).workers(3).pool(100 * ROUNDS), async |broker| {
        let users: Vec<_> = (0..100).map(|n| (broker.api(n).clone(), format!("student-{n}"))).collect();
        let users = users.into_iter().map(async |(api, track)| {
            for _ in 0..ROUNDS {
                let answer = api.allocate(&track).wait(50).send().await.expect_status(201);
                api.return_sandbox(answer.sandbox_id(), &track).wait(50).send().await.expect_status(200);
            }
        });
        let users = tokio::spawn(together(users.collect::<Vec<_>>()));
        broker.verify().await;
        while !users.is_finished() {
            broker.verify().await;
        }
        users.await.expect("all users got what they asked for");
        assert_eq!(broker.stats().await.pending_deletion, 100 * ROUNDS as u64);
    })
    .await;
}
