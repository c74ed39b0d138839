//! The gate: the operator's side is asked before a sandbox is offered, again if it does not answer, and its no is final.

use broker_tests::table::now_s;
use broker_tests::{Broker, Provider, story, wait_for_condition};
use serde_json::{Value, json};

use crate::policy;

fn guarded(provider: &Provider, attempts: u32) -> String {
    let url = provider.url();
    format!(
        "[flavour.small]\nprefix = \"sandbox-\"\n\
         gate = {{ url = \"{url}/hooks/gate\", timeout_s = 2, attempts = {attempts} }}\n\
         [flavour.open]\nprefix = \"open-\"\n"
    )
}

async fn counted(broker: &Broker, state: &str, count: u64) {
    wait_for_condition(&format!("{count} {state}"), async || {
        let stats: Value = broker.cli_ok(&["pool", "stats", "--json"]).await.json();
        if stats[state] == json!(count) { Ok(()) } else { Err(stats) }
    })
    .await;
}

#[tokio::test]
async fn what_the_gate_lets_pass_is_offered_and_what_it_refuses_is_in_quarantine_with_its_reason() {
    let provider = Provider::start(10).await;
    let setup = provider.setup().apis(1).workers(2).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        policy::apply(broker, &guarded(&provider, 3)).await;
        // Every fifth is broken.
        let refusal = json!({ "gate": { "status": 422, "reason": "billing\u{7} is off", "every": 5 } });
        provider.misbehave(refusal).await;
        broker.job("sync").await;
        counted(broker, "available", 8).await;
        counted(broker, "quarantined", 2).await;
        let stats: Value = broker.cli_ok(&["pool", "stats", "--json"]).await.json();
        let causes = json!({ "deletion": 0, "gate": 2, "operator": 0, "report": 0 });
        assert_eq!(stats["quarantined_by_cause"], causes);
        let listed: Vec<Value> = broker.cli_ok(&["quarantine", "list", "--json"]).await.json();
        for one in &listed {
            assert_eq!([&one["quarantine_cause"], &one["quarantined_by"]], ["gate", "broker"], "{one:#}");
            assert!(
                one["quarantine_reason"].as_str().is_some_and(|why| why.contains("billing is off")),
                "{one:#}"
            );
        }
        let world = provider.world().await;
        let asked: std::collections::BTreeSet<_> =
            world.hooked("sandbox.check").map(|call| &call.id).collect();
        assert_eq!((asked.len(), world.hooked("sandbox.check").count()), (10, 10), "each once: {world:?}");
        // Let go, it is asked anew: a question of its own.
        provider.behave().await;
        broker.cli_ok(&["quarantine", "release", "--cause", "gate"]).await;
        counted(broker, "available", 10).await;
        let world = provider.world().await;
        let asked: std::collections::BTreeSet<_> =
            world.hooked("sandbox.check").map(|call| &call.id).collect();
        assert_eq!(asked.len(), 12, "{world:?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_made_anew_goes_through_its_gate_and_is_offered_at_once_where_none_is() {
    let provider = Provider::start(10).await;
    let setup = provider.setup().apis(1).workers(1).pool(10).var("BROKER_SERVE_EVERY_S", "60");
    story(setup, async |broker| {
        let remade = ["seed-000001", "seed-000002"];
        provider.remake(remade[0]).await;
        assert_eq!(broker.job("sync").await.details["refreshed_or_returned"], 1);
        assert_eq!(broker.stats().await.available, 10, "no gate guards it");
        policy::apply(broker, &guarded(&provider, 3)).await;
        provider.misbehave(json!({ "gate": { "status": 422, "reason": "billing is off" } })).await;
        provider.remake(remade[1]).await;
        broker.job("sync").await;
        counted(broker, "quarantined", 1).await;
        let shown = broker.shown(remade[1]).await;
        assert_eq!(
            (&shown["status"], &shown["quarantine_cause"]),
            (&json!("quarantined"), &json!("gate")),
            "{shown:#}"
        );
        assert_eq!(broker.stats().await.available, 9);
        let world = provider.world().await;
        let asked: Vec<_> = world.hooked("sandbox.check").map(|call| &call.data["external_id"]).collect();
        assert_eq!(asked, [&shown["external_id"]], "{world:?}");
    })
    .await;
}

#[tokio::test]
async fn a_gate_that_does_not_answer_holds_no_other_flavour_and_is_asked_again_with_the_same_id() {
    let provider = Provider::start(1).await;
    let setup = provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        policy::apply(broker, &guarded(&provider, 20)).await;
        provider.misbehave(json!({ "gate": { "status": 500, "times": 1 } })).await;
        broker.job("sync").await;
        broker.cli_ok(&["pool", "seed", "--count", "2", "--start", "50", "--name-prefix", "open"]).await;
        assert_eq!(broker.stats().await.available, 2, "what no gate guards is offered at once");
        assert_eq!(broker.shown("seed-000000").await["status"], "arriving");
        counted(broker, "available", 3).await;
        let world = provider.world().await;
        let ids: std::collections::BTreeSet<_> = world.hooked("sandbox.check").map(|call| &call.id).collect();
        assert_eq!((ids.len(), world.hooked("sandbox.check").count()), (1, 2), "{world:?}");
    })
    .await;
}

#[tokio::test]
async fn when_every_third_sandbox_is_broken_a_fifth_goes_into_quarantine_and_an_alert_pages() {
    let provider = Provider::start(10).await;
    let setup = provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        policy::apply(broker, &guarded(&provider, 3)).await;
        provider.misbehave(json!({ "gate": { "status": 429, "retry_after_s": 1 } })).await;
        broker.job("sync").await;
        // The ceiling is of what was counted.
        wait_for_condition("a census by a worker that knows the policy", async || {
            broker.job("census").await;
            let stats = broker.balanced().call(http::Method::GET, "/v1/admin/flavours");
            let told = stats.token(broker_tests::api::ADMIN_TOKEN).send().await.expect_status(200).json;
            let flavours = told["flavours"].as_array().cloned().unwrap_or_default();
            let counted = flavours.iter().any(|one| one["counts"]["arriving"] == json!(10));
            if counted { Ok(()) } else { Err(told) }
        })
        .await;
        provider.misbehave(json!({ "gate": { "status": 422, "reason": "broken", "every": 3 } })).await;
        wait_for_condition("all have an answer", async || {
            let stats = broker.stats().await;
            let answered = stats.quarantined == 2 && stats.available + stats.arriving == 8;
            if answered && stats.available >= 6 { Ok(()) } else { Err(stats) }
        })
        .await;
        wait_for_condition("the alert's gauge", async || {
            broker.job("census").await;
            match broker.worker(0).metrics().metric("broker_quarantine_full").await {
                full if full > 0.0 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        assert_eq!(broker.worker(0).metrics().metric("broker_quarantined_sandboxes").await, 2.0);
        let stats = broker.balanced().call(http::Method::GET, "/v1/admin/stats");
        let stats = stats.token(broker_tests::api::ADMIN_TOKEN).send().await.expect_status(200).json;
        assert_eq!(stats["quarantined_by_cause"]["gate"], 2, "{stats:#}");
        // Mended: what was refused and stayed is asked again, what is in quarantine when it is let go.
        provider.behave().await;
        broker.cli_ok(&["quarantine", "release", "--all"]).await;
        wait_for_condition("those that were let go", async || match broker.stats().await {
            stats if stats.quarantined == 0 && stats.available >= 8 => Ok(()),
            stats => Err(stats),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn of_a_flavour_that_no_census_has_counted_a_fifth_goes_into_quarantine_too() {
    let provider = Provider::start(50).await;
    story(provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        policy::apply(broker, "[flavour.open]\nprefix = \"open-\"\n").await;
        broker.job("sync").await;
        counted(broker, "available", 50).await;
        broker.job("census").await;
        // The next ten are of the new flavour, and its gate knows none of them.
        let url = provider.url();
        let gated = format!(
            "[flavour.gpu]\nprefix = \"sandbox-00005\"\ngate = {{ url = \"{url}/hooks/gate\", timeout_s = 2 }}\n"
        );
        policy::apply(broker, &gated).await;
        provider.misbehave(json!({ "gate": { "status": 401, "reason": "who are you?" } })).await;
        provider.grow(10).await;
        broker.job("sync").await;
        wait_for_condition("all have an answer", async || {
            let stays = "refused by its gate; it stays arriving, because too much of its flavour is in quarantine";
            match broker.logged(stays).len() {
                8 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        counted(broker, "quarantined", 2).await;
        counted(broker, "arriving", 8).await;
    })
    .await;
}

#[tokio::test]
async fn everything_that_a_sync_brings_is_asked_about_without_another_look() {
    let provider = Provider::start(300).await;
    let setup = provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "3600");
    story(setup, async |broker| {
        policy::apply(broker, &guarded(&provider, 3)).await;
        // The next hundred arrive while it is asked about the first.
        provider.misbehave(json!({ "gate": { "delay_ms": 100 } })).await;
        broker.job("sync").await;
        counted(broker, "available", 300).await;
        assert_eq!(provider.world().await.hooked("sandbox.check").count(), 300, "each once");
    })
    .await;
}

#[tokio::test]
async fn a_policy_without_the_gate_ends_the_questions_that_are_under_way() {
    let provider = Provider::start(20).await;
    story(provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        let slow = guarded(&provider, 1).replace("timeout_s = 2", "timeout_s = 60");
        policy::apply(broker, &slow).await;
        // Its time would be over after a minute, and so would be all attempts.
        provider.misbehave(json!({ "gate": { "delay_ms": 90_000 } })).await;
        broker.job("sync").await;
        let table = broker.table();
        wait_for_condition("questions that are under way", async || {
            let mut asked = 0;
            for key in table.keys("SBX#").await {
                asked += usize::from(table.must_get(&key).await.contains_key("gate_check"));
            }
            if asked == 8 { Ok(()) } else { Err(asked) }
        })
        .await;
        policy::apply(broker, "[flavour.small]\nprefix = \"sandbox-\"\n").await;
        counted(broker, "available", 20).await;
    })
    .await;
}

#[tokio::test]
async fn while_the_pool_is_paused_no_gate_is_asked_and_nothing_is_offered() {
    let provider = Provider::start(80).await;
    let setup = provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        policy::apply(broker, &guarded(&provider, 20)).await;
        // Eight at a time, it would take fifteen seconds.
        provider.misbehave(json!({ "gate": { "delay_ms": 1_500 } })).await;
        broker.job("sync").await;
        broker.cli_ok(&["pool", "pause"]).await;
        wait_for_condition("the worker to leave the gate alone", async || {
            let left = broker.logged("its gate is not asked until the pool is open");
            if left.is_empty() { Err(broker.stats().await) } else { Ok(()) }
        })
        .await;
        let before = broker.stats().await;
        assert!(before.arriving > 0 && before.available + before.arriving == 80, "{before:?}");
        // Those that were under way would be answered by then.
        let due = now_s() + 3;
        wait_for_condition("their answers to be due", async || match now_s() {
            now if now >= due => Ok(()),
            now => Err(now),
        })
        .await;
        assert_eq!(broker.stats().await.available, before.available);
        provider.behave().await;
        broker.cli_ok(&["pool", "resume"]).await;
        counted(broker, "available", 80).await;
    })
    .await;
}
