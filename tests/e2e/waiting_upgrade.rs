//! Waiting beside processes of another release: what they leave behind is served or ended, never lost (ARCHITECTURE.md,
//! "Waiting").

use broker_tests::table::{Item, text};
use broker_tests::{Broker, story, wait_for_condition};
use serde_json::json;

use crate::quotas;
use crate::waiting::{arrive, parked, setup, stands, status, waits};

/// Asks for `count` students, whose requests then stand in one line.
async fn line(broker: &Broker, count: usize) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    for n in 0..count {
        let track = format!("student-{n}");
        asked.push((parked(broker, waits(broker, &track), &track).await, track));
    }
    asked
}

/// The record of the request at `location`.
async fn record(broker: &Broker, location: &str) -> Item {
    let id = location.rsplit('/').next().expect("an id");
    broker.table().must_get(&format!("REQ#{id}")).await
}

#[tokio::test]
async fn waiting_that_is_turned_off_refuses_new_requests_and_serves_those_who_stand_in_lines() {
    story(setup().apis(1), async |broker| {
        let asked = line(broker, 2).await;
        broker.start_api_with(&[("BROKER_WAITING", "off")]).await;
        broker.kill_api(0);
        let call = broker.allocate("student-9").json(&json!({ "max_wait_s": 600 }));
        call.send().await.expect_problem(409, "CANNOT_WAIT");
        for (number, (location, track)) in asked.iter().enumerate() {
            stands(broker, location, track).await;
            arrive(broker, number, 1).await;
            assert_eq!(status(&broker.outcome(location, track).await), 201);
            waits(broker, track).send().await.expect_status(200);
        }
    })
    .await;
}

#[tokio::test]
async fn what_an_older_api_ends_is_ended_and_its_place_is_in_nobodys_way() {
    story(setup(), async |broker| {
        let asked = line(broker, 3).await;
        // An older API writes the whole record anew, without its line, and knows no place; a cancellation leaves the line.
        for ((location, _), (state, outcome)) in asked
            .iter()
            .zip([("expired", "{\"outcome\":\"expired\"}"), ("cancelled", "{\"outcome\":\"cancelled\"}")])
        {
            let mut record = record(broker, location).await;
            record.insert("state".to_owned(), text(state));
            record.insert("outcome".to_owned(), text(outcome));
            if state == "expired" {
                record.remove("parked");
            }
            broker.table().put(record).await;
        }
        arrive(broker, 0, 1).await;
        let (location, track) = &asked[2];
        assert_eq!(status(&broker.outcome(location, track).await), 201);
        for ((location, track), state) in asked.iter().zip(["expired", "cancelled"]) {
            assert_eq!(broker.outcome(location, track).await.text_of("status"), state);
        }
        wait_for_condition("their places to be gone", async || {
            let places = broker.table().keys("LINE#").await.len();
            if places == 0 { Ok(()) } else { Err(places) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_an_older_worker_buries_stands_where_it_stood_once_it_is_replayed() {
    story(setup(), async |broker| {
        let asked = line(broker, 2).await;
        // A copy of the first's message dies at an older worker, which fails its record although it stands in a line.
        let (location, track) = &asked[0];
        let place = broker.table().list("LINE#platform#").await.remove(0);
        let mut dead = record(broker, location).await;
        dead.insert("state".to_owned(), text("failed"));
        let outcome = "{\"outcome\":\"dead_lettered\",\"reason\":\"max_receives_exceeded\"}";
        dead.insert("outcome".to_owned(), text(outcome));
        broker.table().put(dead).await;
        let queues = broker.queues();
        queues.send(&queues.name("requests-dlq"), place["message"].as_s().expect("text")).await;
        broker.holds_letters(1).await;
        assert_eq!(broker.outcome(location, track).await.text_of("status"), "failed");
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        stands(broker, location, track).await;
        for (number, (location, track)) in asked.iter().enumerate() {
            arrive(broker, number, 1).await;
            assert_eq!(status(&broker.outcome(location, track).await), 201);
        }
    })
    .await;
}

#[tokio::test]
async fn a_letter_of_another_delivery_fails_nothing_that_stands_in_a_line() {
    story(setup(), async |broker| {
        let asked = line(broker, 2).await;
        let (location, track) = &asked[0];
        let place = broker.table().list("LINE#platform#").await.remove(0);
        let queues = broker.queues();
        queues.send(&queues.name("requests-dlq"), place["message"].as_s().expect("text")).await;
        broker.holds_letters(1).await;
        stands(broker, location, track).await;
        // Replayed it is acknowledged: it goes past nobody.
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        broker.queues().are_empty().await;
        for (number, (location, track)) in asked.iter().enumerate() {
            stands(broker, location, track).await;
            arrive(broker, number, 1).await;
            assert_eq!(status(&broker.outcome(location, track).await), 201);
        }
    })
    .await;
}

#[tokio::test]
async fn a_place_of_a_newer_release_keeps_no_permit_from_newcomers_of_its_tenant() {
    story(quotas::setup(), async |broker| {
        quotas::limited(broker, 1).await;
        let waiting = quotas::parked(broker, "student-1").await;
        let table = broker.table();
        let mut newer = table.list("LINE#acme#lab-").await.remove(0);
        newer.insert("message".to_owned(), text("{\"v\":99,\"what\":\"nobody here knows\"}"));
        table.put(newer).await;
        quotas::seed(broker, "lab", 0, 1).await;
        wait_for_condition("it to be offered", async || match broker.stats().await.available {
            1 => Ok(()),
            available => Err(available),
        })
        .await;
        quotas::asks(broker, "student-2").send().await.expect_status(201);
        broker.cancel(&waiting, "student-1").token(quotas::ACME).send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_place_of_a_newer_release_is_passed_over_until_its_deadline() {
    story(setup(), async |broker| {
        let asked = line(broker, 2).await;
        let table = broker.table();
        let mut newer = table.list("LINE#platform#").await.remove(0);
        newer.insert("message".to_owned(), text("{\"v\":99,\"what\":\"nobody here knows\"}"));
        table.put(newer.clone()).await;
        arrive(broker, 0, 1).await;
        let (location, track) = &asked[1];
        assert_eq!(status(&broker.outcome(location, track).await), 201);
        assert_eq!(broker.open_letters().await.len(), 0);
        let (location, track) = &asked[0];
        stands(broker, location, track).await;
        // No newer worker came.
        let over = broker_tests::table::number((broker_tests::table::now_s() - 5) * 1_000);
        newer.insert("deadline_ms".to_owned(), over);
        table.put(newer).await;
        broker.holds_letters(1).await;
        assert_eq!(broker.letters(&[]).await[0]["reason"], "newer_version");
        assert_eq!(broker.outcome(location, track).await.text_of("status"), "failed");
        broker.discard(&["--all"]).await;
    })
    .await;
}
