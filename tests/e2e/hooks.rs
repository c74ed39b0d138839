//! Hooks: an operator tries one out, and one that is asked before each deletion.

use broker_tests::{Broker, Provider, story, wait_for_condition};
use serde_json::{Value, json};

use crate::policy;

/// A policy with every hook of the stand-in.
fn hooked(provider: &Provider, before_delete: &str) -> String {
    let url = provider.url();
    format!(
        "[flavour.small]\nprefix = \"sandbox-\"\ngate = {{ url = \"{url}/hooks/gate\" }}\n\
         before_delete = {{ url = \"{url}/hooks/before-delete\"{before_delete} }}\n"
    )
}

async fn give_back(broker: &Broker, track: &str) -> String {
    let held = broker.allocate(track).send().await.expect_status(201);
    broker.return_sandbox(held.sandbox_id(), track).send().await.expect_status(200);
    held.sandbox_id().to_owned()
}

#[tokio::test]
async fn an_operator_tries_a_hook_out_and_is_told_what_it_answers() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, &hooked(&provider, "")).await;
        let yes = broker.cli(&["hooks", "test", "small.gate", "--json"]).await;
        let told: Value = yes.json();
        assert_eq!((yes.code, &told["answer"], &told["status"]), (0, &json!("yes"), &json!(204)), "{yes:#?}");
        let world = provider.world().await;
        let heard: Vec<_> = world.hooked("hook.test").collect();
        assert_eq!((heard.len(), &heard[0].data["hook"]), (1, &json!("small.gate")), "{heard:?}");

        provider.misbehave(json!({ "gate": { "status": 422, "reason": "billing\u{7} is off" } })).await;
        let no = broker.cli(&["hooks", "test", "small.gate"]).await;
        assert_eq!(no.code, 1, "{no:#?}");
        assert!(no.stdout.contains("422") && no.stdout.contains("billing is off"), "{no:#?}");

        let unknown = broker.cli(&["hooks", "test", "small.gat"]).await;
        assert_eq!(unknown.code, 2, "{unknown:#?}");
        assert!(unknown.stderr.contains("small.gate, small.before_delete"), "{unknown:#?}");
        let unsigned =
            broker.cli_with(&["hooks", "test", "small.gate"], &[("BROKER_HOOK_SECRETS", "")]).await;
        assert_eq!(unsigned.code, 2, "{unsigned:#?}");
        assert!(unsigned.stderr.contains("BROKER_HOOK_SECRETS"), "{unsigned:#?}");
        let private =
            broker.cli_with(&["hooks", "test", "small.gate"], &[("BROKER_HOOK_NETWORKS", "")]).await;
        assert_eq!(private.code, 1, "{private:#?}");
        assert!(private.stdout.contains("BROKER_HOOK_NETWORKS"), "{private:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_waits_for_its_hook_and_spends_an_attempt_only_on_a_no() {
    let provider = Provider::start(2).await;
    story(provider.setup().apis(1).workers(1).pool(2), async |broker| {
        policy::apply(broker, &hooked(&provider, "")).await;
        let sandbox = give_back(broker, "student").await;
        let shown = async || broker.shown(&sandbox).await;

        provider.misbehave(json!({ "before_delete": { "status": 503 } })).await;
        heard(broker, &provider, 2).await;
        let waits = shown().await;
        assert_eq!(
            (&waits["status"], &waits["deletion_attempts"]),
            (&json!("pending_deletion"), &json!(0)),
            "{waits:#}"
        );

        provider
            .misbehave(json!({ "before_delete": { "status": 409, "reason": "bill is not written" } }))
            .await;
        wait_for_condition("an attempt", async || {
            broker.job("cleanup").await;
            let shown = shown().await;
            if shown["deletion_attempts"] == json!(0) { Err(shown) } else { Ok(()) }
        })
        .await;
        let refused = shown().await;
        assert!(refused["deletion_error"].to_string().contains("bill is not written"), "{refused:#}");
        assert_eq!(provider.world().await.deletes, 0, "the provider was not asked");

        provider.behave().await;
        deleted(broker, 1).await;
        let world = provider.world().await;
        let calls: Vec<_> = world.hooked("sandbox.before_delete").collect();
        let last = calls.last().expect("a call");
        assert!(calls.iter().all(|call| call.id == last.id), "one question: {calls:?}");
        assert_eq!(last.data["sandbox_id"], json!(sandbox), "{last:?}");
        assert!(last.at_ms <= world.deletions[0].at_ms, "the hook before the provider");
    })
    .await;
}

#[tokio::test]
async fn the_deletion_of_another_account_under_an_old_id_is_a_question_of_its_own() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1).pool(1), async |broker| {
        policy::apply(broker, &hooked(&provider, "")).await;
        let held = broker.allocate("student").send().await.expect_status(201);
        // Made while the old one was in use: it may have been used.
        provider.remake(held.sandbox_id()).await;
        broker.return_sandbox(held.sandbox_id(), "student").send().await.expect_status(200);
        deleted(broker, 1).await;
        assert_eq!(broker.job("sync").await.details["inserted_or_revived"], 1);
        deleted(broker, 1).await;
        let world = provider.world().await;
        let calls: Vec<_> = world.hooked("sandbox.before_delete").collect();
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert_ne!(calls[0].data["external_id"], calls[1].data["external_id"]);
        assert_ne!(calls[0].id, calls[1].id, "it is answered for this one: {calls:?}");
        assert_eq!(world.accounts, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn where_the_policy_says_so_a_hook_that_fails_is_passed_over() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1).pool(1), async |broker| {
        policy::apply(broker, &hooked(&provider, ", on_failure = \"pass\"")).await;
        provider.misbehave(json!({ "before_delete": { "lost": true } })).await;
        give_back(broker, "student").await;
        deleted(broker, 1).await;
        assert_eq!(provider.world().await.hooked("sandbox.before_delete").count(), 1);
    })
    .await;
}

async fn heard(broker: &Broker, provider: &Provider, count: usize) {
    wait_for_condition(&format!("{count} calls of the hook"), async || {
        broker.job("cleanup").await;
        let heard = provider.world().await.hooked("sandbox.before_delete").count();
        if heard < count { Err(heard) } else { Ok(()) }
    })
    .await;
}

async fn deleted(broker: &Broker, count: u64) {
    wait_for_condition(&format!("{count} tombstones"), async || {
        broker.job("cleanup").await;
        let stats = broker.stats().await;
        if stats.deleted == count { Ok(()) } else { Err(stats) }
    })
    .await;
}
