//! Quotas: a tenant with a limit holds so many sandboxes of a flavour, exactly, and whoever waits for a permit keeps its place.

use std::collections::BTreeSet;

use broker_tests::{Answer, Broker, Call, Fault, Rule, Setup, story, together, wait_for_condition};
use http::Method;
use serde_json::json;

use crate::quotas_shown::quota;
use crate::{count, policy};

pub(crate) const ACME: &str = "tok-of-acme-0123456789";
pub(crate) const UMBRELLA: &str = "tok-of-umbrella-01234";
pub(crate) const PERMITS: &str = "PERMIT#acme#lab-";

pub(crate) fn setup() -> Setup {
    let tokens = format!("first:tenant=acme={ACME},second:tenant=acme={ACME}-2,umbrella={UMBRELLA}");
    Setup::new()
        .var("BROKER_TRACK_TOKENS", &tokens)
        .var("BROKER_WAITING", "on")
        .var("BROKER_SERVE_EVERY_S", "1")
}

/// A policy in which the tenant `acme` may hold so many of `small`, and of `gpu`.
fn limits(small: u32, gpu: u32) -> String {
    format!(
        "[flavour.small]\nprefix = \"lab-\"\n[flavour.gpu]\nprefix = \"gpu-\"\n\
         [tenant.acme]\nlimits = {{ small = {small}, gpu = {gpu} }}\n"
    )
}

pub(crate) async fn limited(broker: &Broker, small: u32) {
    policy::apply(broker, &limits(small, 0)).await;
}

pub(crate) async fn seed(broker: &Broker, prefix: &str, start: usize, count: usize) {
    let (start, count) = (start.to_string(), count.to_string());
    let seed = ["pool", "seed", "--name-prefix", prefix, "--start", &start, "--count", &count];
    broker.cli_ok(&seed).await;
}

pub(crate) fn asks(broker: &Broker, track: &str) -> Call {
    broker.allocate(track).token(ACME).header("x-sandbox-flavour", "small")
}

fn waits(broker: &Broker, track: &str) -> Call {
    asks(broker, track).wait(1).json(&json!({ "max_wait_s": 600 }))
}

/// The permits of `acme` that are held.
pub(crate) async fn held(broker: &Broker) -> usize {
    broker.table().list(PERMITS).await.len()
}

async fn reason(broker: &Broker, location: &str, track: &str) -> String {
    wait_for_condition("it to stand in a line", async || {
        let told = broker.request(location, track).token(ACME).send().await.expect_status(200);
        match told.json["waiting"]["reason"].as_str() {
            Some(reason) => Ok(reason.to_owned()),
            None => Err(told.text),
        }
    })
    .await
}

/// Waits until the limit is named as what keeps it: an API remembers for two seconds what it counted before.
async fn limit_keeps(broker: &Broker, location: &str, track: &str) {
    wait_for_condition("the limit to be named", async || match reason(broker, location, track).await {
        named if named == "limit" => Ok(()),
        other => Err(other),
    })
    .await;
}

/// Asks, and waits until the request stands in its line.
pub(crate) async fn parked(broker: &Broker, track: &str) -> String {
    let queued = waits(broker, track).send().await.expect_status(202);
    let location = queued.must_have("location").to_owned();
    reason(broker, &location, track).await;
    location
}

pub(crate) async fn served(broker: &Broker, location: &str, track: &str) -> Answer {
    wait_for_condition("it to be served", async || {
        let told = broker.request(location, track).token(ACME).send().await.expect_status(200);
        if told.text_of("status") == "succeeded" { Ok(told) } else { Err(told.text) }
    })
    .await
}

pub(crate) async fn give_back(broker: &Broker, answer: &Answer, track: &str) {
    let sandbox = answer.text_of("sandbox_id").to_owned();
    broker.return_sandbox(&sandbox, track).token(ACME).send().await.expect_status(200);
}

#[tokio::test]
async fn a_thousand_at_once_get_exactly_as_many_as_the_limit_is() {
    story(setup().apis(2).workers(3), async |broker| {
        seed(broker, "lab", 0, 200).await;
        limited(broker, 40).await;
        let calls = (0..1_000).map(|n| {
            let track = format!("student-{}", n % 900);
            // Some twice, and over two tokens that are one tenant's.
            let token = if n % 2 == 0 { ACME.to_owned() } else { format!("{ACME}-2") };
            asks(broker, &track).token(&token).wait(50).send()
        });
        let answers = together(calls).await;
        let granted: Vec<_> = answers.iter().filter(|answer| [200, 201].contains(&answer.status)).collect();
        let sandboxes: BTreeSet<_> = granted.iter().map(|answer| answer.text_of("sandbox_id")).collect();
        assert_eq!(sandboxes.len(), 40);
        assert_eq!(granted.len() + count(&answers, 409), 1_000, "{:?}", count(&answers, 503));
        assert_eq!((held(broker).await, broker.verify().await.live_leases), (40, 40));
        let refused = answers.into_iter().find(|answer| answer.status == 409).expect("one was refused");
        let refused = refused.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(refused.json["quota"], json!({ "flavour": "small", "held": 40, "max": 40 }));
        assert!(refused.text.contains("holds 40 of 40"), "{}", refused.text);
        // Another tenant has no limit.
        let other = broker.allocate("other-1").token(UMBRELLA).header("x-sandbox-flavour", "small");
        other.send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_thousand_get_exactly_the_limit_while_workers_die_messages_double_and_calls_fail() {
    const ROUNDS: usize = 5;
    let setup = setup().apis(2).workers(3).faults(21).var("BROKER_VISIBILITY_S", "10");
    // All at once, as fast as they are answered.
    let setup = setup.var("BROKER_ASYNC_RATE", "0");
    story(setup, async |broker| {
        seed(broker, "lab", 0, 120).await;
        limited(broker, 30).await;
        let proxy = broker.proxy();
        proxy.add(Rule::new(Fault::Duplicate).on("SendMessageBatch").containing("-requests").chance(0.3));
        proxy.add(Rule::new(Fault::Conflict).on("TransactWriteItems").chance(0.2));
        proxy.add(Rule::new(Fault::LoseResponse).on("TransactWriteItems").chance(0.5));
        let mut sent = Vec::new();
        for round in 0..ROUNDS {
            let track = |n: usize| format!("student-{round}-{n}");
            let calls = (0..1_000 / ROUNDS).map(|n| asks(broker, &track(n)).respond_async().send());
            for (n, answer) in together(calls).await.into_iter().enumerate() {
                let location = answer.expect_status(202).must_have("location").to_owned();
                sent.push((location, track(n)));
            }
            if round + 1 < ROUNDS {
                broker.kill_worker(0);
                broker.start_worker().await;
            }
        }
        let mut ended = Vec::new();
        for (location, track) in &sent {
            let outcome = wait_for_condition("it to end", async || {
                let told = broker.request(location, track).token(ACME).send().await.expect_status(200);
                if told.text_of("status") == "queued" { Err(told.text) } else { Ok(told) }
            });
            ended.push(outcome.await);
        }
        let proxy = broker.proxy();
        for (operation, fault) in [
            ("SendMessageBatch", Fault::Duplicate),
            ("TransactWriteItems", Fault::Conflict),
            ("TransactWriteItems", Fault::LoseResponse),
        ] {
            assert!(proxy.done(operation, fault) > 0, "{fault:?}");
        }
        let statuses: BTreeSet<_> =
            ended.iter().map(|ended| ended.json["response"]["status"].as_u64()).collect();
        assert_eq!(statuses, BTreeSet::from([Some(201), Some(409)]));
        let granted = ended.iter().filter(|ended| ended.text_of("status") == "succeeded").count();
        assert_eq!((granted, held(broker).await, broker.verify().await.live_leases), (30, 30, 30));
    })
    .await;
}

#[tokio::test]
async fn every_end_gives_the_permit_back() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 20).await;
        limited(broker, 1).await;
        let returned = asks(broker, "student-0").send().await.expect_status(201);
        asks(broker, "student-1").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        let again = asks(broker, "student-0").send().await.expect_status(200);
        assert_eq!(again.json["sandbox_id"], returned.json["sandbox_id"], "who has one is told so");
        give_back(broker, &returned, "student-0").await;
        give_back(broker, &returned, "student-0").await;
        assert_eq!(held(broker).await, 0, "returned");

        let released = asks(broker, "student-1").send().await.expect_status(201);
        broker.cli_ok(&["sandbox", "release", released.text_of("sandbox_id")]).await;
        assert_eq!(held(broker).await, 0, "released by an operator");

        let expired = asks(broker, "student-2").send().await.expect_status(201);
        broker.table().age(expired.text_of("sandbox_id"), 6 * 3_600).await;
        assert_eq!(broker.job("expire").await.changed, 1);
        assert_eq!(held(broker).await, 0, "expired");

        let broken = asks(broker, "student-3").send().await.expect_status(201);
        let path = format!("/v1/sandboxes/{}/report-broken", broken.text_of("sandbox_id"));
        let report = broker.balanced().call(Method::POST, &path).token(ACME);
        report.header("x-instruqt-sandbox-id", "student-3").send().await.expect_status(200);
        assert_eq!(held(broker).await, 0, "reported");

        // Past its time: the next one of its key takes the same permit.
        let old = asks(broker, "student-4").send().await.expect_status(201);
        broker.table().age(old.text_of("sandbox_id"), 6 * 3_600).await;
        let new = asks(broker, "student-4").send().await.expect_status(201);
        assert_ne!(new.json["sandbox_id"], old.json["sandbox_id"]);
        assert_eq!(held(broker).await, 1, "replaced");
        asks(broker, "student-5").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        give_back(broker, &new, "student-4").await;
        assert_eq!(held(broker).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_in_mid_morning_ends_nobodys_lease() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 20).await;
        limited(broker, 4).await;
        let mut leases = Vec::new();
        for n in 0..4 {
            leases.push(asks(broker, &format!("student-{n}")).send().await.expect_status(201));
        }
        limited(broker, 2).await;
        assert!(broker.verify().await.violations.is_empty(), "what was lent before may stay");
        let shown = quota(broker).await;
        assert_eq!((&shown["held"], &shown["max"], &shown["free"]), (&json!(4), &json!(2), &json!(0)));
        let refused = asks(broker, "student-9").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(refused.json["quota"], json!({ "flavour": "small", "held": 4, "max": 2 }));
        for (n, lease) in leases.iter().enumerate() {
            let again = asks(broker, &format!("student-{n}")).send().await.expect_status(200);
            assert_eq!(again.json["sandbox_id"], lease.json["sandbox_id"]);
        }
        for (n, lease) in leases.iter().enumerate() {
            // Four were lent: until fewer than two are, nothing new is.
            if n < 3 {
                asks(broker, "student-9").send().await.expect_problem(409, "QUOTA_EXCEEDED");
            }
            give_back(broker, lease, &format!("student-{n}")).await;
        }
        let mut held = Vec::new();
        for n in 10..12 {
            held.push(asks(broker, &format!("student-{n}")).send().await.expect_status(201));
        }
        asks(broker, "student-12").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        limited(broker, 0).await;
        let refused = asks(broker, "student-13").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(refused.json["quota"], json!({ "flavour": "small", "held": 2, "max": 0 }));
        let never = waits(broker, "student-13").send().await;
        never.expect_problem(409, "CANNOT_WAIT");
        for again in [asks(broker, "student-10"), waits(broker, "student-10")] {
            assert_eq!(again.send().await.expect_status(200).sandbox_id(), held[0].sandbox_id());
        }
        limited(broker, 3).await;
        asks(broker, "student-13").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_permit_keeps_its_place_and_holds_up_nobody() {
    story(setup().workers(2), async |broker| {
        seed(broker, "lab", 0, 6).await;
        limited(broker, 1).await;
        let first = asks(broker, "student-0").send().await.expect_status(201);
        let second = parked(broker, "student-1").await;
        limit_keeps(broker, &second, "student-1").await;
        let third = parked(broker, "student-2").await;
        // What arrives passes them by: others find it offered.
        seed(broker, "lab", 10, 1).await;
        for n in 0..3 {
            let other = broker.allocate(&format!("other-{n}")).token(UMBRELLA);
            other.header("x-sandbox-flavour", "small").send().await.expect_status(201);
        }
        give_back(broker, &first, "student-0").await;
        // A newcomer of the tenant does not go past its line, whoever is faster.
        let late = asks(broker, "student-3").send().await;
        late.expect_problem(409, "QUOTA_EXCEEDED");
        let granted = served(broker, &second, "student-1").await;
        limit_keeps(broker, &third, "student-2").await;
        let sandbox = granted.json["response"]["body"]["sandbox_id"].as_str().expect("an id").to_owned();
        broker.return_sandbox(&sandbox, "student-1").token(ACME).send().await.expect_status(200);
        served(broker, &third, "student-2").await;
        assert_eq!(held(broker).await, 1);
    })
    .await;
}

#[tokio::test]
async fn who_waits_with_an_expired_lease_of_its_own_is_given_its_own_permit_once_it_is_first() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 1).await;
        limited(broker, 1).await;
        let old = asks(broker, "student-0").send().await.expect_status(201);
        broker.table().age(old.text_of("sandbox_id"), 60).await;
        let first = parked(broker, "student-1").await;
        let own = parked(broker, "student-0").await;
        // The permit is not the first one's, and nobody goes past it.
        seed(broker, "lab", 10, 1).await;
        wait_for_condition("it to be offered", async || match broker.stats().await.available {
            1 => Ok(()),
            available => Err(available),
        })
        .await;
        reason(broker, &own, "student-0").await;
        broker.cancel(&first, "student-1").token(ACME).send().await.expect_status(200);
        let given = served(broker, &own, "student-0").await;
        assert_eq!(held(broker).await, 1, "its old lease ended with its permit");

        // What arrives is not offered past it.
        let sandbox = given.json["response"]["body"]["sandbox_id"].as_str().expect("an id");
        broker.table().age(sandbox, 60).await;
        let own = parked(broker, "student-0").await;
        let behind = parked(broker, "student-2").await;
        seed(broker, "lab", 20, 1).await;
        served(broker, &own, "student-0").await;
        limit_keeps(broker, &behind, "student-2").await;
        assert_eq!((held(broker).await, broker.verify().await.live_leases), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_newcomer_of_a_limited_tenant_goes_past_no_place_of_it_although_a_permit_is_free() {
    // Nothing but the look at its own line holds the newcomer: no tick comes, and a command's end wakes no worker.
    story(setup().var("BROKER_SERVE_EVERY_S", "3600"), async |broker| {
        seed(broker, "lab", 0, 4).await;
        limited(broker, 1).await;
        let first = asks(broker, "student-0").send().await.expect_status(201);
        let waiting = parked(broker, "student-1").await;
        broker.cli_ok(&["sandbox", "release", first.text_of("sandbox_id")]).await;
        assert_eq!(held(broker).await, 0);
        let late = asks(broker, "student-2").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(late.json["quota"], json!({ "flavour": "small", "held": 0, "max": 1 }));
        let other = broker.allocate("other-1").token(UMBRELLA).header("x-sandbox-flavour", "small");
        other.send().await.expect_status(201);
        broker.job("serve").await;
        served(broker, &waiting, "student-1").await;
    })
    .await;
}

#[tokio::test]
async fn an_own_lease_past_its_time_hands_its_permit_to_no_newcomer_past_those_who_wait_for_it() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 4).await;
        limited(broker, 1).await;
        let old = asks(broker, "student-0").send().await.expect_status(201);
        let waiting = parked(broker, "student-1").await;
        broker.table().age(old.text_of("sandbox_id"), 6 * 3_600).await;
        let refused = asks(broker, "student-0").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(refused.json["quota"], json!({ "flavour": "small", "held": 1, "max": 1 }));
        let behind = parked(broker, "student-0").await;
        assert_eq!(broker.job("expire").await.changed, 1);
        let granted = served(broker, &waiting, "student-1").await;
        let sandbox = granted.json["response"]["body"]["sandbox_id"].as_str().expect("an id").to_owned();
        broker.return_sandbox(&sandbox, "student-1").token(ACME).send().await.expect_status(200);
        served(broker, &behind, "student-0").await;
        assert_eq!(held(broker).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_for_any_flavour_takes_what_its_limits_leave() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 30).await;
        seed(broker, "gpu", 30, 2).await;
        policy::apply(broker, &limits(1, 2)).await;
        let names = async |n: usize| {
            let answer = broker.allocate(&format!("student-{n}")).token(ACME).send().await;
            answer.expect_status(201).text_of("name")[..4].to_owned()
        };
        let mut got = [names(0).await, names(1).await, names(2).await];
        got.sort();
        assert_eq!(got, ["gpu-", "gpu-", "lab-"]);
        broker.allocate("student-3").token(ACME).send().await.expect_problem(409, "QUOTA_EXCEEDED");
    })
    .await;
}

#[tokio::test]
async fn a_request_for_anything_is_given_what_falls_under_no_limit_as_long_as_there_is_some() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 130).await;
        seed(broker, "other", 200, 3).await;
        policy::apply(broker, &limits(0, 0)).await;
        for n in 0..3 {
            let given = broker.allocate(&format!("student-{n}")).token(ACME).send().await.expect_status(201);
            assert!(given.text_of("name").starts_with("other-"), "{}", given.text);
        }
        broker.allocate("student-3").token(ACME).send().await.expect_problem(409, "QUOTA_EXCEEDED");
    })
    .await;
}

pub(crate) async fn asks_without_policy(broker: &Broker, n: usize) {
    broker.allocate(&format!("student-{n}")).token(ACME).send().await.expect_status(201);
}

#[tokio::test]
async fn a_tenant_without_a_limit_costs_nothing_more() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 5).await;
        limited(broker, 1).await;
        let other = broker.allocate("other-1").token(UMBRELLA).header("x-sandbox-flavour", "small");
        let lease = other.send().await.expect_status(201);
        let sandbox = lease.text_of("sandbox_id").to_owned();
        broker.return_sandbox(&sandbox, "other-1").token(UMBRELLA).send().await.expect_status(200);
        let shown = broker.worker(0).metrics().probe("/metrics").await.expect("an answer").1;
        assert!(!shown.contains("operation=\"permits\""), "nobody looked at a permit");
        let item = broker.table().must_get(&format!("SBX#{sandbox}")).await;
        assert!(!item.contains_key("permit"), "{item:?}");
    })
    .await;
}

#[tokio::test]
async fn leases_from_before_the_first_limit_hold_no_permit_and_what_comes_after_is_limited() {
    story(setup().apis(1).workers(1), async |broker| {
        seed(broker, "lab", 0, 6).await;
        policy::apply(broker, "[flavour.small]\nprefix = \"lab-\"\n[flavour.gpu]\nprefix = \"gpu-\"\n").await;
        let before = asks(broker, "student-1").send().await.expect_status(201);
        asks(broker, "student-2").send().await.expect_status(201);
        limited(broker, 1).await;
        let quota = async || {
            let quota = broker.balanced().call(Method::GET, "/v1/quota").token(ACME).send().await;
            quota.expect_status(200).json["limits"].as_array().expect("limits").clone()
        };
        let small = |limits: &[serde_json::Value]| {
            limits.iter().find(|limit| limit["flavour"] == "small").expect("of small")["held"].clone()
        };
        assert_eq!(small(&quota().await), 0, "two are held, and neither is counted");
        asks(broker, "student-3").send().await.expect_status(201);
        asks(broker, "student-4").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!(small(&quota().await), 1);
        // Given back, one of before frees no permit.
        give_back(broker, &before, "student-1").await;
        asks(broker, "student-4").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        assert_eq!((small(&quota().await), held(broker).await), (json!(1), 1));
    })
    .await;
}
