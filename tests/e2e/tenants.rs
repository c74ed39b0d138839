//! Tenants: one that sends thousands holds up nobody else.

use broker_tests::queues::Depth;
use broker_tests::setup::as_on_aws;
use broker_tests::table::{Item, now_s, number, text};
use broker_tests::{Setup, story, together, wait_for_condition};
use serde_json::Value;

use crate::count;

const GREEDY: &str = "tok-greedy-0123456789";
const OTHER: &str = "tok-other-01234567890";

fn two_tenants() -> Setup {
    let tokens = format!("greedy={GREEDY},spare:tenant=greedy={GREEDY}-2,other={OTHER}");
    Setup::new().var("BROKER_TRACK_TOKENS", &tokens)
}

#[tokio::test]
async fn twenty_thousand_requests_of_one_tenant_do_not_keep_another_from_its_sandboxes() {
    // Fewer a second than one worker handles on a busy machine, with AWS as it is.
    let bound = [("BROKER_ASYNC_RATE", "10"), ("BROKER_ASYNC_BURST", "300")];
    let setup =
        bound.into_iter().fold(two_tenants().pool(1_500), |setup, (name, value)| setup.var(name, value));
    story(setup, async |broker| {
        let greedy = async {
            let mut answers = Vec::new();
            for round in 0..100 {
                let calls = (0..200).map(|n| {
                    let call = broker.allocate(&format!("greedy-{round}-{n}")).respond_async();
                    call.token(if n % 2 == 0 { GREEDY.to_owned() } else { format!("{GREEDY}-2") }.as_str())
                        .send()
                });
                answers.extend(together(calls).await);
            }
            answers
        };
        let other = async {
            for n in 0..40 {
                let call = broker.allocate(&format!("other-{n}")).token(OTHER);
                call.send().await.expect_status(201);
            }
        };
        let (answers, ()) = tokio::join!(greedy, other);
        let (accepted, refused) = (count(&answers, 202), count(&answers, 429));
        // With AWS as it is the table is too slow for some of a burst: they are told to repeat.
        let (slow, most) = (count(&answers, 503), if as_on_aws() { 1_000 } else { 0 });
        let others = answers.iter().filter(|answer| ![202, 429].contains(&answer.status));
        let others: Vec<_> = others.map(|answer| &answer.text).take(3).collect();
        assert_eq!(accepted + refused + slow, 20_000, "{others:?}");
        assert!(slow <= most, "{slow} unavailable: {others:?}");
        assert!(accepted >= 300 && refused > accepted, "{accepted} accepted, {refused} refused");
        let one = answers.into_iter().find(|answer| answer.status == 429).expect("one was refused");
        one.expect_problem(429, "RATE_LIMIT_EXCEEDED").must_have("retry-after");
        assert!(broker.verify().await.violations.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_tenant_behind_hundreds_of_another_gets_its_sandboxes_before_the_pool_is_empty() {
    story(two_tenants().workers(0).pool(200), async |broker| {
        let mut greedy = 0;
        for round in 0..12 {
            let calls = (0..50).map(|n| {
                let call = broker.allocate(&format!("greedy-{round}-{n}")).token(GREEDY);
                call.respond_async().send()
            });
            greedy += count(&together(calls).await, 202);
        }
        assert!(greedy > 400, "{greedy} accepted");
        let mut others = Vec::new();
        for n in 0..20 {
            let track = format!("other-{n}");
            let sent = broker.allocate(&track).token(OTHER).respond_async().send().await.expect_status(202);
            others.push((track, sent.must_have("location").to_owned()));
        }
        broker.queues().holds_requests(greedy as u64 + 20).await;
        broker.start_worker().await;
        for (track, location) in others {
            let ended = wait_for_condition("the other's outcome", async || {
                let seen = broker.request(&location, &track).token(OTHER).send().await.expect_status(200);
                if seen.text_of("status") == "queued" { Err(seen.text) } else { Ok(seen) }
            });
            assert_eq!(ended.await.text_of("status"), "succeeded", "{track}");
        }
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn every_request_names_its_tenant_also_when_it_is_sent_again() {
    story(two_tenants().workers(0).var("BROKER_WAIT_S", "0"), async |broker| {
        broker.allocate("a").token(GREEDY).send().await;
        broker.allocate("b").token(&format!("{GREEDY}-2")).respond_async().send().await.expect_status(202);
        broker.return_sandbox("sandbox-1", "c").token(OTHER).send().await;
        let queues = broker.queues();
        queues.holds_requests(3).await;
        let sent = queues.peek(&queues.name("requests")).await;
        let mut tenants: Vec<_> = sent
            .iter()
            .map(|message| {
                let message: Value = serde_json::from_str(message.body().expect("a body")).expect("JSON");
                message["tenant"].as_str().expect("a tenant").to_owned()
            })
            .collect();
        tenants.sort();
        assert_eq!(tenants, ["greedy", "greedy", "other"]);
        broker.start_worker().await;
    })
    .await;
}

#[tokio::test]
async fn one_tenant_cannot_take_every_place_of_those_who_wait_for_replies() {
    let setup = two_tenants().workers(0).pool(4).var("BROKER_MAX_PENDING_PER_TENANT", "2");
    story(setup, async |broker| {
        let calls = (0..2).map(|n| broker.allocate(&format!("greedy-{n}")).token(GREEDY).send());
        let calls = tokio::spawn(together(calls.collect::<Vec<_>>()));
        broker.queues().holds_requests(2).await;
        let more = broker.allocate("greedy-more").token(&format!("{GREEDY}-2")).send().await;
        more.expect_problem(503, "OVERLOADED");
        let other = tokio::spawn(broker.allocate("other").token(OTHER).send());
        broker.queues().holds_requests(3).await;
        broker.start_worker().await;
        other.await.expect("an answer").expect_status(201);
        assert_eq!(count(&calls.await.expect("answers"), 201), 2);
    })
    .await;
}

/// A worker that receives one message a second, each a minute old.
fn worker_that_is_behind() -> Item {
    let now_ms = now_s() * 1_000;
    let attributes = [
        ("PK", text("INSTANCE")),
        ("SK", text("01890a5d-ac96-774b-bcce-b302099a8057")),
        ("process_role", text("worker")),
        ("heartbeat_ms", number(now_ms)),
        ("oldest_requests_ms", number(60_000)),
        ("requests_per_s", number(1)),
    ];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

#[tokio::test]
async fn a_caller_who_would_wait_in_vain_is_shed_before_anything_is_enqueued_until_the_backlog_is_gone() {
    let setup = two_tenants().workers(0).pool(200).var("BROKER_WAIT_S", "5");
    story(setup, async |broker| {
        let queued =
            (0..150).map(|n| broker.allocate(&format!("async-{n}")).token(OTHER).respond_async().send());
        assert_eq!(count(&together(queued).await, 202), 150);
        wait_for_condition("the first to be shed", async || {
            broker.table().put(worker_that_is_behind()).await;
            let before = broker.queues().requests().await.visible;
            let answer = broker.allocate("in-vain").token(OTHER).send().await;
            if answer.text_of("detail").starts_with("The queue is about") {
                answer.expect_problem(503, "OVERLOADED").must_have("retry-after");
                assert_eq!(broker.queues().requests().await, Depth { visible: before, ..Depth::default() });
                return Ok(());
            }
            Err(answer.status)
        })
        .await;
        // Who says that it takes a 202 may wait a minute or, asynchronously, a quarter of an hour.
        broker.allocate("patient").token(OTHER).respond_async().send().await.expect_status(202);
        // A return is not shed.
        broker.return_sandbox("no-such", "x").token(OTHER).wait(0).send().await.expect_status(202);

        broker.start_worker().await;
        broker.queues().are_empty().await;
        wait_for_condition("calls to be admitted again", async || {
            let answer = broker.allocate("admitted").token(OTHER).send().await;
            if answer.status == 503 { Err(answer.status) } else { Ok(answer.expect_status(201)) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn made_up_prefixes_cost_little_and_are_told_apart_from_an_empty_pool() {
    story(two_tenants().pool(2_000), async |broker| {
        let looks = async || broker.worker(0).metrics().metric("broker_aws_calls_total").await;
        broker.allocate("first").token(OTHER).send().await.expect_status(201);
        let before = looks().await;
        let calls =
            (0..200).map(|n| broker.allocate(&format!("t-{n}")).token(OTHER).name_prefix("zebra").send());
        assert_eq!(count(&together(calls).await, 409), 200);
        let cost = looks().await - before;
        assert!(cost < 800.0, "{cost} calls for two hundred requests");
        let told = broker.api(0).probe("/metrics").await.expect("metrics").1;
        let counted =
            told.lines().find(|line| line.contains("outcome=\"no_prefix_match\"")).expect("a count");
        assert!(counted.ends_with(" 200"), "{counted}");
    })
    .await;
}
