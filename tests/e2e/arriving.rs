//! Arriving sandboxes: known before they are offered, and offered by a write of their own.

use std::time::Duration;

use broker_tests::cli::Stats;
use broker_tests::table::{now_ms, now_s, number, sandbox_key, text};
use broker_tests::{Broker, Latency, Provider, Setup, story, wait_for_condition};
use serde_json::{Value, json};

/// Lets an available sandbox be arriving since `since`, as a process left it that died behind the first of its two writes.
pub(crate) async fn left_behind(broker: &Broker, sandbox: &str, since: u64) {
    let mut item = broker.table().must_get(&sandbox_key(sandbox)).await;
    let shard = item["state_shard"].as_s().expect("a shard").replace("available", "arriving");
    item.insert("status".to_owned(), text("arriving"));
    item.insert("state_shard".to_owned(), text(&shard));
    item.insert("state_key".to_owned(), text(&format!("{since:012}")));
    item.insert("version".to_owned(), number(7));
    broker.table().put(item).await;
}

/// Waits until no look is under way; when the next one is due, in milliseconds.
async fn no_look(broker: &Broker) -> u64 {
    wait_for_condition("no look to be under way", async || {
        let tick = broker.table().must_get("TICK#serve").await;
        let due = tick["next_run_at_ms"].as_n().expect("a number").parse().expect("milliseconds");
        if tick.contains_key("taken_until_ms") { Err(tick) } else { Ok(due) }
    })
    .await
}

#[tokio::test]
async fn a_look_that_found_something_leaves_the_next_one_due() {
    let setup = Setup::new().apis(1).workers(0).pool(1).var("BROKER_SERVE_EVERY_S", "600");
    story(setup, async |broker| {
        left_behind(broker, "seed-000000", now_s()).await;
        broker.start_worker().await;
        wait_for_condition("it to be admitted", async || match broker.shown("seed-000000").await {
            shown if shown["status"] == "available" => Ok(()),
            shown => Err(shown),
        })
        .await;
        // In the next slot, whoever's it is, however long this look took.
        let due = no_look(broker).await;
        assert!(due <= now_ms(), "the slot after this one would be passed over");
    })
    .await;
}

#[tokio::test]
async fn what_a_job_or_a_command_brings_is_offered_when_it_ends() {
    let provider = Provider::start(12).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        assert_eq!(broker.job("sync").await.changed, 12);
        let expected = Stats { total: 12, available: 12, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        broker.cli_ok(&["pool", "seed", "--count", "3", "--start", "100"]).await;
        assert_eq!(broker.stats().await.available, 15);
        let metrics = broker.worker(0).metrics().probe("/metrics").await.expect("metrics").1;
        for line in ["broker_serve_admitted_total 12", "broker_serve_left_behind_total 0"] {
            assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_tick_admits_what_was_left_behind_and_the_job_does_so_at_once() {
    let setup = Setup::new().pool(3).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        for n in 0..3 {
            left_behind(broker, &format!("seed-{n:06}"), now_s()).await;
        }
        wait_for_condition("all are admitted", async || match broker.stats().await.available {
            3 => Ok(()),
            other => Err(other),
        })
        .await;
        broker.cli_ok(&["job", "pause", "serve"]).await;
        left_behind(broker, "seed-000000", now_s()).await;
        let report = broker.job("serve").await;
        assert_eq!((report.found, report.changed), (1, 1), "{report:?}");
        assert_eq!(broker.shown("seed-000000").await["status"], "available");
        for n in 0..3 {
            broker.allocate(&format!("student-{n}")).send().await.expect_status(201);
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_left_behind_on_several_pages_is_admitted_by_one_run_however_long_a_page_takes() {
    const LEFT: u64 = 250;
    let hop = (Duration::from_millis(600), Duration::from_millis(600));
    let setup = Setup::new().apis(1).workers(1).pool(250).faults(1).var("BROKER_SERVE_EVERY_S", "600");
    story(setup, async |broker| {
        broker.cli_ok(&["job", "pause", "serve"]).await;
        for n in 0..LEFT {
            left_behind(broker, &format!("seed-{n:06}"), now_s() - 60).await;
        }
        // A second page is asked for in another second than the first.
        broker.proxy().set_latency(Latency { dynamodb: hop, ..Latency::none() });
        let report = broker.job("serve").await;
        broker.proxy().calm();
        assert_eq!((report.found, report.changed), (LEFT, LEFT), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn what_arrives_too_long_is_found_and_what_is_arriving_is_neither_offered_nor_inserted_again() {
    let provider = Provider::start(2).await;
    let setup = provider.setup().apis(1).workers(1).pool(2).var("BROKER_SERVE_EVERY_S", "600");
    story(setup, async |broker| {
        broker.cli_ok(&["job", "pause", "serve"]).await;
        no_look(broker).await;
        left_behind(broker, "seed-000000", now_s() - 3_600).await;
        let found = broker.violations().await;
        assert_eq!(found.iter().map(|found| found.kind.as_str()).collect::<Vec<_>>(), ["arriving_too_long"]);
        broker.allocate("student").name_prefix("sandbox-000000").send().await.expect_status(409);
        let listed = ["pool", "list", "--status", "arriving", "--json"];
        let listed: Vec<Value> = broker.cli_ok(&listed).await.json();
        assert_eq!(listed.len(), 1, "{listed:?}");
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.skipped), (0, 0), "{report:?}");

        // One that is missing while it arrives is stale, and arrives again when it is found.
        provider.misbehave(json!({ "list": { "forget": ["seed-000000"] } })).await;
        assert_eq!(broker.job("sync").await.details["made_stale"], 1);
        assert_eq!(broker.shown("seed-000000").await["status"], "stale");
        broker.verify().await;
        provider.behave().await;
        assert_eq!(broker.job("sync").await.details["refreshed_or_returned"], 1);
        assert_eq!(broker.shown("seed-000000").await["status"], "available");
    })
    .await;
}
