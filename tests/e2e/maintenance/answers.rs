//! Answers of the provider to a deletion: only one that speaks of the sandbox spends an attempt.

use broker_tests::{Broker, Provider, story, wait_for_condition};
use serde_json::{Value, json};

use super::{clean_up_until_deleted, give_back, status};

/// Plans and carries out what is due.
async fn clean_up(broker: &Broker) {
    broker.job("cleanup").await;
    broker.queues().are_empty().await;
}

async fn attempts(broker: &Broker, sandbox: &str) -> u64 {
    let shown = broker.shown(sandbox).await;
    assert_eq!(shown["status"], "pending_deletion", "{shown:#}");
    shown["deletion_attempts"].as_u64().expect("a number")
}

/// Another worker, which knows of no failure.
async fn start_anew(broker: &mut Broker) {
    broker.stop_worker(0).await;
    broker.start_worker().await;
}

#[tokio::test]
async fn an_answer_that_refuses_everybody_spends_no_attempt_and_says_what_to_set() {
    let provider = Provider::start(4).await;
    story(provider.setup().pool(4).workers(1), async |broker| {
        let returned = give_back(broker, 2).await;
        for (delete, what_to_set) in [
            (json!({ "status": 401 }), "BROKER_PROVIDER_TOKEN"),
            (json!({ "status": 403 }), "BROKER_PROVIDER_TOKEN"),
            (json!({ "html": true }), "BROKER_PROVIDER_URL"),
            (json!({ "status": 405 }), "BROKER_PROVIDER_URL"),
            (
                json!({ "status": 302, "location": "https://elsewhere.invalid/login" }),
                "https://elsewhere.invalid",
            ),
            (json!({ "status": 301, "location": "/sandbox/accounts/" }), "BROKER_PROVIDER_URL"),
        ] {
            provider.misbehave(json!({ "delete": delete })).await;
            for sandbox in &returned {
                broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
            }
            clean_up(broker).await;
            for sandbox in &returned {
                assert_eq!(attempts(broker, sandbox).await, 0, "{delete}");
            }
            let log = broker.worker_mut(0).process().log();
            assert!(log.contains("deletions pause") && log.contains(what_to_set), "{delete}: {log}");
            start_anew(broker).await;
        }
        assert_eq!(provider.world().await.accounts.len(), 4);
        provider.behave().await;
        for sandbox in &returned {
            broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
        }
        clean_up_until_deleted(broker, 2).await;
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_is_waited_for() {
    let provider = Provider::start(9).await;
    story(provider.setup().pool(9).workers(1), async |broker| {
        let mut returned = Vec::new();
        for delete in [
            json!({ "status": 503, "retry_after_s": 600 }),
            json!({ "status": 500, "retry_after_s": 600 }),
            json!({ "status": 408, "retry_after": "Fri, 23 Nov 2126 00:00:00 GMT" }),
            json!({ "status": 429 }),
            json!({ "status": 503 }),
        ] {
            // One at a time: what is planned while the provider rests waits for as long.
            returned.extend(give_back(broker, 1).await);
            provider.misbehave(json!({ "delete": delete })).await;
            let before = provider.world().await.deletes;
            clean_up(broker).await;
            assert!(provider.world().await.deletes > before, "{delete}");
            for sandbox in &returned {
                assert_eq!(attempts(broker, sandbox).await, 0, "{delete}");
            }
            if delete["retry_after_s"] == 600 {
                let shown = broker.shown(returned.last().expect("one")).await;
                let waits = shown["due_at"].as_u64().unwrap() - shown["updated_at"].as_u64().unwrap();
                assert!((590..=600).contains(&waits), "{delete}: {shown:#}");
            }
            // The slots were held for all: the next one comes now.
            for pace in ["PACE", "PACE#CALLS"] {
                broker.table().delete(pace).await;
            }
            start_anew(broker).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_one_account_that_asks_to_wait_holds_up_no_other() {
    let provider = Provider::start(8).await;
    story(provider.setup().pool(8).workers(1), async |broker| {
        let mut deleted = 0;
        for (status, spent) in [(409, 1), (403, 0)] {
            let returned = give_back(broker, 4).await;
            let stuck = &returned[0];
            let delete = json!({ "status": status, "retry_after_s": 600, "only": stuck });
            provider.misbehave(json!({ "delete": delete })).await;
            deleted += 3;
            clean_up_until_deleted(broker, deleted).await;
            broker.queues().are_empty().await;
            assert_eq!(attempts(broker, stuck).await, spent, "{status}");
            let shown = broker.shown(stuck).await;
            let waits = shown["due_at"].as_u64().unwrap() - shown["updated_at"].as_u64().unwrap();
            assert!((590..=600).contains(&waits), "{status}: {shown:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_speaks_of_this_sandbox_spends_an_attempt() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3).workers(1), async |broker| {
        let returned = &give_back(broker, 1).await[0];
        for (spent, code) in [400, 409, 422, 423].into_iter().enumerate() {
            provider.misbehave(json!({ "delete": { "status": code } })).await;
            broker.cli_ok(&["sandbox", "retry-delete", returned]).await;
            clean_up(broker).await;
            assert_eq!(attempts(broker, returned).await, spent as u64 + 1, "{code}");
            let shown = broker.shown(returned).await;
            let why = shown["deletion_error"].as_str().unwrap_or_default();
            assert!(why.contains(&code.to_string()), "{shown:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_failure_that_others_have_too_is_nobodys_and_one_that_they_have_not_is() {
    let provider = Provider::start(14).await;
    // What was asked for once comes again only when the story says so.
    let setup = provider.setup().pool(14).workers(1).var("BROKER_DELETION_BACKOFF_S", "3600");
    story(setup, async |broker| {
        let returned = give_back(broker, 4).await;
        provider.misbehave(json!({ "delete": { "status": 500 } })).await;
        clean_up(broker).await;
        let mut spent = 0;
        for sandbox in &returned {
            spent += attempts(broker, sandbox).await;
        }
        assert_eq!(spent, 1, "of the first one, which was alone by then");

        // One account is forbidden, and everybody else is deleted.
        let stuck = &returned[0];
        provider.misbehave(json!({ "delete": { "status": 403, "only": stuck } })).await;
        start_anew(broker).await;
        let (before, mut deleted) = (attempts(broker, stuck).await, 0);
        for round in 0..3 {
            deleted += 1;
            broker.cli_ok(&["sandbox", "retry-delete", stuck]).await;
            clean_up(broker).await;
            assert_eq!(attempts(broker, stuck).await, before + round.min(2), "{round}");
            broker.cli_ok(&["sandbox", "retry-delete", &returned[deleted]]).await;
            clean_up(broker).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_gone_is_gone_once_it_is_known_that_the_provider_is_there() {
    let provider = Provider::start(8).await;
    story(provider.setup().pool(8).workers(1), async |broker| {
        let returned = give_back(broker, 3).await;
        // Nothing is found there, neither the list: that is another server.
        for status in [404, 410] {
            let nothing = json!({ "status": status });
            provider.misbehave(json!({ "list": nothing, "delete": nothing })).await;
            for sandbox in &returned {
                broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
            }
            clean_up(broker).await;
            for sandbox in &returned {
                assert_eq!(attempts(broker, sandbox).await, 0, "{status}");
            }
            start_anew(broker).await;
        }
        for (sandbox, delete) in returned.iter().zip([
            json!({ "status": 410 }),
            json!({ "status": 404, "html": true }),
            json!({ "status": 404 }),
        ]) {
            provider.misbehave(json!({ "delete": delete })).await;
            broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
            wait_for_condition("a tombstone", async || {
                clean_up(broker).await;
                match status(broker, sandbox).await {
                    gone if gone == "deleted" => Ok(()),
                    other => Err((delete.clone(), other)),
                }
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_has_moved_is_followed_once_to_the_same_account() {
    let provider = Provider::start(6).await;
    story(provider.setup().pool(6).workers(1), async |broker| {
        for (number, moved) in [
            json!({ "status": 301, "location": "{path}/" }),
            json!({ "status": 302, "location": "{base}{path}/" }),
            json!({ "status": 307, "location": "{path}/?now=1" }),
            json!({ "status": 308, "location": "{path}/" }),
        ]
        .into_iter()
        .enumerate()
        {
            provider.misbehave(json!({ "delete": moved })).await;
            let track = format!("mover-{number}");
            let given = broker.allocate(&track).send().await.expect_status(201);
            broker.return_sandbox(given.sandbox_id(), &track).send().await.expect_status(200);
            clean_up_until_deleted(broker, number as u64 + 1).await;
            assert_eq!(broker.shown(given.sandbox_id()).await["deletion_attempts"], 0, "{moved}");
        }
        let world = provider.world().await;
        assert_eq!(world.deletions_that("deleted"), 4, "{world:?}");
        assert_eq!(world.accounts.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_spends_no_attempt() {
    let provider = Provider::start(3).await;
    for (url, why) in [
        ("http://127.0.0.1:1", "did not answer"),
        ("https://{address}", "BROKER_PROVIDER_URL"),
        ("http://provider.invalid", "did not answer"),
    ] {
        let address = provider.url().trim_start_matches("http://").to_owned();
        let url = url.replace("{address}", &address);
        let setup = provider.setup().pool(3).workers(1).var("BROKER_PROVIDER_URL", &url);
        story(setup, async |broker| {
            let returned = &give_back(broker, 1).await[0];
            for _ in 0..2 {
                broker.cli_ok(&["sandbox", "retry-delete", returned]).await;
                clean_up(broker).await;
            }
            assert_eq!(attempts(broker, returned).await, 0, "{url}");
            let log = broker.worker_mut(0).process().log();
            assert!(log.contains(why), "{url}: {log}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_value_of_a_header_is_no_value_of_ours() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3).workers(1), async |broker| {
        let returned = &give_back(broker, 1).await[0];
        for header in ["", "soon", "-5", "1.5"] {
            provider.misbehave(json!({ "delete": { "status": 503, "retry_after": header } })).await;
            broker.cli_ok(&["sandbox", "retry-delete", returned]).await;
            clean_up(broker).await;
            let left: Value = broker.shown(returned).await["deletion_attempts"].clone();
            assert_eq!(left, 0, "{header:?}");
        }
    })
    .await;
}
