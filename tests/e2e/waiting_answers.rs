//! Answers to requests that wait: all of them end, calls that are held, repeats of a key and those in whose time no worker ran as
//! well.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::{now_s, number, text};
use broker_tests::{Answer, Fault, Rule, story, wait_for_condition, wait_until};
use http::Method;
use serde_json::json;

use crate::quotas::seed;
use crate::waiting::{arrive, every_place_is_left, parked, setup, stands, status, waits};
use crate::waiting_bounds::wait_for_what_is_not;

#[tokio::test]
async fn a_call_that_is_held_while_it_waits_is_answered_with_its_sandbox() {
    story(setup(), async |broker| {
        let held = broker.allocate("student-1").wait(50).json(&json!({ "max_wait_s": 600 }));
        let held = tokio::spawn(held.send());
        wait_for_condition("it to be parked", async || {
            let keys = broker.table().keys("LINE#").await;
            if keys.len() == 1 { Ok(()) } else { Err(keys) }
        })
        .await;
        arrive(broker, 0, 1).await;
        held.await.expect("an answer").expect_status(201);
        every_place_is_left(broker).await;
        waits(broker, "student-2").send().await.expect_status(202);
        // As it was asked: neither slow nor a wait that ran out.
        let mut counted = BTreeMap::<&str, f64>::new();
        for name in [
            "broker_reply_waits_total{outcome=\"waiting\"}",
            "broker_reply_waits_total{outcome=\"ran_out\"}",
            "broker_allocation_latency_seconds_count",
        ] {
            for api in [broker.api(0), broker.api(1)] {
                *counted.entry(name).or_default() += api.metric(name).await;
            }
        }
        assert_eq!(counted.into_values().collect::<Vec<_>>(), [0.0, 0.0, 1.0], "latency, ran out, waiting");
    })
    .await;
}

#[tokio::test]
async fn a_held_call_whose_request_is_cancelled_by_an_operator_is_told_so_and_not_that_it_is_queued() {
    story(setup().apis(1).workers(1), async |broker| {
        let held = |track: &str, wait: u32| {
            let call = broker.allocate(track).wait(wait).json(&json!({ "max_wait_s": 600 }));
            tokio::spawn(call.send())
        };
        let is_parked = async || {
            wait_for_condition("it to be parked", async || {
                let keys = broker.table().keys("LINE#").await;
                if keys.len() == 1 { Ok(()) } else { Err(keys) }
            })
            .await;
        };
        let is_told = |told: Answer| {
            let told = told.expect_problem(503, "UNAVAILABLE");
            assert!(told.text.contains("was cancelled"), "{told:#?}");
        };
        // A command sends no reply: the call finds it when its wait is over.
        let by_command = held("student-1", 8);
        is_parked().await;
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
        is_told(by_command.await.expect("an answer"));
        // The process that holds the call knows at once.
        let by_api = held("student-2", 50);
        is_parked().await;
        let cancel = broker.balanced().call(Method::POST, "/v1/admin/waiting/cancel?all=true");
        cancel.token(ADMIN_TOKEN).send().await.expect_status(200);
        let told = tokio::time::timeout(Duration::from_secs(30), by_api).await;
        is_told(told.expect("long before the end of its wait").expect("an answer"));
    })
    .await;
}

#[tokio::test]
async fn what_a_request_that_may_wait_is_told_is_stored_before_it_can_be_lost_with_its_reply() {
    story(setup().apis(1).workers(1).pool(1), async |broker| {
        let keyed = |key: &'static str, hours: u64| {
            let body = json!({ "max_wait_s": 86_400, "lab_duration_hours": hours });
            broker.allocate("student-1").header("idempotency-key", key).json(&body)
        };
        let created = keyed("mine", 1).send().await.expect_status(201);
        for (again, status, state) in
            [(keyed("mine", 1), 200, "succeeded"), (keyed("mine", 2), 422, "failed")]
        {
            let told = again.send().await.expect_status(status);
            let location = format!("/v1/requests/{}", told.must_have("x-request-id"));
            let stored = broker.request(&location, "student-1").send().await.expect_status(200);
            assert_eq!(stored.text_of("status"), state, "{stored:#?}");
            assert_eq!(stored.json["response"]["status"], status);
        }
        assert_eq!(broker.verify().await.live_leases, 1, "{created:#?}");
    })
    .await;
}

#[tokio::test]
async fn repeats_that_hide_what_stands_behind_them_let_no_later_request_of_the_tenant_go_first() {
    story(setup(), async |broker| {
        let lab = |track: &str| waits(broker, track).name_prefix("lab-");
        // More repeats of one key than a look reads of a line for three sandboxes.
        for _ in 0..9 {
            parked(broker, lab("student-1"), "student-1").await;
        }
        let first = parked(broker, lab("student-2"), "student-2").await;
        let second = parked(broker, waits(broker, "student-3"), "student-3").await;
        let third = parked(broker, waits(broker, "student-4"), "student-4").await;
        seed(broker, "lab", 0, 3).await;
        for (location, track) in [(&first, "student-2"), (&second, "student-3")] {
            let ended = broker.outcome(location, track).await;
            assert_eq!(status(&ended), 201, "{track}: {ended:#?}");
        }
        stands(broker, &third, "student-4").await;
        assert_eq!(broker.stats().await.allocated, 3);
    })
    .await;
}

#[tokio::test]
async fn one_arrival_answers_the_repeats_of_its_key_that_stand_behind_it() {
    story(setup(), async |broker| {
        // As many as a walk asks the leases of, in a line that it meets before: it tells nobody of the other line.
        wait_for_what_is_not(broker, 100).await;
        let lab = || broker.allocate("pupil").name_prefix("lab-").json(&json!({ "max_wait_s": 600 }));
        let first = parked(broker, lab().wait(1), "pupil").await;
        let held = tokio::spawn(lab().wait(50).send());
        let table = broker.table();
        let left = async |expected: usize| {
            wait_for_condition("the places of the line", async || {
                match table.list("LINE#platform#lab-").await {
                    places if places.len() == expected => Ok(()),
                    places => Err(places),
                }
            })
            .await;
        };
        left(2).await;
        seed(broker, "lab", 0, 1).await;
        let again = held.await.expect("an answer").expect_status(200);
        let ended = broker.outcome(&first, "pupil").await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        assert_eq!(ended.json["response"]["body"]["sandbox_id"], again.sandbox_id());
        left(0).await;
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn who_waits_in_vain_is_answered_once_its_key_got_a_sandbox_elsewhere() {
    story(setup().pool(1), async |broker| {
        let big = broker.allocate("student-1").name_prefix("big-").wait(50);
        let held = tokio::spawn(big.json(&json!({ "max_wait_s": 600 })).send());
        wait_for_condition("it to be parked", async || match broker.table().keys("LINE#").await {
            places if places.len() == 1 => Ok(()),
            places => Err(places),
        })
        .await;
        let created = broker.allocate("student-1").send().await.expect_status(201);
        let told = held.await.expect("an answer").expect_status(200);
        assert_eq!(told.sandbox_id(), created.sandbox_id());
        every_place_is_left(broker).await;
    })
    .await;
}

#[tokio::test]
async fn a_place_of_a_request_that_was_granted_is_left_and_not_counted_once_more() {
    story(setup(), async |broker| {
        let location = parked(broker, waits(broker, "student-1"), "student-1").await;
        let table = broker.table();
        let place = table.list("LINE#platform#").await.remove(0);
        seed(broker, "lab", 0, 1).await;
        assert_eq!(status(&broker.outcome(&location, "student-1").await), 201);
        every_place_is_left(broker).await;
        // As a walk meets it that read it before it was left.
        table.put(place).await;
        every_place_is_left(broker).await;
        let mut counted = 0.0;
        for worker in 0..2 {
            counted += broker.worker(worker).metrics().metric("broker_waiting_seconds_count").await;
        }
        assert!((counted - 1.0).abs() < 0.1, "{counted} ends of one wait");
    })
    .await;
}

#[tokio::test]
async fn a_line_that_cannot_be_read_keeps_no_walk_from_those_who_wait_in_another() {
    story(setup().faults(1).pool(1), async |broker| {
        let in_the_way = waits(broker, "student-0").name_prefix("big-");
        parked(broker, in_the_way, "student-0").await;
        // Its key gets a sandbox elsewhere: only a walk answers it.
        let proxy = broker.proxy();
        let refused = Fault::Refuse("ValidationException");
        proxy.add(Rule::new(refused).on("Query").containing("LINE#platform#big-"));
        let behind = parked(broker, waits(broker, "student-1").name_prefix("huge-"), "student-1").await;
        let created = broker.allocate("student-1").send().await.expect_status(201);
        // Nobody asks for it: a poll would find the lease itself.
        wait_for_condition("its place to be left", async || {
            match broker.table().list("LINE#platform#huge-").await {
                none if none.is_empty() => Ok(()),
                some => Err(some),
            }
        })
        .await;
        assert!(proxy.done("Query", refused) > 0, "the other line was read");
        proxy.calm();
        let ended = broker.outcome(&behind, "student-1").await;
        assert_eq!(ended.json["response"]["body"]["sandbox_id"], created.sandbox_id(), "{ended:#?}");
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_walk_that_failed_is_not_made_again_at_once() {
    story(setup().workers(1).faults(1).pool(1), async |broker| {
        parked(broker, waits(broker, "student-0").name_prefix("big-"), "student-0").await;
        let proxy = broker.proxy();
        let refused = Fault::Refuse("ValidationException");
        proxy.add(Rule::new(refused).on("Query").containing("LINE#platform#big-"));
        wait_until("a walk to fail", || proxy.done("Query", refused) > 0).await;
        // A look asks for what is arriving, and for what is available with the prefix of the line.
        let looks = proxy.tallies().calls("ExecuteStatement");
        wait_until("five looks", || proxy.tallies().calls("ExecuteStatement") >= looks + 10).await;
        let walks = proxy.done("Query", refused);
        assert!(walks <= 2, "{walks} walks");
        proxy.calm();
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_place_that_nobody_can_serve_and_the_table_keeps_is_in_nobodys_way() {
    story(setup().faults(1), async |broker| {
        parked(broker, waits(broker, "student-0"), "student-0").await;
        let behind = parked(broker, waits(broker, "student-1"), "student-1").await;
        let table = broker.table();
        let mut head = table.list("LINE#platform#").await.remove(0);
        let refused = Fault::Refuse("ValidationException");
        let proxy = broker.proxy();
        proxy.add(Rule::new(refused).on("TransactWriteItems").containing("DEAD#"));
        head.insert("message".to_owned(), text("{no message"));
        table.put(head).await;
        wait_until("the place to be met", || proxy.done("TransactWriteItems", refused) > 0).await;
        seed(broker, "lab", 0, 1).await;
        let ended = broker.outcome(&behind, "student-1").await;
        assert_eq!(status(&ended), 201, "{ended:#?}");
        proxy.calm();
        // The next who reads it buries it.
        broker.holds_letters(1).await;
        broker.discard(&["--all"]).await;
        every_place_is_left(broker).await;
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_ended_also_after_two_days_in_which_no_worker_ran() {
    story(setup().apis(1).workers(1), async |broker| {
        let location = parked(broker, waits(broker, "student-1"), "student-1").await;
        broker.stop_workers().await;
        // What the table is like 50 hours later.
        let (table, hours) = (broker.table(), 50 * 3_600);
        let request = format!("REQ#{}", location.rsplit('/').next().expect("an id"));
        let mut items = vec![table.must_get(&request).await];
        items.extend(table.list("LINES").await);
        items.extend(table.list("LINES#platform").await);
        items.extend(table.list("LINE#platform#").await);
        assert_eq!(items.len(), 4, "the record, the line, its guard, the place");
        for mut item in items {
            for (name, each) in [("deadline_ms", 1_000), ("until_ms", 1_000), ("as_of_ms", 1_000), ("ttl", 1)]
            {
                if let Some(at) = item.get(name).and_then(|at| at.as_n().ok()?.parse::<u64>().ok()) {
                    item.insert(name.to_owned(), number(at - hours * each));
                }
            }
            if item["ttl"].as_n().expect("a number").parse::<u64>().expect("seconds") > now_s() {
                table.put(item).await;
            } else {
                let key = |name: &str| item[name].as_s().expect("text").clone();
                table.delete_at(&key("PK"), &key("SK")).await;
            }
        }
        broker.start_worker().await;
        // Nobody asks for it.
        wait_for_condition("it to be expired", async || match &table.must_get(&request).await["state"] {
            state if *state == text("expired") => Ok(()),
            state => Err(state.clone()),
        })
        .await;
        every_place_is_left(broker).await;
        wait_for_condition("the line to be forgotten", async || match table.list("LINES").await {
            none if none.is_empty() => Ok(()),
            some => Err(some),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_place_that_cannot_be_decoded_and_whose_request_ended_is_deleted() {
    story(setup().apis(1).workers(1), async |broker| {
        let location = parked(broker, waits(broker, "student-1"), "student-1").await;
        let table = broker.table();
        let mut place = table.list("LINE#platform#").await.remove(0);
        broker.cancel(&location, "student-1").send().await.expect_status(200);
        every_place_is_left(broker).await;
        // As where the process that cancelled it died before it left the place.
        place.insert("message".to_owned(), text("{no message"));
        table.put(place).await;
        every_place_is_left(broker).await;
        broker.holds_letters(0).await;
    })
    .await;
}
