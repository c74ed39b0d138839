//! Supply of sandboxes: a rise by schedule, a provider that fails and recovers, failed deletions, the same over HTTP; and the
//! bounds that refill keeps.

use std::collections::BTreeSet;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::dates::{Shift, relay};
use broker_tests::setup::Environment;
use broker_tests::table::{now_s, number};
use broker_tests::{Answer, Broker, Provider, Setup, story, together, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use crate::policy;

const DAY: u64 = 86_400;

fn small(provider: &Provider, refill: &str) -> String {
    let url = provider.url();
    format!(
        "[flavour.small]\nprefix = \"sandbox-\"\n\
         refill = {{ {refill}, rate_per_minute = 6000, url = \"{url}/hooks/refill\", timeout_s = 2 }}\n"
    )
}

async fn status(broker: &Broker) -> Value {
    let flavours: Value = broker.cli_ok(&["refill", "status", "--json"]).await.json();
    flavours[0].clone()
}

async fn heard(provider: &Provider) -> usize {
    provider.world().await.hooked("refill.requested").count()
}

/// Counts and asks until the hook was called `count` times.
async fn asked(broker: &Broker, provider: &Provider, count: usize) {
    wait_for_condition(&format!("{count} calls of the hook"), async || {
        broker.job("census").await;
        broker.job("refill").await;
        let heard = heard(provider).await;
        if heard < count { Err(heard) } else { Ok(()) }
    })
    .await;
}

async fn admin(broker: &Broker, method: Method, path: &str, token: &str) -> Answer {
    broker.balanced().call(method, &format!("/v1/admin/refill{path}")).token(token).send().await
}

/// The next Monday, by UTC, as seconds since the epoch.
fn next_monday() -> u64 {
    let today = now_s() / DAY;
    // Day 4 was the first Monday.
    let days = (4 + 7 - today % 7) % 7;
    (today + if days == 0 { 7 } else { days }) * DAY
}

#[tokio::test]
async fn on_monday_at_eight_the_target_is_lifted_and_in_the_evening_it_is_not() {
    let shift = Shift::default();
    let mut setup = Setup::new().apis(1).workers(1).pool(1);
    for (name, url) in relay(&shift).await {
        setup = setup.var(name, &url);
    }
    story(setup, async |broker| {
        let text = "[flavour.small]\nprefix = \"sandbox-\"\nrefill = { min = 1, max = 9, rate_per_minute = 60, \
                    schedule = [{ from = \"0 8 * * MON-FRI\", hours = 10, zone = \"Etc/GMT-1\", min = 4 }] }\n";
        policy::apply(broker, text).await;
        // Eight o'clock there is seven by UTC.
        let eight = next_monday() + 7 * 3_600;
        for (what, at, desired) in [
            ("a minute before", eight - 60, 1),
            ("eight", eight, 4),
            ("half past five", eight + 9 * 3_600 + 1_800, 4),
            ("six in the evening", eight + 10 * 3_600, 1),
            ("Tuesday", eight + DAY, 4),
        ] {
            shift.set(i64::try_from(at - now_s()).expect("a week"));
            wait_for_condition(&format!("what is wanted {what}"), async || {
                let over_http = admin(broker, Method::GET, "", ADMIN_TOKEN).await;
                let told = [status(broker).await["desired"].clone(), over_http.json["flavours"][0]["desired"].clone()];
                if told == [json!(desired), json!(desired)] { Ok(()) } else { Err((told, over_http.text)) }
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_window_that_is_open_fills_the_pool_and_one_that_is_over_asks_for_nothing() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1).pool(1), async |broker| {
        let hour = now_s() % DAY / 3_600;
        let window = |from: u64, min: u32| {
            let from = (hour + from) % 24;
            format!("{{ from = \"0 {from} * * *\", hours = 2, zone = \"UTC\", min = {min} }}")
        };
        // One is open, one begins in twelve hours.
        let schedule = format!("min = 1, max = 9, schedule = [{}, {}]", window(0, 4), window(12, 8));
        policy::apply(broker, &small(&provider, &schedule)).await;
        asked(broker, &provider, 3).await;
        broker.job("sync").await;
        assert_eq!(broker.stats().await.available, 4);
        let schedule = format!("min = 1, max = 9, schedule = [{}]", window(12, 8));
        policy::apply(broker, &small(&provider, &schedule)).await;
        wait_for_condition("the new target", async || {
            broker.job("census").await;
            assert_eq!(broker.job("refill").await.changed, 0);
            let told = status(broker).await;
            if told["desired"] == json!(1) && told["live"] == json!(4) { Ok(()) } else { Err(told) }
        })
        .await;
        assert_eq!(heard(&provider).await, 3, "what is there too many stays, and nothing is asked for");
    })
    .await;
}

#[tokio::test]
async fn a_flavour_that_the_policy_does_not_refill_any_more_is_not_shown_as_stopped() {
    let provider = Provider::start(2).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 503 } })).await;
        policy::apply(broker, &small(&provider, "min = 8, max = 20")).await;
        broker.job("sync").await;
        asked(broker, &provider, 5).await;
        let shown = async |gauge: &str, is: f64| {
            wait_for_condition(&format!("{gauge} {is}"), async || {
                broker.job("refill").await;
                match broker.worker(0).metrics().metric(gauge).await {
                    shown if shown == is => Ok(()),
                    other => Err(other),
                }
            })
            .await;
        };
        shown("broker_refill_stopped", 1.0).await;
        // The worker has looked at the flavours since.
        shown("broker_flavour_sandboxes", 2.0).await;
        policy::apply(broker, "[flavour.small]\nprefix = \"sandbox-\"\n").await;
        for gauge in ["broker_refill_stopped", "broker_refill_missing", "broker_refill_tickets"] {
            shown(gauge, 0.0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_worker_shows_whether_refill_is_stopped_whoever_ran_it_last() {
    let provider = Provider::start(2).await;
    story(provider.setup().apis(1).workers(2), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 503 } })).await;
        policy::apply(broker, &small(&provider, "min = 8, max = 20")).await;
        broker.job("sync").await;
        asked(broker, &provider, 5).await;
        broker.cli_ok(&["job", "pause", "refill"]).await;
        let shown = async |gauge: &str, is: f64| {
            wait_for_condition(&format!("{gauge} {is} of both"), async || {
                let of = async |worker: usize| broker.worker(worker).metrics().metric(gauge).await;
                let both = [of(0).await, of(1).await];
                if both == [is; 2] { Ok(()) } else { Err(both) }
            })
            .await;
        };
        shown("broker_refill_stopped", 1.0).await;
        broker.cli_ok(&["refill", "resume", "small"]).await;
        shown("broker_refill_stopped", 0.0).await;
        broker.cli_ok(&["refill", "pause", "small"]).await;
        shown("broker_refill_paused", 1.0).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_under_a_policy_that_is_replaced_asks_for_no_more() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(1), async |broker| {
        // As many as a run asks for in its whole time.
        let slow = small(&provider, "min = 100, max = 200").replace("= 6000", "= 120");
        policy::apply(broker, &slow).await;
        let run = asked(broker, &provider, 1);
        let replaced = async {
            wait_for_condition("a run to ask", async || match heard(&provider).await {
                heard if heard >= 3 => Ok(()),
                few => Err(few),
            })
            .await;
            policy::apply(broker, &slow.replace("max = 200", "max = 100")).await;
            heard(&provider).await
        };
        let ((), before) = tokio::join!(run, replaced);
        let after = heard(&provider).await;
        assert!(after <= before + 5, "one round: {before} were asked for, then {after}");
    })
    .await;
}

/// As if the back-off of the breaker were over, and the pause of each ticket, which is shorter.
async fn back_off_is_over(broker: &Broker) {
    for mut ticket in broker.table().list("TICKET#small").await {
        if ticket.contains_key("due_at_ms") {
            ticket.insert("due_at_ms".to_owned(), number(now_s() * 1_000));
            broker.table().put(ticket).await;
        }
    }
    let mut flow = broker.table().must_get("REFILL#small").await;
    flow.insert("probe_at_ms".to_owned(), number(now_s() * 1_000));
    broker.table().put(flow).await;
}

#[tokio::test]
async fn a_vendor_that_is_down_is_called_five_times_then_once_a_back_off_and_filled_from_when_it_is_back() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(1).workers(2), async |broker| {
        provider.misbehave(json!({ "refill": { "status": 503 } })).await;
        policy::apply(broker, &small(&provider, "min = 8, max = 20")).await;
        asked(broker, &provider, 5).await;
        let environment: Environment = (**broker).clone();
        let four = async || {
            let runs = (0..4).map(|_| environment.clone());
            together(runs.map(|environment| async move { environment.job("refill").await })).await
        };
        four().await;
        assert_eq!(heard(&provider).await, 5, "five, whoever runs it and how often");
        let gauge = async |name: &str| {
            broker.worker(0).metrics().metric(name).await + broker.worker(1).metrics().metric(name).await
        };
        assert!(gauge("broker_refill_stopped").await >= 1.0, "the alert's gauge");

        let mut pauses = Vec::new();
        for probes in 1..=3 {
            // Each process has a breaker of its own before the hook; these have not failed yet.
            broker.stop_workers().await;
            broker.start_worker().await;
            broker.start_worker().await;
            wait_for_condition("one call, and no more, a back-off", async || {
                back_off_is_over(broker).await;
                four().await;
                match heard(&provider).await {
                    calls if calls == 5 + probes => Ok(()),
                    other => Err(other),
                }
            })
            .await;
            let next = status(broker).await["next_call_at"].as_u64().expect("a time");
            pauses.push(next.saturating_sub(now_s()));
        }
        assert!(pauses.is_sorted() && pauses[2] > 60, "each is longer: {pauses:?}");

        provider.behave().await;
        broker.stop_workers().await;
        broker.start_worker().await;
        back_off_is_over(broker).await;
        wait_for_condition("everything that is missing", async || {
            broker.job("refill").await;
            // An empty list is refused: as long as nothing was made.
            broker.cli(&["job", "run", "sync"]).await;
            broker.job("census").await;
            match broker.stats().await.available {
                8 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let told = status(broker).await;
        assert_eq!((&told["state"], &told["missing"]), (&json!("running"), &json!(0)), "{told:#}");
        let world = provider.world().await;
        let ids: BTreeSet<_> = world.hooked("refill.requested").map(|call| &call.id).collect();
        assert_eq!((ids.len(), world.made), (8, 8), "a ticket for each, and an account for each ticket");
    })
    .await;
}

#[tokio::test]
async fn two_schedulers_duplicates_and_answers_that_come_late_or_never_ask_for_no_more_than_max() {
    const START: &str = r#"{"v":1,"body":{"kind":"start_job","job":"refill"}}"#;
    let provider = Provider::start(3).await;
    let setup = provider.setup().apis(1).workers(4).pool(3).var("BROKER_SCHEDULER", "workers");
    story(setup.var("BROKER_REFILL_EVERY_S", "1").var("BROKER_CENSUS_EVERY_S", "1"), async |broker| {
        for job in ["expire", "cleanup", "purge-stale", "sweep"] {
            broker.cli_ok(&["job", "pause", job]).await;
        }
        let fault = json!({ "delay_ms": 300, "lost": true, "every": 2 });
        provider.misbehave(json!({ "refill": fault })).await;
        policy::apply(broker, &small(&provider, "min = 12, max = 12")).await;
        // Students take what is there meanwhile.
        let (queues, name) = (broker.queues(), broker.queues().name("maintenance"));
        for track in ["a", "b", "c"] {
            queues.send_all(&name, &vec![START.to_owned(); 5]).await;
            broker.allocate(track).send().await.expect_status(201);
        }
        wait_for_condition("as many as there may be", async || {
            queues.send_all(&name, &vec![START.to_owned(); 5]).await;
            broker.job("sync").await;
            let (stats, world) = (broker.stats().await, provider.world().await);
            assert!(stats.total <= 12 && world.made <= 12, "{stats:?} {world:?}");
            if stats.total == 12 { Ok(()) } else { Err(stats) }
        })
        .await;
        // Nothing that was under way makes another one.
        for job in ["refill", "census", "sync"] {
            broker.cli_ok(&["job", "pause", job]).await;
        }
        queues.are_empty().await;
        assert_eq!((provider.world().await.made, broker.stats().await.total), (12, 12));
    })
    .await;
}

#[tokio::test]
async fn over_http_an_operator_sees_what_is_short_and_pauses_and_resumes_it() {
    let provider = Provider::start(0).await;
    let tokens = format!("ops={ADMIN_TOKEN}, looker:ro=tok-reads-only-0123456789");
    let setup = provider.setup().apis(1).workers(1).var("BROKER_ADMIN_TOKENS", &tokens);
    story(setup, async |broker| {
        let none = admin(broker, Method::GET, "", ADMIN_TOKEN).await.expect_status(200);
        assert_eq!(none.json["flavours"], json!([]));
        let text = format!("{}[flavour.plain]\nprefix = \"plain-\"\n", small(&provider, "min = 2, max = 5"));
        policy::apply(broker, &text).await;
        broker.job("census").await;
        let listed = admin(broker, Method::GET, "", "tok-reads-only-0123456789").await.expect_status(200);
        assert_eq!(listed.json["flavours"].as_array().map(Vec::len), Some(1), "{:#}", listed.json);
        let told = &listed.json["flavours"][0];
        assert_eq!(
            [&told["flavour"], &told["state"], &told["desired"], &told["missing"], &told["max"]],
            [&json!("small"), &json!("running"), &json!(2), &json!(2), &json!(5)],
            "{told:#}"
        );

        let paused = admin(broker, Method::POST, "/small/pause", ADMIN_TOKEN).await.expect_status(200);
        assert_eq!(paused.json["state"], "paused", "{:#}", paused.json);
        assert_eq!(status(broker).await["state"], "paused", "the command says the same");
        for _ in 0..2 {
            broker.job("refill").await;
        }
        assert_eq!(heard(&provider).await, 0);
        let again = admin(broker, Method::POST, "/small/pause", ADMIN_TOKEN).await.expect_status(200);
        assert_eq!(again.json["state"], "paused", "twice is once");
        let resumed = admin(broker, Method::POST, "/small/resume", ADMIN_TOKEN).await.expect_status(200);
        assert_eq!(resumed.json["state"], "running", "{:#}", resumed.json);
        asked(broker, &provider, 2).await;

        for (method, path, token, status, code) in [
            (Method::POST, "/small/pause", "tok-reads-only-0123456789", 403, "FORBIDDEN"),
            (Method::POST, "/nothing/pause", ADMIN_TOKEN, 404, "NOT_FOUND"),
            (Method::POST, "/plain/resume", ADMIN_TOKEN, 404, "NOT_FOUND"),
            (Method::POST, "/UPPER%20/resume", ADMIN_TOKEN, 404, "NOT_FOUND"),
            (Method::GET, "/small/pause", ADMIN_TOKEN, 405, "METHOD_NOT_ALLOWED"),
            (Method::GET, "?state=paused", ADMIN_TOKEN, 400, "VALIDATION_ERROR"),
        ] {
            admin(broker, method, path, token).await.expect_problem(status, code);
        }
        let audit: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        let mut acts: Vec<_> = audit.iter().filter_map(|line| line["act"].as_str()).collect();
        acts.retain(|act| act.contains("refill"));
        acts.sort_unstable();
        assert_eq!(acts, ["pause_refill", "pause_refill", "resume_refill"], "{audit:#?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_does_not_delete_is_looked_at_by_a_person_where_the_policy_says_so() {
    let provider = Provider::start(10).await;
    story(provider.setup().apis(1).workers(1).pool(10), async |broker| {
        let text = "[flavour.small]\nprefix = \"sandbox-\"\nfailed_deletions = \"quarantine\"\n";
        policy::apply(broker, text).await;
        wait_for_condition("a census by a worker that knows the policy", async || {
            broker.job("census").await;
            let census = broker.table().must_get("CENSUS").await;
            if census.contains_key("by_flavour") { Ok(()) } else { Err(census) }
        })
        .await;
        provider.misbehave(json!({ "delete": { "status": 409 } })).await;
        let mut given_back = Vec::new();
        for track in ["a", "b", "c"] {
            let held = broker.allocate(track).send().await.expect_status(201);
            broker.return_sandbox(held.sandbox_id(), track).send().await.expect_status(200);
            given_back.push(held.sandbox_id().to_owned());
            // As if four attempts had failed before.
            let mut item = broker.table().must_get(&format!("SBX#{}", held.sandbox_id())).await;
            item.insert("deletion_retry_count".to_owned(), number(4));
            broker.table().put(item).await;
        }
        wait_for_condition("the fifth attempt of each", async || {
            broker.job("cleanup").await;
            let stats = broker.stats().await;
            if stats.pending_deletion == 0 { Ok(()) } else { Err(stats) }
        })
        .await;
        // Two are a fifth of ten; the third is tried again a day later.
        let stats = broker.stats().await;
        assert_eq!((stats.quarantined, stats.deletion_failed), (2, 1), "{stats:?}");
        let listed: Vec<Value> = broker.cli_ok(&["quarantine", "list", "--json"]).await.json();
        for one in &listed {
            assert_eq!(one["quarantine_cause"], "deletion", "{one:#}");
            let why = one["quarantine_reason"].as_str().unwrap_or_default();
            assert!(why.contains("not deleted in 5 attempts") && why.contains("409"), "{one:#}");
        }
        let metrics = broker.worker(0).metrics();
        assert_eq!(metrics.metric("broker_quarantined_total").await, 2.0);
        // They were used: nobody can let them go, and mended they are deleted for good.
        let refused = broker.cli(&["quarantine", "release", "--cause", "deletion"]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        provider.behave().await;
        broker.cli_ok(&["quarantine", "retire", "--cause", "deletion"]).await;
        wait_for_condition("two tombstones", async || {
            broker.job("cleanup").await;
            let stats = broker.stats().await;
            if (stats.deleted, stats.quarantined) == (2, 0) { Ok(()) } else { Err(stats) }
        })
        .await;
    })
    .await;
}
