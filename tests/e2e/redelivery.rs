//! Redelivery: a message that comes twice, or late, changes nothing; SQS delivers at least once.

use aws_sdk_sqs::types::Message;
use broker_tests::cli::Stats;
use broker_tests::{Answer, Broker, Call, Setup, story};
use tokio::task::JoinHandle;

/// Makes a call that no worker is there to answer, and takes a copy of its message out of the queue.
async fn intercept(broker: &Broker, call: Call) -> (Message, JoinHandle<Answer>) {
    let call = tokio::spawn(call.send());
    let queues = broker.queues();
    queues.holds_requests(1).await;
    let mut seen = queues.peek(&queues.name("requests")).await;
    assert_eq!(seen.len(), 1, "{seen:#?}");
    (seen.remove(0), call)
}

async fn send_copies(broker: &Broker, message: &Message, copies: usize) {
    let queues = broker.queues();
    for _ in 0..copies {
        queues.send_copy(&queues.name("requests"), message).await;
    }
}

#[tokio::test]
async fn a_request_that_is_delivered_many_times_claims_once() {
    story(Setup::new().apis(2).workers(0).pool(20), async |broker| {
        let (message, call) = intercept(broker, broker.allocate("student-1")).await;
        send_copies(broker, &message, 2).await;
        for _ in 0..3 {
            broker.start_worker().await;
        }
        let answer = call.await.expect("an answer").expect_status(201);
        send_copies(broker, &message, 30).await;
        broker.queues().are_empty().await;

        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 20, available: 19, allocated: 1, ..Stats::default() });
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), answer.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_late_copy_of_a_request_whose_sandbox_was_given_back_claims_nothing() {
    story(Setup::new().apis(2).workers(0).pool(20), async |broker| {
        let (message, call) = intercept(broker, broker.allocate("student-1")).await;
        broker.start_worker().await;
        let answer = call.await.expect("an answer").expect_status(201);
        broker.return_sandbox(answer.sandbox_id(), "student-1").send().await.expect_status(200);
        send_copies(broker, &message, 5).await;
        broker.queues().are_empty().await;

        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 20, available: 19, pending_deletion: 1, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_late_copy_of_a_mark_does_not_end_the_next_lease() {
    story(Setup::new().apis(2).workers(3).pool(20), async |broker| {
        let first = broker.allocate("student-1").send().await.expect_status(201);
        broker.stop_workers().await;
        let (message, call) = intercept(broker, broker.return_sandbox(first.sandbox_id(), "student-1")).await;
        send_copies(broker, &message, 1).await;
        for _ in 0..3 {
            broker.start_worker().await;
        }
        call.await.expect("an answer").expect_status(200);
        let second = broker.allocate("student-1").send().await.expect_status(201);
        send_copies(broker, &message, 5).await;
        broker.queues().are_empty().await;

        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), second.sandbox_id());
        let stats = broker.stats().await;
        let expected =
            Stats { total: 20, available: 18, allocated: 1, pending_deletion: 1, ..Stats::default() };
        assert_eq!(stats, expected);
    })
    .await;
}

/// Makes a call whose caller does not wait for long, takes its message out of the queue, and lets it be `earlier_s` older.
async fn set_aside(broker: &Broker, call: Call, earlier_s: u64) -> (String, String) {
    let queued = call.wait(1).send().await.expect_status(202);
    let queues = broker.queues();
    let message = queues.take(&queues.name("requests"), 1).await.remove(0);
    let mut message: serde_json::Value = serde_json::from_str(message.body().expect("a body")).expect("JSON");
    let enqueued_at = message["enqueued_at_ms"].as_u64().expect("a time");
    message["enqueued_at_ms"] = (enqueued_at - earlier_s * 1_000).into();
    (message.to_string(), queued.must_have("location").to_owned())
}

/// Lets the worker handle the message of a request, and returns how that ended: its state, the status of its answer, its
/// sandbox.
async fn handled(broker: &Broker, (message, location): &(String, String)) -> (String, u64, String) {
    let queues = broker.queues();
    queues.send(&queues.name("requests"), message).await;
    queues.are_empty().await;
    let ended = broker.outcome(location, "student-1").await;
    let response = &ended.json["response"];
    let sandbox = response["body"]["sandbox_id"].as_str().unwrap_or_default().to_owned();
    (ended.text_of("status").to_owned(), response["status"].as_u64().expect("a status"), sandbox)
}

#[tokio::test]
async fn a_start_and_a_stop_that_overtake_each_other_end_what_they_name_and_lose_nothing() {
    story(Setup::new().workers(1).pool(4), async |broker| {
        for start_is_first in [true, false] {
            let held = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
            broker.stop_workers().await;
            // The one that was asked first comes last. A Start is a while older than its Stop; a Stop cannot be older than
            // the sandbox that it names.
            let age_of_start = if start_is_first { 20 } else { 0 };
            let stop = set_aside(broker, broker.return_sandbox(&held, "student-1"), 0).await;
            let start = set_aside(broker, broker.allocate("student-1"), age_of_start).await;
            broker.start_worker().await;
            if start_is_first {
                let stopped = handled(broker, &stop).await;
                assert_eq!(stopped, ("succeeded".to_owned(), 200, held.clone()));
                // The last word was the Stop: nothing is claimed for a track that is gone.
                let started = handled(broker, &start).await;
                assert_eq!((started.0.as_str(), started.1), ("failed", 503));
            } else {
                assert_eq!(handled(broker, &start).await, ("succeeded".to_owned(), 200, held.clone()));
                assert_eq!(handled(broker, &stop).await, ("succeeded".to_owned(), 200, held.clone()));
            }
            assert_eq!(broker.stats().await.allocated, 0);
            let next = broker.allocate("student-1").send().await.expect_status(201);
            assert_ne!(next.sandbox_id(), held);
            broker.return_sandbox(next.sandbox_id(), "student-1").send().await.expect_status(200);
        }
    })
    .await;
}
