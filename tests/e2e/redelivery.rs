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
