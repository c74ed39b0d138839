//! Bounds of waiting: concurrent requests, requests that are never served, and the cost of a thousand that wait.

use std::collections::BTreeMap;

use broker_tests::table::text;
use broker_tests::{Broker, Call, Fault, Provider, Rule, story, together, wait_for_condition, wait_until};
use http::Method;
use serde_json::{Value, json};

use crate::waiting::{arrive, every_place_is_left, parked, setup, stands, status, waits};
use crate::{count, policy};

/// Lets `many` students wait for names that no sandbox has.
pub(crate) async fn wait_for_what_is_not(broker: &Broker, many: usize) {
    for chunk in (0..many).collect::<Vec<_>>().chunks(100) {
        let calls = chunk.iter().map(|n| {
            let call = broker.allocate(&format!("student-{n}")).respond_async().name_prefix("big-");
            call.json(&json!({ "max_wait_s": 3_600 })).send()
        });
        assert_eq!(count(&together(calls.collect::<Vec<_>>()).await, 202), chunk.len());
    }
    let table = broker.table();
    wait_for_condition("all to be parked and counted", async || {
        let lines = table.list("LINES").await;
        let marks = lines.first().and_then(|line| Some(line.get("marks")?.as_s().ok()?.clone()));
        match &marks {
            Some(marks) if marks.contains(&format!("\"length\":{many},")) => Ok(()),
            _ => Err(marks),
        }
    })
    .await;
    broker.queues().are_empty().await;
}

#[tokio::test]
async fn an_idle_broker_in_which_a_thousand_wait_writes_nothing_and_a_head_that_goes_is_in_nobodys_way() {
    const MANY: usize = 1_000;
    let setup = setup().faults(1).var("BROKER_SERVE_EVERY_S", "5").pool(3);
    story(setup, async |broker| {
        wait_for_what_is_not(broker, MANY).await;
        let proxy = broker.proxy();
        // The other worker may have begun its walk before the first one told what it found, and still be about to tell the same.
        let looks = proxy.tallies().calls("ExecuteStatement");
        wait_until("a look behind the last walk", || proxy.tallies().calls("ExecuteStatement") >= looks + 2)
            .await;
        // Whatever is written of a line, a place, a request that waits or the tick would be refused, and counted.
        let refused = Fault::Refuse("ValidationException");
        let writes = ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"];
        for part in ["LINE#", "\"LINES\"", "TICK#serve", "REQ#"] {
            let rule = Rule::new(refused).containing(part);
            proxy.add(writes.iter().fold(rule, |rule, operation| rule.on(operation)));
        }
        let before = proxy.tallies();
        let calls = |operation| proxy.tallies().calls(operation) - before.calls(operation);
        // A look asks for what is arriving, and for what is available with the prefix of the line.
        wait_until("three looks", || calls("ExecuteStatement") >= 6).await;
        for operation in writes {
            assert_eq!(proxy.done(operation, refused), 0, "{operation}");
        }
        // Lines, places, the list of processes; ticks, census, policy.
        let (queries, gets) = (calls("Query"), calls("GetItem"));
        assert!(queries <= 40 && gets <= 100, "{queries} queries, {gets} reads of an item in three looks");
        proxy.calm();

        let table = broker.table();
        let line = table.list("LINE#platform#big-").await;
        let message = |at: usize| {
            let message = line[at]["message"].as_s().expect("text");
            serde_json::from_str::<Value>(message).expect("JSON")
        };
        let location =
            |message: &Value| format!("/v1/requests/{}", message["request_id"].as_str().expect("an id"));
        let track = |message: &Value| message["body"]["track_id"].as_str().expect("a track").to_owned();
        let (head, next) = (message(0), message(1));
        broker.cancel(&location(&head), &track(&head)).send().await.expect_status(200);
        broker.cli_ok(&["pool", "seed", "--name-prefix", "big", "--start", "900", "--count", "1"]).await;
        let ended = broker.outcome(&location(&next), &track(&next)).await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        // It is told before its place is left.
        wait_for_condition("both places to be gone", async || {
            match table.list("LINE#platform#big-").await.len() {
                left if left == MANY - 2 => Ok(()),
                left => Err(left),
            }
        })
        .await;
        let told: Value = broker.cli_ok(&["waiting", "cancel", "--all", "--json"]).await.json();
        assert_eq!(told["cancelled"], MANY - 2);
    })
    .await;
}

#[tokio::test]
async fn two_arrivals_at_nearly_the_same_moment_wake_two() {
    story(setup(), async |broker| {
        for round in 0..5 {
            let mut asked = Vec::new();
            for n in 0..2 {
                let track = format!("student-{round}-{n}");
                asked.push((parked(broker, waits(broker, &track), &track).await, track));
            }
            tokio::join!(arrive(broker, round * 2, 1), arrive(broker, round * 2 + 1, 1));
            for (location, track) in &asked {
                assert_eq!(status(&broker.outcome(location, track).await), 201);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn five_hundred_requests_of_one_token_that_wait_meet_no_error() {
    const MANY: usize = 500;
    story(setup(), async |broker| {
        let calls = (0..MANY).map(|n| {
            let call = broker.allocate(&format!("student-{n}")).json(&json!({ "max_wait_s": 600 }));
            if n % 2 == 0 { call.respond_async() } else { call.wait(0) }.send()
        });
        let answers = together(calls.collect::<Vec<_>>()).await;
        assert_eq!(count(&answers, 202), MANY, "{:?}", answers.iter().find(|answer| answer.status != 202));
        arrive(broker, 0, MANY).await;
        wait_for_condition("all to be granted", async || {
            let stats = broker.stats().await;
            if stats.allocated == MANY as u64 { Ok(()) } else { Err(stats) }
        })
        .await;
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_line_for_which_nothing_arrives_ends_by_its_deadlines_and_says_so() {
    const MANY: usize = 150;
    const WAIT: u64 = 10;
    story(setup().var("BROKER_SERVE_EVERY_S", "5"), async |broker| {
        let held = broker.allocate("held").wait(50).json(&json!({ "max_wait_s": WAIT }));
        let held = tokio::spawn(held.send());
        let calls = (0..MANY).map(|n| {
            let call = broker.allocate(&format!("student-{n}")).respond_async();
            call.json(&json!({ "max_wait_s": WAIT })).send()
        });
        assert_eq!(count(&together(calls.collect::<Vec<_>>()).await, 202), MANY);
        // Not that it is queued, and the same that it is told when it asks.
        let held = held.await.expect("an answer").expect_problem(503, "UNAVAILABLE");
        assert!(held.text.contains("Nothing became free before the deadline"), "{held:#?}");
        let location = format!("/v1/requests/{}", held.must_have("x-request-id"));
        let ended = broker.request(&location, "held").send().await.expect_status(200);
        assert_eq!(ended.text_of("status"), "expired", "{ended:#?}");
        assert_eq!(ended.json["response"]["body"], held.json);
        let mut counted = 0.0;
        for api in [broker.api(0), broker.api(1)] {
            counted += api.metric("broker_allocate_total{outcome=\"waited_in_vain\"}").await;
        }
        assert_eq!(counted, 1.0, "as it was asked to, which is no failure");
        let table = broker.table();
        // Nobody asks for them: their workers end them.
        wait_for_condition("every place to be left", async || {
            let places = table.keys("LINE#").await.len();
            if places == 0 { Ok(()) } else { Err(places) }
        })
        .await;
        let mut states = Vec::new();
        for key in table.keys("REQ#").await {
            states.push(table.must_get(&key).await["state"].clone());
        }
        assert_eq!(states, vec![text("expired"); MANY + 1]);
        // Each ended five seconds after its deadline at the latest.
        let mut late = 0.0;
        for worker in 0..2 {
            let metrics = broker.worker(worker).metrics();
            let all = metrics.metric("broker_waiting_seconds_count").await;
            late += all - within(metrics, "15").await;
        }
        assert!(late.abs() < 0.5, "{late} of {MANY} ended later than five seconds after their deadline");
    })
    .await;
}

/// How many ends of waits came within so many seconds.
async fn within(metrics: &broker_tests::Api, bound: &str) -> f64 {
    let Some((200, text)) = metrics.probe("/metrics").await else { panic!("no metrics") };
    let of_bound = |line: &&str| {
        line.starts_with("broker_waiting_seconds_bucket") && line.contains(&format!("le=\"{bound}\""))
    };
    let counts =
        text.lines().filter(of_bound).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    counts.sum()
}

#[tokio::test]
async fn a_network_that_is_away_loses_no_place() {
    story(setup().faults(1), async |broker| {
        let mut asked = Vec::new();
        for n in 0..3 {
            let track = format!("student-{n}");
            asked.push((parked(broker, waits(broker, &track), &track).await, track));
        }
        {
            let proxy = broker.proxy();
            let _away = [broker_tests::ShapedService::Sqs, broker_tests::ShapedService::DynamoDb]
                .map(|service| proxy.outage(service, broker_tests::Outage::Refused));
            let before = proxy.tallies().away();
            wait_until("every process to meet the outage", || proxy.tallies().away() > before + 20).await;
        }
        for (number, (location, track)) in asked.iter().enumerate() {
            stands(broker, location, track).await;
            arrive(broker, number, 1).await;
            assert_eq!(status(&broker.outcome(location, track).await), 201);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_stood_in_a_line_until_its_deadline_is_told_in_which() {
    story(setup(), async |broker| {
        policy::apply(broker, "[flavour.big]\nprefix = \"big-\"\n").await;
        let wait = json!({ "max_wait_s": 20 });
        let asked = [
            ("student-1", broker.allocate("student-1"), "the line of any sandbox"),
            ("student-2", broker.allocate("student-2").name_prefix("gpu-"), "names begin with gpu-"),
            (
                "student-3",
                broker.allocate("student-3").header("x-sandbox-flavour", "big"),
                "the line of the flavour big",
            ),
            // Nobody asks for the outcome before a worker has ended it.
            ("student-4", broker.allocate("student-4"), "the line of any sandbox"),
        ];
        let mut ends = Vec::new();
        for (track, call, line) in asked {
            let queued = call.respond_async().json(&wait).send().await.expect_status(202);
            let location = queued.must_have("location").to_owned();
            if track != "student-4" {
                stands(broker, &location, track).await;
            }
            ends.push((track, location, line));
        }
        every_place_is_left(broker).await;
        for (track, location, line) in &ends {
            let ended = broker.outcome(location, track).await;
            assert_eq!((ended.text_of("status"), status(&ended)), ("expired", 503), "{ended:#?}");
            let told = ended.json["response"]["body"]["detail"].as_str().expect("words");
            assert!(told.contains("became free") && told.contains(line), "{told}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_made_up_prefixes_makes_two_hundred_lines_and_no_more() {
    const ASKED: usize = 230;
    const LINES: usize = 200;
    story(setup(), async |broker| {
        let calls = (0..ASKED).map(|n| {
            let call = broker.allocate(&format!("student-{n}")).json(&json!({ "max_wait_s": 600 }));
            call.name_prefix(&format!("kind-{n}-")).wait(0).send()
        });
        let answers = together(calls.collect::<Vec<_>>()).await;
        let told_at_once = count(&answers, 409);
        assert_eq!(count(&answers, 202) + told_at_once, ASKED, "{answers:#?}");
        let mut ended = BTreeMap::from([("queued".to_owned(), 0), ("failed".to_owned(), told_at_once)]);
        let asked = answers.iter().enumerate().filter(|(_, answer)| answer.status == 202);
        for (n, answer) in asked {
            let (location, track) = (answer.must_have("location"), format!("student-{n}"));
            let told = wait_for_condition(&format!("{location} to stand, or to be refused"), async || {
                let told = broker.request(location, &track).send().await.expect_status(200);
                let stands = told.json["waiting"].is_object();
                if stands || told.text_of("status") != "queued" { Ok(told) } else { Err(told) }
            })
            .await;
            *ended.entry(told.text_of("status").to_owned()).or_default() += 1;
        }
        let expected = [("queued", LINES), ("failed", ASKED - LINES)];
        assert_eq!(ended, expected.map(|(status, many)| (status.to_owned(), many)).into());
        assert_eq!(broker.table().list("LINES").await.len(), LINES);
        // A line that is there takes more.
        let first = broker.table().list("LINES").await.remove(0);
        let prefix = first["SK"].as_s().expect("text").split_once('#').expect("of a tenant").1.to_owned();
        let again = waits(broker, "student-again").name_prefix(&prefix);
        parked(broker, again, "student-again").await;
    })
    .await;
}

#[tokio::test]
async fn a_head_whose_replacement_meets_another_transaction_keeps_the_sandbox_from_those_behind_it() {
    story(setup().faults(1).pool(1), async |broker| {
        let old = broker.allocate("student-0").send().await.expect_status(201);
        broker.table().age(old.sandbox_id(), 60).await;
        let head = parked(broker, waits(broker, "student-0"), "student-0").await;
        let behind = parked(broker, waits(broker, "student-1"), "student-1").await;
        // A grant does not touch the old sandbox: only the replacement does.
        let replaces = Rule::new(Fault::Conflict).on("TransactWriteItems");
        broker.proxy().add(replaces.containing(&format!("SBX#{}", old.sandbox_id())).times(3));
        arrive(broker, 1, 1).await;
        let ended = broker.outcome(&head, "student-0").await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        assert_eq!(broker.proxy().done("TransactWriteItems", Fault::Conflict), 3);
        stands(broker, &behind, "student-1").await;
    })
    .await;
}

#[tokio::test]
async fn who_waits_since_its_lease_ran_out_is_served_after_it_gave_the_old_sandbox_back() {
    // No job takes the old ones back.
    story(setup().pool(3), async |broker| {
        let keyed = |call: Call| call.key("lab-1");
        let mut held = Vec::new();
        for (track, key) in [("by-default", false), ("by-look", true), ("reports", false)] {
            let asks = if key { keyed(broker.allocate(track)) } else { broker.allocate(track) };
            let old = asks.send().await.expect_status(201).sandbox_id().to_owned();
            broker.table().age(&old, 60).await;
            held.push((track, key, old));
        }
        // Each asks clearly before its return.
        let asks = held.iter().map(|(track, key, _)| {
            let call = broker.allocate(track).wait(4).json(&json!({ "max_wait_s": 600 }));
            if *key { keyed(call) } else { call }.send()
        });
        let asked = together(asks.collect::<Vec<_>>()).await;
        let locations: Vec<_> = asked.into_iter().map(|told| told.expect_status(202)).collect();
        let locations: Vec<_> = locations.iter().map(|told| told.must_have("location")).collect();
        for (location, (track, ..)) in locations.iter().zip(&held) {
            stands(broker, location, track).await;
        }
        for (track, _, old) in &held {
            if *track == "reports" {
                let path = format!("/v1/sandboxes/{old}/report-broken");
                let call = broker.balanced().call(Method::POST, &path);
                call.header("x-instruqt-sandbox-id", track).send().await.expect_status(200);
            } else {
                broker.return_sandbox(old, track).send().await.expect_status(200);
            }
        }
        for (location, (track, ..)) in locations.iter().zip(&held) {
            stands(broker, location, track).await;
        }
        arrive(broker, 3, 3).await;
        for (location, (track, ..)) in locations.iter().zip(&held) {
            let ended = broker.outcome(location, track).await;
            assert_eq!(status(&ended), 201, "{track}: {ended:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn places_whose_time_is_over_and_that_cannot_be_ended_yet_are_in_nobodys_way() {
    story(setup().faults(1), async |broker| {
        let mut over = Vec::new();
        for n in 0..3 {
            let track = format!("student-{n}");
            let call = broker.allocate(&track).wait(0).json(&json!({ "max_wait_s": 5 }));
            let location = parked(broker, call, &track).await;
            // Whatever is written of it meets another transaction.
            let id = location.rsplit('/').next().expect("an id");
            broker.proxy().add(Rule::new(Fault::Conflict).containing(&format!("REQ#{id}")));
            over.push((location, track));
        }
        let behind = parked(broker, waits(broker, "student-behind"), "student-behind").await;
        let conflicts = |operation| broker.proxy().done(operation, Fault::Conflict);
        wait_until("their time to be over", || conflicts("PutItem") + conflicts("UpdateItem") >= 6).await;
        arrive(broker, 0, 1).await;
        let ended = broker.outcome(&behind, "student-behind").await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        broker.proxy().calm();
        for (location, track) in over {
            let ended = broker.outcome(&location, &track).await;
            assert_eq!(ended.text_of("status"), "expired", "{ended:#?}");
        }
        every_place_is_left(broker).await;
    })
    .await;
}

#[tokio::test]
async fn a_line_that_emptied_and_is_listed_for_a_day_keeps_no_look_busy_and_no_arrival_waiting() {
    let provider = Provider::start(1).await;
    let setup = provider.setup().faults(1).apis(1).workers(2);
    let setup = setup.var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "2");
    story(setup, async |broker| {
        let waits = broker.allocate("student-1").wait(1).json(&json!({ "max_wait_s": 86_400 }));
        let location = parked(broker, waits, "student-1").await;
        broker.job("sync").await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        every_place_is_left(broker).await;
        provider.grow(2).await;
        broker.job("sync").await;
        assert_eq!((broker.stats().await.available, broker.table().list("LINES").await.len()), (2, 1));

        let (proxy, refused) = (broker.proxy(), Fault::Refuse("ValidationException"));
        let begun = proxy.tallies().calls("ExecuteStatement");
        proxy.add(Rule::new(refused).on("UpdateItem").containing("TICK#serve"));
        wait_until("some looks", || proxy.tallies().calls("ExecuteStatement") >= begun + 8).await;
        assert_eq!(proxy.done("UpdateItem", refused), 0, "a look that finds nothing writes nothing");
        provider.grow(1).await;
        broker.job("sync").await;
        assert_eq!(broker.stats().await.available, 3, "it waited for no look");
        proxy.calm();
    })
    .await;
}
