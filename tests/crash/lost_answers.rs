//! Lost responses of AWS: the call took effect and its response was lost, or it did not and failed oddly.

use std::time::Duration;

use broker_runtime::aws;
use broker_runtime::clock::Clock;
use broker_store::Store;
use broker_tests::{Fault, Rule, Setup, story, together};
use serde_json::json;

use crate::setup;

fn with_faults() -> Setup {
    setup().workers(1).faults(1)
}

#[tokio::test]
async fn a_claim_whose_answers_are_all_lost_is_found_by_its_own_redelivery() {
    story(with_faults(), async |broker| {
        // All three attempts of the SDK and a fourth: the worker gives up, the message comes back.
        broker.proxy().add(Rule::new(Fault::LoseResponse).on("TransactWriteItems").times(4));
        let first = broker.allocate("student-1").send().await.expect_status(201);
        assert_eq!(broker.proxy().done("TransactWriteItems", Fault::LoseResponse), 4);
        assert_eq!(broker.stats().await.allocated, 1);
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn an_end_whose_answers_are_all_lost_is_a_return_all_the_same() {
    story(with_faults(), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        broker.proxy().add(Rule::new(Fault::LoseResponse).on("TransactWriteItems").times(4));
        broker.return_sandbox(held.sandbox_id(), "student-1").send().await.expect_status(200);
        assert_eq!(broker.stats().await.pending_deletion, 1);
    })
    .await;
}

#[tokio::test]
async fn transactions_in_each_others_way_are_tried_again() {
    story(with_faults(), async |broker| {
        let conflict = Rule::new(Fault::Conflict).on("TransactWriteItems");
        broker.proxy().add(conflict.clone().times(5));
        let held = broker.allocate("student-1").send().await.expect_status(201);
        broker.proxy().add(conflict.times(5));
        broker.return_sandbox(held.sandbox_id(), "student-1").send().await.expect_status(200);
        assert_eq!(broker.proxy().done("TransactWriteItems", Fault::Conflict), 10);
    })
    .await;
}

#[tokio::test]
async fn a_throttled_table_delays_and_loses_nothing() {
    story(with_faults(), async |broker| {
        broker.proxy().add(Rule::new(Fault::Throttle).on("TransactWriteItems").times(7));
        broker.allocate("student-1").send().await.expect_status(201);
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_sqs_delivers_twice_claims_once() {
    story(with_faults(), async |broker| {
        broker.proxy().add(Rule::new(Fault::Duplicate).on("SendMessageBatch"));
        let calls: Vec<_> = (0..5).map(|n| broker.allocate(&format!("student-{n}")).send()).collect();
        for answer in together(calls).await {
            answer.expect_status(201);
        }
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 5);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_send_was_told_to_have_failed_can_be_repeated() {
    story(with_faults(), async |broker| {
        // The API says 503 and the request is in the queue all the same.
        let requests = broker.queues().name("requests");
        let send = Rule::new(Fault::FailEntry).on("SendMessageBatch").containing(&requests);
        broker.proxy().add(send.times(1));
        broker.allocate("student-1").send().await.expect_problem(503, "UNAVAILABLE");
        let told = broker.allocate("student-1").send().await;
        assert!([200, 201].contains(&told.status), "{told:#?}");
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

/// SQS takes a recorded request's message, and never says so.
async fn sent_and_never_answered(workers: usize, asynchronous: bool) {
    let setup = setup().workers(workers).faults(1).var("BROKER_WAITING", "on");
    story(setup, async |broker| {
        let requests = broker.queues().name("requests");
        broker.proxy().add(Rule::new(Fault::LateResponse).on("SendMessageBatch").containing(&requests));
        let call = broker.allocate("student-1").json(&json!({ "max_wait_s": 600 }));
        let told = if asynchronous { call.respond_async() } else { call.wait(1) }.send().await;
        assert!(broker.proxy().done("SendMessageBatch", Fault::LateResponse) > 0);
        broker.proxy().calm();
        let mut first = None;
        if told.status == 202 {
            assert_eq!(workers, 1, "nobody was faster");
            let ended = broker.outcome(told.must_have("location"), "student-1").await;
            assert_eq!(ended.json["response"]["status"], 201, "{ended:#?}");
            first = Some(ended.json["response"]["body"]["sandbox_id"].clone());
        } else if told.status == 201 {
            assert!(workers == 1 && !asynchronous, "its record says how it ended");
            first = Some(told.json["sandbox_id"].clone());
        } else {
            told.expect_problem(503, "UNAVAILABLE");
        }
        broker.start_worker().await;
        broker.queues().are_empty().await;
        assert_eq!(
            broker.stats().await.allocated,
            u64::from(first.is_some()),
            "what was refused claims nothing"
        );
        let again = broker.allocate("student-1").send().await;
        match first {
            Some(first) => assert_eq!(again.expect_status(200).json["sandbox_id"], first),
            None => drop(again.expect_status(201)),
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_send_is_not_answered_is_taken_back_before_any_worker_meets_it() {
    for asynchronous in [false, true] {
        sent_and_never_answered(0, asynchronous).await;
    }
}

#[tokio::test]
async fn a_request_whose_send_is_not_answered_is_either_refused_or_holds_when_a_worker_is_as_fast() {
    for asynchronous in [false, true] {
        sent_and_never_answered(1, asynchronous).await;
    }
}

#[tokio::test]
async fn a_reply_that_could_not_be_sent_is_sent_when_the_message_comes_back() {
    story(with_faults(), async |broker| {
        // In a message to the requests queue the name comes without the slash of a URL.
        let reply_queue = format!("/{}", broker.queues().name("replies-"));
        let send = Rule::new(Fault::ServerError).on("SendMessageBatch").containing(&reply_queue);
        broker.proxy().add(send.times(3));
        broker.allocate("student-1").send().await.expect_status(201);
        assert_eq!(broker.proxy().done("SendMessageBatch", Fault::ServerError), 3);
    })
    .await;
}

#[tokio::test]
async fn messages_whose_deletion_fails_come_back_and_change_nothing() {
    story(with_faults(), async |broker| {
        broker.proxy().add(Rule::new(Fault::ServerError).on("DeleteMessageBatch").times(6));
        let first = broker.allocate("student-1").send().await.expect_status(201);
        broker.queues().are_empty().await;
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn messages_that_overtake_each_other_are_all_answered() {
    story(with_faults(), async |broker| {
        broker.proxy().add(Rule::new(Fault::Reorder));
        let calls: Vec<_> = (0..9).map(|n| broker.allocate(&format!("student-{n}")).send()).collect();
        for answer in together(calls).await {
            answer.expect_status(201);
        }
        assert_eq!(broker.stats().await.allocated, 9);
    })
    .await;
}

/// A page of up to 1 MB takes its time on a busy table: each attempt at it has ten seconds, not the one of a claim.
#[tokio::test]
async fn a_page_of_a_scan_that_takes_seconds_is_waited_for() {
    story(with_faults().apis(0).workers(0), async |broker| {
        let (urls, clock) = (broker.proxy().urls(), Clock::system());
        let poll_wait = Duration::from_secs(1);
        let aws = aws::connect_locally(&urls.dynamodb_url, &urls.sqs_url, &clock, poll_wait);
        let vars = broker.vars();
        let table = vars.iter().find(|(name, _)| name == "BROKER_TABLE").expect("it has a table");
        let store = Store::new(aws.dynamodb, &table.1, 16);
        broker.proxy().add(Rule::new(Fault::LateResponse).on("Scan"));
        let page = store.scans.page(0, 1, None).await.expect("it came, late");
        assert_eq!(page.items.sandboxes.len(), 10);
        assert_eq!(broker.proxy().done("Scan", Fault::LateResponse), 1, "at the first attempt");
    })
    .await;
}
