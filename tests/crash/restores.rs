//! Crashes of `broker pool reconcile` and `adopt`: SIGKILL between any two writes; the same command, run again, continues.

use std::collections::BTreeMap;

use broker_runtime::crash_points::Point;
use broker_tests::cli::{Output, Stats};
use broker_tests::table::{Item, lease_key, now_s, number, sandbox_key, text};
use broker_tests::warden::scratch;
use broker_tests::{Broker, Setup, story, wait_for_condition};
use serde_json::{Value, json};

use super::CRASH_AT;

/// Runs a command that dies at `point`.
async fn dies_at(broker: &Broker, args: &[&str], point: Point) {
    let order = format!("{}=kill", point.as_str());
    let output = broker.cli_with(args, &[(CRASH_AT, &order)]).await;
    assert_eq!(output.code, -1, "it was not killed at {order}: {output:#?}");
}

/// Which sandboxes are whose, or were, and which leases have ended.
async fn owners(broker: &Broker) -> BTreeMap<String, (String, Option<String>)> {
    let mut owners = BTreeMap::new();
    for key in broker.table().keys("SBX#").await {
        let item = broker.table().must_get(&key).await;
        let word = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        owners.insert(key, (word("status").expect("a status"), word("allocated_to_track")));
    }
    for key in broker.table().keys("LEASE#").await {
        let ended = broker.table().must_get(&key).await.contains_key("ended_at");
        owners.insert(key, (if ended { "ended" } else { "live" }.to_owned(), None));
    }
    owners
}

/// A table that was restored: half a claim each way, half an end each way, and what was handed out since is unknown.
async fn restored(broker: &mut Broker) -> Vec<Value> {
    let table = broker.table();
    let claimed = async |track: &str| {
        let sandbox = broker.allocate(track).send().await.expect_status(201).sandbox_id().to_owned();
        (sandbox.clone(), table.must_get(&sandbox_key(&sandbox)).await)
    };
    let mut fresh: BTreeMap<String, Item> = BTreeMap::new();
    for key in table.keys("SBX#").await {
        let item = table.must_get(&key).await;
        fresh.insert(key, item);
    }
    let (lease_only, _) = claimed("lease-only").await;
    let (sandbox_only, _) = claimed("sandbox-only").await;
    let (lease_ended, held) = claimed("lease-ended").await;
    let (sandbox_ended, _) = claimed("sandbox-ended").await;
    let live = table.must_get(&lease_key("sandbox-ended", "sandbox-ended")).await;
    for (sandbox, track) in [(&lease_ended, "lease-ended"), (&sandbox_ended, "sandbox-ended")] {
        broker.return_sandbox(sandbox, track).send().await.expect_status(200);
    }
    let (since, _) = claimed("since").await;
    let (back, _) = claimed("back").await;
    broker.return_sandbox(&back, "back").send().await.expect_status(200);
    broker.stop_workers().await;
    broker.stop_apis().await;

    // The claim's lease was copied, its sandbox before; and the other way round. The same of two ends.
    table.put(fresh[&sandbox_key(&lease_only)].clone()).await;
    table.delete(&lease_key("sandbox-only", "sandbox-only")).await;
    table.put(held).await;
    table.put(live).await;
    for (sandbox, track) in [(&since, "since"), (&back, "back")] {
        table.put(fresh[&sandbox_key(sandbox)].clone()).await;
        table.delete(&lease_key(track, track)).await;
    }
    let mut pool = table.must_get("POOL").await;
    pool.insert("table_id".to_owned(), text("the incarnation before"));
    table.put(pool).await;
    vec![
        json!({ "sandbox_id": back, "track": "back", "returned": true }),
        json!({ "sandbox_id": since, "track": "since" }),
        json!({ "sandbox_id": lease_only, "track": "lease-only" }),
        json!({ "sandbox_id": sandbox_only, "track": "sandbox-only" }),
        json!({ "sandbox_id": lease_ended, "track": "lease-ended", "returned": true }),
        json!({ "sandbox_id": sandbox_ended, "track": "sandbox-ended", "returned": true }),
    ]
}

#[tokio::test]
async fn a_reconciliation_that_dies_between_any_two_steps_is_gone_on_with() {
    story(Setup::new().apis(1).workers(1).pool(8), async |broker| {
        let lines: String = restored(broker).await.iter().map(|line| format!("{line}\n")).collect();
        let path = scratch().join(broker.queues().name("restored"));
        std::fs::write(&path, lines).expect("the file is written");
        let path = path.to_str().expect("a path of ours");
        let command = ["pool", "reconcile", "--json", "--handed-out", path, "--apply"];
        dies_at(broker, &command, Point::ReconcileBegun).await;
        // As often as there are steps: each time one of them is written, and nothing is undone.
        for _ in 0..8 {
            let before = owners(broker).await;
            let order = format!("{}=kill", Point::ReconcileStepped.as_str());
            let output = broker.cli_with(&command, &[(CRASH_AT, &order)]).await;
            assert_eq!(broker.cli(&["pool", "resume"]).await.code, i32::from(output.code == -1));
            if output.code != -1 {
                break;
            }
            assert_ne!(owners(broker).await, before, "a step was written before it died");
        }
        broker.verify().await;
        let expected =
            Stats { total: 8, available: 2, allocated: 3, pending_deletion: 3, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        broker.start_api().await;
        broker.start_worker().await;
        for track in ["lease-only", "sandbox-only", "since"] {
            broker.allocate(track).send().await.expect_status(200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_reconciliation_that_dies_before_it_opens_the_pool_opens_it_the_next_time() {
    story(Setup::new().apis(1).workers(1).pool(8), async |broker| {
        let lines: String = restored(broker).await.iter().rev().map(|line| format!("{line}\n")).collect();
        let path = scratch().join(broker.queues().name("restored"));
        std::fs::write(&path, lines).expect("the file is written");
        let path = path.to_str().expect("a path of ours");
        let command = ["pool", "reconcile", "--json", "--handed-out", path];
        let told: Value = broker.cli_ok(&command).await.json();
        assert_eq!(
            (&told["dry_run"], &told["mended"], &told["suspects"]),
            (&true.into(), &4.into(), &json!([]))
        );
        let before = owners(broker).await;
        let apply = [&command[..], &["--apply"]].concat();
        dies_at(broker, &apply, Point::Reconciled).await;
        assert_ne!(owners(broker).await, before);
        assert_eq!(broker.cli(&["pool", "resume"]).await.code, 1, "it is closed until a run has ended");
        let again: Value = broker.cli_ok(&apply).await.json();
        assert_eq!((&again["steps"], &again["mended"]), (&json!({ "as_it_is": 6 }), &0.into()));
        broker.cli_ok(&["pool", "resume"]).await;
    })
    .await;
}

fn row(id: &str, status: &str, track: Option<&str>) -> Item {
    let base = [
        ("PK", text(&sandbox_key(id))),
        ("SK", text("META")),
        ("sandbox_id", text(id)),
        ("name", text(id)),
        ("external_id", text(&format!("identity/accounts/{id}"))),
        ("status", text(status)),
        ("updated_at", number(now_s() - 1_000)),
    ];
    let held =
        track.map(|track| [("allocated_to_track", text(track)), ("allocated_at", number(now_s() - 60))]);
    base.into_iter().chain(held.into_iter().flatten()).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[tokio::test]
async fn an_adoption_that_dies_anywhere_is_begun_anew_and_the_pool_stays_paused_meanwhile() {
    story(Setup::new().apis(0).workers(0), async |broker| {
        for number in 0..4 {
            broker.table().put(row(&format!("free-{number}"), "available", None)).await;
            let track = format!("student-{number}");
            broker.table().put(row(&format!("held-{number}"), "allocated", Some(&track))).await;
        }
        // As an older version's `broker init` left it: the accounts are still to be recorded.
        let mut pool = broker.table().must_get("POOL").await;
        pool.remove("accounts_recorded_at").expect("it is recorded");
        broker.table().put(pool).await;
        let command = ["pool", "adopt", "--json", "--apart-s", "0", "--apply"];
        for point in [Point::AdoptBegun, Point::AccountRecorded, Point::AdoptStepped, Point::Adopted] {
            dies_at(broker, &command, point).await;
            // One that starts now sees the pause before it takes a message.
            broker.launch_worker(&[]).await;
            let refused: Output = broker.cli(&command).await;
            assert_eq!(refused.code, 1, "{refused:#?}");
            broker.stop_workers().await;
        }
        let told: Value = broker.cli_ok(&command).await.json();
        assert_eq!((&told["ours"], &told["adopted"], &told["paused"]), (&8.into(), &0.into(), &false.into()));
        broker.verify().await;
        broker.start_api().await;
        broker.start_worker().await;
        let mine = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(mine.sandbox_id(), "held-1");
        // What a command that died left arriving is admitted by the worker's first look.
        wait_for_condition("all that is free to be offered", async || match broker.stats().await {
            stats if stats.available == 4 => Ok(()),
            stats => Err(stats),
        })
        .await;
        broker.lists_are_current().await;
        broker.allocate("student-9").send().await.expect_status(201);
    })
    .await;
}
