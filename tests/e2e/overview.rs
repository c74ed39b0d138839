//! Problems in the overview: a provider that does not answer, a refused list, a stopped refill; and the cost of an overview.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::text;
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use crate::policy;

/// The overview of the API, and the same problems by the command.
async fn problems(broker: &Broker) -> Vec<Value> {
    let overview = broker.balanced().call(Method::GET, "/v1/admin/overview").token(ADMIN_TOKEN);
    overview.send().await.expect_status(200).json["problems"].as_array().expect("problems").clone()
}

/// Waits until the overview tells of `code`; what it says.
async fn tells(broker: &Broker, code: &str) -> Value {
    wait_for_condition(&format!("the overview to tell of {code}"), async || {
        let problems = problems(broker).await;
        problems.iter().find(|problem| problem["code"] == code).cloned().ok_or(problems)
    })
    .await
}

async fn tells_no_more(broker: &Broker, code: &str) {
    wait_for_condition(&format!("the overview not to tell of {code}"), async || {
        let problems = problems(broker).await;
        if problems.iter().any(|problem| problem["code"] == code) { Err(problems) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_list_that_was_not_applied_and_a_provider_that_is_down_are_wrong_now() {
    let provider = Provider::start(10).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        broker.job("sync").await;
        // More than a fifth is missing.
        let forgotten: Vec<_> = broker.table().keys("SBX#").await;
        let ids: Vec<_> = forgotten.iter().filter_map(|key| key.strip_prefix("SBX#")).take(8).collect();
        provider.misbehave(json!({ "list": { "forget": ids } })).await;
        broker.job_refused("sync").await;
        let refused = tells(broker, "sync_refused").await;
        assert_eq!(refused["runbook"], "pool-low", "{refused:#}");
        assert!(refused["text"].as_str().expect("text").contains("--accept-stale"), "{refused:#}");
        let printed = broker.cli_ok(&["overview"]).await.stdout;
        assert!(printed.contains("was not applied") && printed.contains("RUNBOOK.md#pool-low"), "{printed}");

        provider.behave().await;
        broker.job("sync").await;
        tells_no_more(broker, "sync_refused").await;

        // Five failures in a row open the breaker, whoever called.
        provider.misbehave(json!({ "list": { "status": 500 } })).await;
        for _ in 0..5 {
            broker.job_refused("sync").await;
        }
        let away = tells(broker, "provider_away").await;
        assert_eq!(away["runbook"], "provider-down", "{away:#}");
        assert!(away["text"].as_str().expect("text").contains("1 worker of 1"), "{away:#}");
        let printed = broker.cli_ok(&["overview"]).await.stdout;
        assert!(printed.contains("RUNBOOK.md#provider-down"), "{printed}");
        provider.behave().await;
    })
    .await;
}

#[tokio::test]
async fn a_refill_that_is_paused_or_whose_hook_does_not_answer_is_wrong_now() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 500 } })).await;
        let url = provider.url();
        let text = format!(
            "[flavour.small]\nprefix = \"sandbox-\"\n\
             refill = {{ min = 9, max = 20, rate_per_minute = 6000, url = \"{url}/hooks/refill\", timeout_s = 2 }}\n"
        );
        policy::apply(broker, &text).await;
        wait_for_condition("five calls of the hook", async || {
            broker.job("census").await;
            broker.job("refill").await;
            let heard = provider.world().await.hooked("refill.requested").count();
            if heard < 5 { Err(heard) } else { Ok(()) }
        })
        .await;
        let stopped = tells(broker, "refill_stopped").await;
        assert_eq!(stopped["runbook"], "refill", "{stopped:#}");
        broker.cli_ok(&["refill", "pause", "small", "--by", "maria"]).await;
        let paused = tells(broker, "refill_paused").await;
        assert!(paused["text"].as_str().expect("text").contains("small is paused by maria"), "{paused:#}");
        provider.behave().await;
        broker.cli_ok(&["refill", "resume", "small"]).await;
        tells_no_more(broker, "refill_paused").await;
        tells_no_more(broker, "refill_stopped").await;
    })
    .await;
}

#[tokio::test]
async fn hooks_that_do_not_answer_are_wrong_now_for_as_long_as_the_policy_has_them() {
    let provider = Provider::start(6).await;
    story(provider.setup().apis(1).workers(1).var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        provider.misbehave(json!({ "gate": { "status": 500 }, "before_delete": { "status": 503 } })).await;
        let url = provider.url();
        let blocked = format!(
            "[flavour.small]\nprefix = \"sandbox-\"\nbefore_delete = {{ url = \"{url}/hooks/before-delete\", on_failure = \"block\" }}\n"
        );
        policy::apply(broker, &blocked).await;
        broker.job("sync").await;
        for number in 0..6 {
            let track = format!("student-{number}");
            let own = broker.allocate(&track).send().await.expect_status(201);
            broker.return_sandbox(own.sandbox_id(), &track).send().await.expect_status(200);
        }
        let guarded =
            format!("{blocked}gate = {{ url = \"{url}/hooks/gate\", timeout_s = 2, attempts = 20 }}\n");
        policy::apply(broker, &guarded).await;
        // Six are asked about, and five failures open a breaker.
        broker.cli_ok(&["pool", "seed", "--name-prefix", "sandbox", "--start", "900", "--count", "6"]).await;
        let away = tells(broker, "gate_away").await;
        assert_eq!(away["runbook"], "hooks", "{away:#}");
        let said = away["text"].as_str().expect("text");
        assert!(said.contains("1 worker of 1") && said.contains("500"), "{said}");
        wait_for_condition("the overview to tell of the hook before deletions", async || {
            broker.job("cleanup").await;
            let problems = problems(broker).await;
            let told = problems.iter().any(|problem| problem["code"] == "before_delete_away");
            if told { Ok(()) } else { Err(problems) }
        })
        .await;
        let printed = broker.cli_ok(&["overview"]).await.stdout;
        assert!(printed.contains("hook before deletions") && printed.contains("RUNBOOK.md#hooks"), "{printed}");

        // The breakers stay open for a minute, but nobody asks these hooks any more.
        policy::apply(broker, "[flavour.small]\nprefix = \"sandbox-\"\n").await;
        provider.behave().await;
        tells_no_more(broker, "gate_away").await;
        tells_no_more(broker, "before_delete_away").await;
    })
    .await;
}

/// What the command asks of DynamoDB, by operation.
async fn asked(broker: &Broker) -> Vec<(String, u64)> {
    let url = broker.proxy().urls().dynamodb_url.clone();
    let before = broker.proxy().tallies();
    let told = broker.cli_with(&["overview", "--json"], &[("AWS_ENDPOINT_URL_DYNAMODB", &url)]).await;
    assert_eq!(told.code, 0, "{told:#?}");
    let after = broker.proxy().tallies();
    let counts =
        after.iter().map(|(operation, tally)| (operation.to_owned(), tally.calls - before.calls(operation)));
    counts.filter(|(_, calls)| *calls > 0).collect()
}

#[tokio::test]
async fn an_overview_costs_the_same_however_many_sandboxes_and_flavours_there_are() {
    story(Setup::new().apis(0).workers(0).faults(1), async |broker| {
        let flavours = |count: usize| -> String {
            let one = |n| format!("[flavour.f{n}]\nprefix = \"f{n}-\"\nrefill = {{ min = 1, max = 9, rate_per_minute = 60 }}\n");
            (0..count).map(one).collect()
        };
        let sum = |asked: &[(String, u64)], operations: &[&str]| -> u64 {
            asked.iter().filter(|(operation, _)| operations.contains(&operation.as_str())).map(|(_, calls)| calls).sum()
        };
        policy::apply(broker, &flavours(1)).await;
        let small = asked(broker).await;
        broker.seed(300).await;
        policy::apply(broker, &flavours(90)).await;
        let large = asked(broker).await;
        // Lists: the processes and the hour. Single items: the settings and the policy of the command, census, pool; what is read
        // in batches (eight ticks, ninety flavours) is one call or a few, as they come together.
        for (asked, what) in [(&small, "small"), (&large, "large")] {
            assert_eq!(sum(asked, &["Scan"]), 0, "{what}: {asked:?}");
            assert!(sum(asked, &["Query"]) <= 4, "{what}: {asked:?}");
            assert!(sum(asked, &["GetItem"]) <= 8, "{what}: {asked:?}");
            assert!(sum(asked, &["BatchGetItem"]) <= 8, "{what}: {asked:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_keeps_nothing_else_from_the_overview() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(0).var("BROKER_WAITING", "on"), async |broker| {
        let url = provider.url();
        let refill =
            format!("refill = {{ min = 1, max = 2, rate_per_minute = 60, url = \"{url}/hooks/refill\" }}");
        policy::apply(broker, &format!("[flavour.small]\nprefix = \"sandbox-\"\n{refill}\n")).await;
        let spoilt = ["REFILL#small", "CENSUS", "TICK#sync"];
        for key in spoilt {
            let names =
                [("PK", key), ("SK", "META"), ("version", "{"), ("as_of_ms", "{"), ("next_run_at_ms", "{")];
            broker.table().put(names.map(|(name, value)| (name.to_owned(), text(value))).into()).await;
        }
        tells(broker, "census_missing").await;
        for key in spoilt {
            broker.table().delete(key).await;
        }
    })
    .await;
}
