//! Refill: a pool that runs low asks for more, never for more than may exist, and not a hook that does not answer.

use broker_tests::table::{now_ms, now_s, number, sandbox_key, text};
use broker_tests::{Broker, Provider, story, wait_for_condition};
use serde_json::{Value, json};

use crate::arriving::left_behind;
use crate::policy;

fn small(provider: &Provider, min: u32, max: u32, rate: u32) -> String {
    let url = provider.url();
    format!(
        "[flavour.small]\nprefix = \"sandbox-\"\n\
         refill = {{ min = {min}, max = {max}, rate_per_minute = {rate}, url = \"{url}/hooks/refill\" }}\n"
    )
}

/// Counts and asks until the hook was called `count` times.
async fn asked(broker: &Broker, provider: &Provider, count: usize) {
    wait_for_condition(&format!("{count} calls of the hook"), async || {
        broker.job("census").await;
        broker.job("refill").await;
        let heard = provider.world().await.hooked("refill.requested").count();
        if heard < count { Err(heard) } else { Ok(()) }
    })
    .await;
}

async fn status(broker: &Broker) -> Value {
    let flavours: Value = broker.cli_ok(&["refill", "status", "--json"]).await.json();
    flavours[0].clone()
}

#[tokio::test]
async fn a_pool_that_runs_low_asks_for_what_is_missing_and_never_beyond_max() {
    let provider = Provider::start(2).await;
    story(provider.setup().apis(1).workers(2).pool(2), async |broker| {
        policy::apply(broker, &small(&provider, 4, 5, 6_000)).await;
        asked(broker, &provider, 2).await;
        let report = broker.job("refill").await;
        assert_eq!(report.changed, 0, "what was asked for is to come: {report:?}");
        let told = status(broker).await;
        assert_eq!(
            (&told["state"], &told["tickets"], &told["missing"]),
            (&json!("running"), &json!(2), &json!(0)),
            "{told:#}"
        );

        let arrived = broker.job("sync").await;
        assert_eq!(arrived.details["tickets_taken"], 2, "{arrived:?}");
        assert_eq!(broker.stats().await.available, 4);
        // Three students come: three are missing, and there is room for one.
        for student in ["a", "b", "c"] {
            broker.allocate(student).send().await.expect_status(201);
        }
        asked(broker, &provider, 3).await;
        broker.job("census").await;
        assert_eq!(broker.job("refill").await.changed, 0);
        let world = provider.world().await;
        let ids: std::collections::BTreeSet<_> =
            world.hooked("refill.requested").map(|call| &call.id).collect();
        assert_eq!((ids.len(), world.accounts.len()), (3, 5), "{world:?}");
        let told = status(broker).await;
        assert_eq!(
            (&told["live"], &told["tickets"], &told["missing"]),
            (&json!(4), &json!(1), &json!(2)),
            "{told:#}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_does_not_answer_is_called_five_times_until_somebody_resumes() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 500 } })).await;
        policy::apply(broker, &small(&provider, 9, 20, 6_000)).await;
        asked(broker, &provider, 5).await;
        for _ in 0..3 {
            broker.job("refill").await;
        }
        assert_eq!(provider.world().await.hooked("refill.requested").count(), 5);
        let told = status(broker).await;
        assert_eq!((&told["state"], &told["tickets"]), (&json!("stopped"), &json!(5)), "{told:#}");
        assert!(told["next_call_at"].is_u64(), "{told:#}");

        broker.cli_ok(&["refill", "pause", "small"]).await;
        provider.behave().await;
        assert_eq!(broker.job("refill").await.changed, 0, "paused");
        broker.cli_ok(&["refill", "resume", "small"]).await;
        assert_eq!(status(broker).await["state"], json!("running"));
        asked(broker, &provider, 9).await;
        let unknown = broker.cli(&["refill", "pause", "smal"]).await;
        assert_eq!(unknown.code, 2, "{unknown:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_refuses_all_it_is_asked_is_called_five_times_too() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 401, "reason": "wrong signature" } })).await;
        policy::apply(broker, &small(&provider, 9, 20, 6_000)).await;
        asked(broker, &provider, 5).await;
        for _ in 0..3 {
            broker.job("refill").await;
        }
        assert_eq!(provider.world().await.hooked("refill.requested").count(), 5);
        let told = status(broker).await;
        assert_eq!((&told["state"], &told["tickets"]), (&json!("stopped"), &json!(0)), "{told:#}");
        provider.behave().await;
        broker.cli_ok(&["refill", "resume", "small"]).await;
        asked(broker, &provider, 14).await;
    })
    .await;
}

#[tokio::test]
async fn what_nobody_asked_for_takes_no_ticket_and_counts_and_429_is_asked_again() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 429, "retry_after_s": 1, "times": 1 } })).await;
        policy::apply(broker, &small(&provider, 2, 2, 6_000)).await;
        asked(broker, &provider, 3).await;
        // Two came for the tickets, and then two that nobody asked for.
        broker.job("sync").await;
        assert_eq!(broker.stats().await.available, 2);
        provider.grow(2).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details.get("tickets_taken")), (2, None), "{report:?}");
        broker.job("census").await;
        assert_eq!(broker.job("refill").await.changed, 0);
    })
    .await;
}

/// Lets the tickets of the flavour have been made `minutes` ago, and tells how many there are.
async fn age_tickets(broker: &Broker, minutes: u64) -> usize {
    let tickets = broker.table().list("TICKET#small").await;
    // Those of one round have one time.
    let made_at = now_ms() - minutes * 60_000;
    for mut ticket in tickets.clone() {
        ticket.insert("made_at_ms".to_owned(), number(made_at));
        broker.table().put(ticket).await;
    }
    tickets.len()
}

#[tokio::test]
async fn while_sync_cannot_let_in_what_was_asked_for_nothing_is_asked_for_again() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, &small(&provider, 3, 3, 6_000)).await;
        asked(broker, &provider, 3).await;
        provider.misbehave(json!({ "list": { "status": 500 } })).await;
        assert_eq!(age_tickets(broker, 60).await, 3);
        broker.job_refused("sync").await;
        for _ in 0..3 {
            broker.job("census").await;
            assert_eq!(broker.job("refill").await.changed, 0, "their sandboxes are there, and not let in");
        }
        let told = status(broker).await;
        assert_eq!((&told["tickets"], &told["missing"]), (&json!(3), &json!(0)), "{told:#}");

        provider.behave().await;
        assert_eq!(broker.job("sync").await.details["tickets_taken"], 3);
        assert_eq!(broker.stats().await.available, 3);
        broker.job("census").await;
        broker.job("refill").await;
        assert_eq!(provider.world().await.accounts.len(), 3, "as many as `max`");
    })
    .await;
}

#[tokio::test]
async fn what_a_list_does_not_show_after_half_an_hour_is_asked_for_again() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, &small(&provider, 3, 3, 6_000)).await;
        assert_eq!(broker.job("sync").await.changed, 1);
        asked(broker, &provider, 2).await;
        let made = provider.world().await.accounts.split_off(1);
        provider.misbehave(json!({ "list": { "forget": made } })).await;
        assert_eq!(age_tickets(broker, 60).await, 2);
        broker.job("sync").await;
        asked(broker, &provider, 4).await;
    })
    .await;
}

#[tokio::test]
async fn a_list_keeps_as_many_late_tickets_open_as_it_hides_rows() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, &small(&provider, 3, 3, 6_000)).await;
        asked(broker, &provider, 3).await;
        let made = provider.world().await.accounts;
        let rows: serde_json::Map<_, _> = made.into_iter().map(|id| (id, json!({ "name": null }))).collect();
        provider.misbehave(json!({ "list": { "rows": rows } })).await;
        assert_eq!(age_tickets(broker, 60).await, 3);
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["unreadable_rows"]), (0, 3), "{report:?}");
        broker.job("census").await;
        assert_eq!(broker.job("refill").await.changed, 0, "they are there, and cannot be read");
        let log = broker.worker_mut(0).process().log();
        assert!(log.contains("3 of its rows may be new"), "{log}");

        provider.behave().await;
        assert_eq!(broker.job("sync").await.details["tickets_taken"], 3);
        broker.job("census").await;
        broker.job("refill").await;
        assert_eq!(provider.world().await.accounts.len(), 3, "as many as `max`");
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_never_repaired_keeps_one_late_ticket_open_and_no_more() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, &small(&provider, 3, 3, 6_000)).await;
        let bad = provider.world().await.accounts.remove(0);
        asked(broker, &provider, 3).await;
        let lost = provider.world().await.accounts.split_off(1);
        provider.misbehave(json!({ "list": { "forget": lost, "rows": { (bad): { "name": null } } } })).await;
        assert_eq!(age_tickets(broker, 60).await, 3);
        assert_eq!(broker.job("sync").await.details["unreadable_rows"], 1);
        asked(broker, &provider, 5).await;
    })
    .await;
}

#[tokio::test]
async fn a_row_that_can_never_be_let_in_keeps_no_ticket_open() {
    let provider = Provider::start(2).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        let broken = sandbox_key("seed-000001");
        let item = [("PK", broken.as_str()), ("SK", "META"), ("status", "?")];
        broker.table().put(item.map(|(name, value)| (name.to_owned(), text(value))).into()).await;
        policy::apply(broker, &small(&provider, 3, 3, 6_000)).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.failed), (1, 1), "{report:?}");
        asked(broker, &provider, 2).await;
        let made = provider.world().await.accounts.split_off(2);
        provider.misbehave(json!({ "list": { "forget": made } })).await;
        assert_eq!(age_tickets(broker, 60).await, 2);
        assert_eq!(broker.job("sync").await.failed, 1);
        asked(broker, &provider, 4).await;
        broker.table().delete(&broken).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_arriving_is_not_asked_for_again() {
    let provider = Provider::start(2).await;
    let setup = provider.setup().apis(1).workers(1).pool(2).var("BROKER_SERVE_EVERY_S", "600");
    story(setup, async |broker| {
        broker.cli_ok(&["job", "pause", "serve"]).await;
        for sandbox in ["seed-000000", "seed-000001"] {
            left_behind(broker, sandbox, now_s()).await;
        }
        policy::apply(broker, &small(&provider, 3, 9, 6_000)).await;
        asked(broker, &provider, 1).await;
        assert_eq!(broker.job("refill").await.changed, 0);
        assert_eq!(provider.world().await.hooked("refill.requested").count(), 1, "one of three is missing");
        assert_eq!(broker.job("serve").await.changed, 2);
    })
    .await;
}
