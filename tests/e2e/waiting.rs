//! Waiting: requests that found nothing stand in lines, and what arrives is dealt to them.

use std::collections::BTreeMap;

use broker_tests::table::now_s;
use broker_tests::{Answer, Broker, Call, Setup, story, together, wait_for_condition};
use serde_json::{Value, json};

use crate::count;

const ACME: &str = "tok-of-acme-0123456789";
const UMBRELLA: &str = "tok-of-umbrella-01234";

pub(crate) fn setup() -> Setup {
    Setup::new().apis(2).workers(2).var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1")
}

/// An allocate that waits, and whose call is held for a moment only.
pub(crate) fn waits(broker: &Broker, track: &str) -> Call {
    broker.allocate(track).wait(1).json(&json!({ "max_wait_s": 600 }))
}

/// Asks, and waits until the request stands in its line.
pub(crate) async fn parked(broker: &Broker, call: Call, track: &str) -> String {
    let queued = call.send().await.expect_status(202);
    let location = queued.must_have("location").to_owned();
    stands(broker, &location, track).await;
    location
}

/// What a request that stands in a line is told.
pub(crate) async fn stands(broker: &Broker, location: &str, track: &str) -> Value {
    wait_for_condition(&format!("{location} to stand in a line"), async || {
        let told = broker.request(location, track).send().await.expect_status(200);
        if told.json["waiting"].is_object() { Ok(told.json["waiting"].clone()) } else { Err(told.text) }
    })
    .await
}

/// Waits until nobody stands in a line.
pub(crate) async fn every_place_is_left(broker: &Broker) {
    wait_for_condition("every place to be left", async || match broker.table().keys("LINE#").await {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    })
    .await;
}

/// The status of the call that a request would have been answered with.
pub(crate) fn status(ended: &Answer) -> u64 {
    ended.json["response"]["status"].as_u64().unwrap_or_default()
}

/// Adds `count` sandboxes from number `start` on, which arrive.
pub(crate) async fn arrive(broker: &Broker, start: usize, count: usize) {
    let (start, count) = (start.to_string(), count.to_string());
    broker.cli_ok(&["pool", "seed", "--start", &start, "--count", &count]).await;
}

#[tokio::test]
async fn a_request_that_found_nothing_waits_and_is_served() {
    story(setup(), async |broker| {
        broker.allocate("student-1").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let location = parked(broker, waits(broker, "student-1"), "student-1").await;
        let told = stands(broker, &location, "student-1").await;
        assert_eq!((&told["ahead"], &told["reason"]), (&json!(0), &json!("empty")), "{told}");
        let deadline = told["deadline"].as_u64().expect("seconds");
        assert!((now_s() + 500..=now_s() + 600).contains(&deadline), "{told}");
        arrive(broker, 0, 1).await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!((ended.text_of("status"), status(&ended)), ("succeeded", 201), "{ended:#?}");
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.json["sandbox_id"], ended.json["response"]["body"]["sandbox_id"]);
    })
    .await;
}

#[tokio::test]
async fn a_line_is_served_in_the_order_of_asking_also_after_every_process_was_killed() {
    story(setup(), async |broker| {
        let mut asked = Vec::new();
        for n in 0..4 {
            let track = format!("student-{n}");
            let location = parked(broker, waits(broker, &track), &track).await;
            asked.push((location, track));
        }
        // The head is cancelled; the others are not kept by it.
        let (head, track) = asked.remove(0);
        broker.cancel(&head, &track).send().await.expect_status(200);
        while broker.workers_len() > 0 {
            broker.kill_worker(0);
        }
        for _ in 0..2 {
            broker.kill_api(0);
        }
        broker.start_api().await;
        broker.start_worker().await;
        for (number, (location, track)) in asked.iter().enumerate() {
            arrive(broker, number, 1).await;
            let ended = broker.outcome(location, track).await;
            assert_eq!(status(&ended), 201, "{ended:#?}");
            for (location, track) in &asked[number + 1..] {
                stands(broker, location, track).await;
            }
        }
        broker.sweep().await;
        broker.request(&head, "student-0").send().await.expect_status(200);
        assert_eq!(broker.table().keys("LINE#").await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_wait_that_is_over_says_so_at_once() {
    story(setup(), async |broker| {
        let call = broker.allocate("student-1").wait(0).json(&json!({ "max_wait_s": 2 }));
        let queued = call.send().await.expect_status(202);
        let ended = broker.outcome(queued.must_have("location"), "student-1").await;
        assert_eq!((ended.text_of("status"), status(&ended)), ("expired", 503), "{ended:#?}");
        assert_eq!(ended.json["response"]["body"]["error"]["code"], "UNAVAILABLE");
        arrive(broker, 0, 1).await;
        wait_for_condition("it to be offered", async || {
            let stats = broker.stats().await;
            if stats.available == 1 { Ok(()) } else { Err(stats) }
        })
        .await;
        assert_eq!(broker.stats().await.allocated, 0);
    })
    .await;
}

#[tokio::test]
async fn a_repeat_of_the_key_waits_too_and_the_first_that_is_served_answers_all() {
    story(setup(), async |broker| {
        let mut locations = Vec::new();
        for _ in 0..3 {
            locations.push(parked(broker, waits(broker, "student-1"), "student-1").await);
        }
        arrive(broker, 0, 2).await;
        let mut statuses = Vec::new();
        for location in &locations {
            statuses.push(status(&broker.outcome(location, "student-1").await));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 201]);
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

#[tokio::test]
async fn tenants_share_what_arrives_and_a_prefix_gets_only_what_it_fits() {
    let tokens = format!("one:tenant=acme={ACME},two:tenant=umbrella={UMBRELLA}");
    story(setup().var("BROKER_TRACK_TOKENS", &tokens), async |broker| {
        let mut of = BTreeMap::new();
        for (tenant, token, many) in [("acme", ACME, 6), ("umbrella", UMBRELLA, 1)] {
            for n in 0..many {
                let track = format!("{tenant}-{n}");
                let call = waits(broker, &track).token(token);
                let location = call.send().await.expect_status(202).must_have("location").to_owned();
                of.insert(track, (location, token));
            }
        }
        let strange = waits(broker, "acme-x").token(ACME).name_prefix("no-such-name");
        let strange = strange.send().await.expect_status(202).must_have("location").to_owned();
        wait_for_condition("all to be parked", async || {
            let places = broker.table().keys("LINE#").await.len();
            if places == 8 { Ok(()) } else { Err(places) }
        })
        .await;
        // Two together: each tenant has one, certainly.
        arrive(broker, 0, 2).await;
        let (location, token) = &of["umbrella-0"];
        wait_for_condition("the one of the other tenant to be served", async || {
            let told = broker.request(location, "umbrella-0").token(token).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
        wait_for_condition("one of each", async || {
            let stats = broker.stats().await;
            if stats.allocated == 2 { Ok(()) } else { Err(stats) }
        })
        .await;
        let told = broker.request(&strange, "acme-x").token(ACME).send().await.expect_status(200);
        assert_eq!(told.text_of("status"), "queued");
    })
    .await;
}

#[tokio::test]
async fn cancelling_and_granting_at_the_same_moment_have_one_winner() {
    const MANY: usize = 400;
    story(setup(), async |broker| {
        let calls = (0..MANY).map(|n| {
            let track = format!("student-{n}");
            broker.allocate(&track).respond_async().json(&json!({ "max_wait_s": 600 })).send()
        });
        let queued = together(calls.collect::<Vec<_>>()).await;
        assert_eq!(count(&queued, 202), MANY);
        wait_for_condition("all to be parked", async || {
            let places = broker.table().keys("LINE#").await.len();
            if places == MANY { Ok(()) } else { Err(places) }
        })
        .await;
        let locations: Vec<_> = queued.iter().map(|queued| queued.must_have("location").to_owned()).collect();
        let cancels = locations.iter().enumerate();
        let cancels = cancels.map(|(n, location)| broker.cancel(location, &format!("student-{n}")).send());
        let ((), cancelled) =
            tokio::join!(arrive(broker, 0, MANY / 2), together(cancels.collect::<Vec<_>>()));
        let mut granted = 0;
        for (n, (location, cancelled)) in locations.iter().zip(&cancelled).enumerate() {
            let ended = broker.outcome(location, &format!("student-{n}")).await;
            match cancelled.status {
                200 => assert_eq!(ended.text_of("status"), "cancelled", "{ended:#?}"),
                409 => assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}"),
                other => panic!("{other}: {cancelled:#?}"),
            }
            granted += u64::from(cancelled.status == 409);
        }
        assert_eq!(broker.stats().await.allocated, granted);
    })
    .await;
}

#[tokio::test]
async fn a_thousand_that_wait_are_all_granted_once_as_many_arrive() {
    const MANY: usize = 300;
    story(setup(), async |broker| {
        let calls = (0..MANY).map(|n| {
            let track = format!("student-{n}");
            broker.allocate(&track).respond_async().json(&json!({ "max_wait_s": 600 })).send()
        });
        let queued = together(calls.collect::<Vec<_>>()).await;
        assert_eq!(count(&queued, 202), MANY);
        arrive(broker, 0, MANY).await;
        wait_for_condition("all to be granted", async || {
            let stats = broker.stats().await;
            if stats.allocated == MANY as u64 { Ok(()) } else { Err(stats) }
        })
        .await;
        broker.queues().are_empty().await;
        assert_eq!(broker.table().keys("LINE#").await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_waits_is_told_in_how_many_seconds_it_may_be_served_once_others_were() {
    story(setup(), async |broker| {
        let mut asked = Vec::new();
        for n in 0..3 {
            let track = format!("student-{n}");
            asked.push((parked(broker, waits(broker, &track), &track).await, track));
        }
        let (location, track) = &asked[2];
        let told = stands(broker, location, track).await;
        assert_eq!((&told["estimate_s"], &told["estimate_basis"]), (&Value::Null, &Value::Null), "{told}");
        arrive(broker, 0, 1).await;
        let (first, of) = &asked[0];
        assert_eq!(status(&broker.outcome(first, of).await), 201);
        // Its worker says so with its next heartbeat.
        let told = wait_for_condition("an estimate", async || {
            let told = stands(broker, location, track).await;
            if told["estimate_s"].is_u64() { Ok(told) } else { Err(told) }
        })
        .await;
        let (estimate, basis) = (told["estimate_s"].as_u64(), &told["estimate_basis"]);
        assert_eq!(basis["granted"], 1, "{told}");
        let within = basis["within_s"].as_u64().expect("seconds");
        assert!((60..=600).contains(&within), "{told}");
        let ahead = told["ahead"].as_u64().expect("a number");
        assert_eq!(estimate, Some((ahead + 1) * within), "{told}");
    })
    .await;
}

#[tokio::test]
async fn where_waiting_is_off_a_request_that_would_wait_is_told_so() {
    story(Setup::new().apis(1).workers(1), async |broker| {
        let call = broker.allocate("student-1").json(&json!({ "max_wait_s": 600 }));
        call.send().await.expect_problem(409, "CANNOT_WAIT");
        let call = broker.allocate("student-1").json(&json!({ "max_wait_s": 0 }));
        call.send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        for wrong in [json!(-1), json!(86_401), json!("60"), json!(1.5)] {
            let call = broker.allocate("student-1").json(&json!({ "max_wait_s": wrong }));
            call.send().await.expect_problem(400, "VALIDATION_ERROR");
        }
        assert_eq!(broker.table().keys("LINE").await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_late_copy_with_an_earlier_deadline_moves_no_place_and_tells_nobody_that_the_time_is_over() {
    story(setup().apis(1).workers(1), async |broker| {
        let held = broker.allocate("student-1").wait(50).json(&json!({ "max_wait_s": 600 }));
        let held = tokio::spawn(held.send());
        let place = wait_for_condition("it to be parked", async || {
            broker.table().list("LINE#platform#").await.pop().ok_or("nobody is parked")
        })
        .await;
        let message = place["message"].as_s().expect("text");
        let message: Value = serde_json::from_str(message).expect("JSON");
        let deadline = message["deadline_ms"].as_u64().expect("a time");
        // As they are left over when a replay renews a deadline: one of which a worker thinks that it waits, one that is over.
        let queues = broker.queues();
        for earlier in [60_000, 3_600_000] {
            let mut copy = message.clone();
            copy["deadline_ms"] = (deadline - earlier).into();
            queues.send(&queues.name("requests"), &copy.to_string()).await;
        }
        queues.are_empty().await;
        assert_eq!(broker.table().list("LINE#platform#").await, [place]);
        arrive(broker, 0, 1).await;
        held.await.expect("an answer").expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_command_waits_in_the_line_for_its_sandbox() {
    story(setup(), async |broker| {
        let url = format!("http://{}", broker.balanced().address());
        let vars = [("BROKER_URL", url.as_str()), ("BROKER_TOKEN", broker_tests::TRACK_TOKEN)];
        let args = ["lease", "--owner", "job-1", "--wait", "10m", "--", "sh", "-c", "exit 9"];
        let ran = broker.cli_with(&args, &vars);
        let parked = async {
            wait_for_condition("it to be parked", async || {
                let places = broker.table().keys("LINE#").await;
                if places.len() == 1 { Ok(()) } else { Err(places) }
            })
            .await;
            arrive(broker, 0, 1).await;
        };
        let (ran, ()) = tokio::join!(ran, parked);
        assert_eq!(ran.code, 9, "{ran:#?}");
        let stats = broker.stats().await;
        assert_eq!((stats.allocated, stats.pending_deletion), (0, 1), "{stats:?}");
    })
    .await;
}

#[tokio::test]
async fn a_place_that_nobody_can_serve_is_a_dead_letter_and_its_replay_stands_where_it_stood() {
    story(setup(), async |broker| {
        let mut asked = Vec::new();
        for n in 0..4 {
            let track = format!("student-{n}");
            asked.push((parked(broker, waits(broker, &track), &track).await, track));
        }
        let table = broker.table();
        let places = table.list("LINE#platform#").await;
        let [mended, malformed, foreign] = [0, 1, 2].map(|n: usize| places[n].clone());
        let mut item = mended.clone();
        item.remove("deadline_ms");
        table.put(item).await;
        let message = |item: &broker_tests::table::Item| item["message"].as_s().expect("text").clone();
        for (mut item, message) in [
            (malformed.clone(), "{no message".to_owned()),
            (foreign.clone(), message(&foreign).replace("-replies-", "-others-")),
        ] {
            item.insert("message".to_owned(), broker_tests::table::text(&message));
            table.put(item).await;
        }
        // None of them is in the way of the one behind them.
        arrive(broker, 0, 1).await;
        let (location, track) = &asked[3];
        assert_eq!(status(&broker.outcome(location, track).await), 201);
        broker.holds_letters(3).await;
        let letters = broker.letters(&[]).await;
        let mut reasons: Vec<_> = letters.iter().filter_map(|letter| letter["reason"].as_str()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["foreign_reply_queue", "malformed", "malformed_item"]);
        for (location, track) in &asked[..3] {
            let ended = broker.outcome(location, track).await;
            assert_eq!((ended.text_of("status"), status(&ended)), ("failed", 500), "{ended:#?}");
        }
        broker.verify().await;

        // Replayed, it goes before one that asked later.
        let behind = parked(broker, waits(broker, "student-9"), "student-9").await;
        assert_eq!(broker.replay(&["--reason", "malformed_item"]).await.done, 1);
        let (location, track) = &asked[0];
        stands(broker, location, track).await;
        arrive(broker, 1, 1).await;
        assert_eq!(status(&broker.outcome(location, track).await), 201);
        stands(broker, &behind, "student-9").await;
        assert_eq!(broker.replay(&["--reason", "malformed"]).await.done, 1);
        broker.holds_letters(2).await;
        broker.verify().await;
        broker.discard(&["--all"]).await;
    })
    .await;
}
