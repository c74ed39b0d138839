//! Sync: the pool matches the provider's list, and only differences are written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_tests::setup::Environment;
use broker_tests::table::now_s;
use broker_tests::{Provider, Setup, story, together, wait_for_condition};
use serde_json::json;

use super::{clean_up_until_deleted, status};

fn quiet(setup: Setup) -> Setup {
    setup.apis(1).workers(1)
}

#[tokio::test]
async fn new_accounts_enter_the_pool_and_a_second_run_writes_nothing() {
    let provider = Provider::start_with(25, &["--page-size", "4"]).await;
    story(quiet(provider.setup()), async |broker| {
        let first = broker.job("sync").await;
        assert_eq!((first.found, first.changed, first.failed), (25, 25, 0), "{first:?}");
        assert_eq!(broker.stats().await.available, 25);
        let before = broker.table().must_get("SBX#seed-000003").await;
        let second = broker.job("sync").await;
        assert_eq!((second.found, second.changed), (25, 0), "{second:?}");
        assert_eq!(broker.table().must_get("SBX#seed-000003").await, before);
        assert_eq!(provider.world().await.lists, 14, "seven pages, twice");
        provider.grow(2).await;
        assert_eq!(broker.job("sync").await.changed, 2);
        broker.allocate("student").name_prefix("sandbox-000026").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_missing_sandbox_is_stale_comes_back_when_it_is_listed_again_and_is_removed_after_a_day() {
    let provider = Provider::start_with(30, &["--page-size", "27"]).await;
    story(quiet(provider.setup().pool(30)), async |broker| {
        let held = broker.allocate("student").name_prefix("sandbox-000029").send().await.expect_status(201);
        provider.misbehave(json!({ "list": { "no_next": true } })).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["made_stale"]), (2, 2), "{report:?}");
        assert_eq!(report.details["allocated_missing"], 1, "{report:?}");
        assert_eq!(status(broker, held.sandbox_id()).await, "allocated");
        let stats = broker.stats().await;
        assert_eq!((stats.available, stats.stale, stats.allocated), (27, 2, 1));
        broker
            .allocate("late")
            .name_prefix("sandbox-000028")
            .send()
            .await
            .expect_problem(409, "NO_SANDBOXES_AVAILABLE");

        provider.behave().await;
        assert_eq!(broker.job("sync").await.details["refreshed_or_returned"], 2);
        broker.allocate("late").name_prefix("sandbox-000028").send().await.expect_status(201);

        provider.misbehave(json!({ "list": { "no_next": true } })).await;
        broker.job("sync").await;
        broker.table().age("seed-000027", 24 * 3_600 - 60).await;
        assert_eq!(broker.job("purge-stale").await.changed, 0, "not within a day");
        broker.table().age("seed-000027", 24 * 3_600 + 1).await;
        assert_eq!(broker.job("purge-stale").await.changed, 1);
        assert_eq!(broker.stats().await.stale, 0);
    })
    .await;
}

#[tokio::test]
async fn a_list_that_is_not_to_be_believed_changes_nothing() {
    let provider = Provider::start_with(40, &["--page-size", "10"]).await;
    story(quiet(provider.setup().pool(40)), async |broker| {
        for fault in [
            json!({ "empty": true }),
            json!({ "no_next": true }),
            json!({ "truncated": true }),
            json!({ "loop": true }),
            json!({ "status": 500 }),
            json!({ "status": 404 }),
            json!({ "delay_ms": 7_000, "times": 1 }),
        ] {
            provider.misbehave(json!({ "list": fault })).await;
            let refused = broker.job_refused("sync").await;
            assert_eq!(refused.changed, 0, "{fault}: {refused:?}");
            assert_eq!(broker.stats().await.available, 40, "{fault}");
        }
        provider.misbehave(json!({ "list": { "no_next": true } })).await;
        broker.cli_ok(&["job", "run", "sync", "--accept-stale"]).await;
        assert_eq!(broker.stats().await.stale, 30);
    })
    .await;
}

#[tokio::test]
async fn of_another_providers_list_nothing_enters_although_the_second_list_fails() {
    let provider = Provider::start(12).await;
    story(quiet(provider.setup()), async |broker| {
        broker.cli_ok(&["pool", "seed", "--count", "20", "--start", "500"]).await;
        provider.misbehave(json!({ "list": { "status": 503, "every": 2 } })).await;
        let refused = broker.job_refused("sync").await;
        assert_eq!((refused.changed, provider.world().await.lists), (0, 2), "{refused:?}");
        let stats = broker.stats().await;
        assert_eq!((stats.available, stats.stale), (20, 0), "{stats:?}");
    })
    .await;
}

#[tokio::test]
async fn an_id_that_the_provider_uses_again_is_a_new_sandbox_only_after_the_old_one_is_gone() {
    let provider = Provider::start(4).await;
    story(quiet(provider.setup().pool(4)), async |broker| {
        let gone = broker.allocate("first").name_prefix("sandbox-000001").send().await.expect_status(201);
        broker.return_sandbox("seed-000001", "first").send().await.expect_status(200);
        clean_up_until_deleted(broker, 1).await;
        let before = broker.shown("seed-000001").await;
        let deleted_at = before["deleted_at"].as_u64().expect("a tombstone");
        wait_for_condition("the next second", async || {
            let now = now_s();
            if now > deleted_at { Ok(()) } else { Err(now) }
        })
        .await;
        provider.remake("seed-000001").await;
        broker.job("sync").await;
        let shown = broker.shown("seed-000001").await;
        assert_eq!(shown["status"], "available");
        assert!(shown["external_id"] != gone.text_of("external_id"), "{shown:#}");
        assert!(shown["version"].as_u64() > before["version"].as_u64(), "it goes on: {shown:#}");
        broker.return_sandbox("seed-000001", "first").send().await.expect_problem(403, "NOT_SANDBOX_OWNER");

        // Created while the old one was still in use: it may have been used.
        broker.allocate("second").name_prefix("sandbox-000002").send().await.expect_status(201);
        provider.remake("seed-000002").await;
        broker.job("sync").await;
        broker.return_sandbox("seed-000002", "second").send().await.expect_status(200);
        clean_up_until_deleted(broker, 1).await;
        broker.job("sync").await;
        assert_eq!(status(broker, "seed-000002").await, "pending_deletion");
        clean_up_until_deleted(broker, 1).await;
        assert!(!provider.world().await.accounts.contains(&"seed-000002".to_owned()));
    })
    .await;
}

/// Runs jobs until `done`.
async fn maintain(broker: Environment, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        broker.job("sync").await;
        broker.job("cleanup").await;
    }
}

#[tokio::test]
async fn nobody_gets_a_used_sandbox_while_sync_and_cleanup_run_in_a_loop() {
    const TRACKS: usize = 100;
    const ROUNDS: usize = 2;
    let provider = Provider::start_with(TRACKS * ROUNDS, &["--page-size", "37", "--regrow-s", "1"]).await;
    story(provider.setup().pool(TRACKS * ROUNDS), async |broker| {
        let done = Arc::default();
        let jobs = tokio::spawn(maintain((**broker).clone(), Arc::clone(&done)));
        let users: Vec<_> = (0..TRACKS)
            .map(|n| (broker.api(n).clone(), format!("student-{n}")))
            .map(async |(api, track)| {
                let mut had = Vec::new();
                for _ in 0..ROUNDS {
                    let answer = api.allocate(&track).send().await.expect_status(201);
                    api.return_sandbox(answer.sandbox_id(), &track).send().await.expect_status(200);
                    had.push(answer.text_of("external_id").to_owned());
                }
                had
            })
            .collect();
        let had: Vec<String> = together(users).await.into_iter().flatten().collect();
        done.store(true, Ordering::Relaxed);
        jobs.await.expect("the jobs ran");
        let distinct: BTreeSet<_> = had.iter().collect();
        assert_eq!(distinct.len(), TRACKS * ROUNDS, "a used sandbox was handed out");
    })
    .await;
}
