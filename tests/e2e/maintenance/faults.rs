//! Faults of the provider: deletions wait, are counted, given up and retried, and none is forgotten.

use broker_tests::{Fault, Provider, Rule, story, wait_for_condition};
use serde_json::json;

use super::{clean_up_until_deleted, give_back, status};

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_found_done_at_the_next_attempt() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3), async |broker| {
        let returned = give_back(broker, 1).await;
        provider.misbehave(json!({ "delete": { "lost": true, "times": 1 } })).await;
        clean_up_until_deleted(broker, 1).await;
        let world = provider.world().await;
        assert_eq!(world.deletions_that("deleted"), 1, "{world:?}");
        assert_eq!(world.deletions_that("unknown"), 1, "{world:?}");
        let shown = broker.shown(&returned[0]).await;
        assert_eq!(shown["status"], "deleted", "{shown:#}");
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_report_is_not_stored_at_once_is_not_repeated_for_that() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3).faults(1), async |broker| {
        let report = broker.job("sync").await;
        let lists = provider.world().await.lists;
        // As many as three calls with all their attempts.
        broker.proxy().add(Rule::new(Fault::ServerError).on("PutItem").containing("report").times(9));
        assert_eq!(broker.job("sync").await.found, report.found);
        assert_eq!(broker.proxy().done("PutItem", Fault::ServerError), 9);
        assert_eq!(provider.world().await.lists, 2 * lists, "it ran once");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_keeps_failing_is_given_up_with_its_reason_and_begun_anew_a_day_later() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3), async |broker| {
        let returned = &give_back(broker, 1).await[0];
        provider.misbehave(json!({ "delete": { "status": 409 } })).await;
        wait_for_condition("the deletion to be given up", async || {
            broker.job("cleanup").await;
            broker.queues().are_empty().await;
            match broker.shown(returned).await {
                shown if shown["status"] == "deletion_failed" => Ok(()),
                // The pauses of 1, 2, 4 and 8 s are real ones; the test need not wait for them.
                shown => {
                    broker.cli_ok(&["sandbox", "retry-delete", returned]).await;
                    Err(shown)
                }
            }
        })
        .await;
        let shown = broker.shown(returned).await;
        assert_eq!(shown["deletion_attempts"], 5, "{shown:#}");
        assert!(shown["deletion_error"].as_str().is_some_and(|why| why.contains("409")), "{shown:#}");
        assert_eq!(provider.world().await.deletes, 5);
        let day = shown["due_at"].as_u64().unwrap() - shown["updated_at"].as_u64().unwrap();
        assert_eq!(day, 24 * 3_600);
        broker.job("cleanup").await;
        assert_eq!(status(broker, returned).await, "deletion_failed", "not before a day has passed");

        provider.behave().await;
        broker.table().age(returned, 1).await;
        assert_eq!(broker.job("cleanup").await.details["retried"], 1);
        clean_up_until_deleted(broker, 1).await;
    })
    .await;
}

#[tokio::test]
async fn while_the_provider_is_down_deletions_wait_and_spend_no_attempt() {
    let provider = Provider::start(30).await;
    story(provider.setup().pool(30).workers(1), async |broker| {
        let returned = give_back(broker, 30).await;
        provider.misbehave(json!({ "delete": { "status": 503 } })).await;
        broker.job("cleanup").await;
        broker.queues().are_empty().await;
        for sandbox in &returned {
            let shown = broker.shown(sandbox).await;
            assert_eq!(shown["status"], "pending_deletion");
            assert_eq!(shown["deletion_attempts"], 0, "a 503 speaks of no sandbox: {shown:#}");
        }
        let asked = provider.world().await.deletes;
        // The breaker opens at the fifth; some calls were under way by then.
        assert!((5..30).contains(&asked), "{asked}");
        let metrics = broker.worker(0).metrics().probe("/metrics").await.expect("metrics").1;
        assert!(metrics.contains("broker_provider_breaker_state 2"), "{metrics}");
        let idle = broker.job("cleanup").await;
        assert_eq!((idle.found, idle.details["breaker_open"]), (0, 1), "{idle:?}");

        // Back again, before a worker whose breaker never opened.
        provider.behave().await;
        broker.stop_worker(0).await;
        broker.start_worker().await;
        for sandbox in &returned {
            broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
        }
        clean_up_until_deleted(broker, 30).await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_token_makes_neither_tombstones_nor_attempts_nor_stale_sandboxes() {
    let provider = Provider::start(10).await;
    story(provider.setup().pool(10).var("BROKER_PROVIDER_TOKEN", "wrong"), async |broker| {
        let returned = give_back(broker, 4).await;
        broker.job("cleanup").await;
        broker.queues().are_empty().await;
        let refused = broker.job_refused("sync").await;
        assert!(refused.aborted.is_some_and(|why| why.contains("BROKER_PROVIDER_TOKEN")));
        for sandbox in &returned {
            let shown = broker.shown(sandbox).await;
            assert_eq!(
                (&shown["status"], &shown["deletion_attempts"]),
                (&json!("pending_deletion"), &json!(0))
            );
        }
        let stats = broker.stats().await;
        assert_eq!((stats.available, stats.stale, stats.deleted), (6, 0, 0));
        assert_eq!(provider.world().await.accounts.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_asks_to_slow_down_is_left_alone_for_as_long() {
    const GIVEN_BACK: usize = 30;
    let provider = Provider::start(GIVEN_BACK).await;
    story(provider.setup().pool(GIVEN_BACK).workers(1), async |broker| {
        let returned = give_back(broker, GIVEN_BACK).await;
        provider.misbehave(json!({ "delete": { "status": 429, "retry_after_s": 2 } })).await;
        broker.job("cleanup").await;
        broker.queues().are_empty().await;
        provider.behave().await;
        // All had a slot within the next second; those that were not under way by then did not ask.
        let asked = provider.world().await.deletes;
        assert!((1..GIVEN_BACK as u32 / 2).contains(&asked), "{asked}");
        clean_up_until_deleted(broker, GIVEN_BACK as u64).await;
        let world = provider.world().await;
        let limited = world.deletions.iter().filter(|d| d.outcome == "fault 429").map(|d| d.at_ms).max();
        let deleted = world.deletions.iter().filter(|d| d.outcome == "deleted").map(|d| d.at_ms).min();
        let (limited, deleted) = (limited.expect("asked"), deleted.expect("asked again"));
        assert!(deleted >= limited + 1_900, "{world:?}");
        for sandbox in &returned {
            assert_eq!(broker.shown(sandbox).await["deletion_attempts"], 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_says_404_of_what_it_still_has_is_asked_again_and_nobody_gets_it() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3), async |broker| {
        let returned = &give_back(broker, 1).await[0];
        provider.misbehave(json!({ "delete": { "not_found": true } })).await;
        clean_up_until_deleted(broker, 1).await;
        provider.behave().await;
        assert!(provider.world().await.accounts.contains(returned));

        assert_eq!(broker.job("sync").await.details["inserted_or_revived"], 1);
        assert_eq!(status(broker, returned).await, "pending_deletion");
        clean_up_until_deleted(broker, 1).await;
        assert!(!provider.world().await.accounts.contains(returned));
        assert_eq!(broker.job("sync").await.changed, 0);
        assert_eq!(broker.stats().await.available, 2);
    })
    .await;
}
