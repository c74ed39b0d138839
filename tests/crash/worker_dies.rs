//! Crashes of a worker: SIGKILL between any two of its effects; another one takes over.

use broker_runtime::crash_points::Point;
use broker_tests::cli::Stats;
use broker_tests::story;

use super::{answer, asked, dies, doomed, setup};

fn pool(allocated: u64, pending_deletion: u64) -> Stats {
    let available = 10 - allocated - pending_deletion;
    Stats { total: 10, available, allocated, pending_deletion, ..Stats::default() }
}

/// Whatever a worker had done for an allocation when it died, the caller gets one sandbox and the key holds one.
async fn an_allocation_survives(point: Point, allocated_at_death: u64) {
    story(setup(), async |broker| {
        let call = asked(broker, broker.allocate("student-1")).await;
        doomed(broker, point).await;
        dies(broker).await;
        assert_eq!(broker.stats().await, pool(allocated_at_death, 0), "when it died");
        broker.start_worker().await;
        let first = answer(call).await.expect_status(201);
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await, pool(1, 0));
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
    })
    .await;
}

/// Whatever a worker had done for a return when it died, the sandbox is given back once. By its default key it is given
/// back without a look, by any other after one.
async fn a_return_survives(point: Point, key: &str, returned_at_death: u64) {
    story(setup(), async |broker| {
        broker.start_worker().await;
        let held = broker.allocate("student-1").key(key).send().await.expect_status(201);
        broker.stop_workers().await;
        let call = asked(broker, broker.return_sandbox(held.sandbox_id(), "student-1")).await;
        doomed(broker, point).await;
        dies(broker).await;
        assert_eq!(broker.stats().await, pool(1 - returned_at_death, returned_at_death), "when it died");
        broker.start_worker().await;
        answer(call).await.expect_status(200);
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await, pool(0, 1));
        let next = broker.allocate("student-1").key(key).send().await.expect_status(201);
        assert_ne!(next.sandbox_id(), held.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_dies_between_receive_and_claim_loses_nothing() {
    an_allocation_survives(Point::Received, 0).await;
}

#[tokio::test]
async fn a_worker_that_dies_before_its_claim_claimed_nothing() {
    an_allocation_survives(Point::BeforeClaim, 0).await;
}

#[tokio::test]
async fn a_worker_that_dies_after_its_claim_leaves_a_success_that_is_found() {
    an_allocation_survives(Point::Claimed, 1).await;
}

#[tokio::test]
async fn a_worker_that_dies_after_its_reply_leaves_a_message_that_changes_nothing() {
    an_allocation_survives(Point::Replied, 1).await;
}

#[tokio::test]
async fn a_worker_that_dies_before_the_delete_leaves_a_message_that_changes_nothing() {
    an_allocation_survives(Point::BeforeDelete, 1).await;
}

#[tokio::test]
async fn a_worker_that_dies_before_it_ends_a_lease_ended_nothing() {
    a_return_survives(Point::BeforeReturn, "student-1", 0).await;
    a_return_survives(Point::BeforeEnd, "lab-1", 0).await;
}

#[tokio::test]
async fn a_worker_that_dies_after_it_ended_a_lease_leaves_a_success_that_is_found() {
    a_return_survives(Point::LeaseEnded, "student-1", 1).await;
    a_return_survives(Point::LeaseEnded, "lab-1", 1).await;
}

#[tokio::test]
async fn a_worker_that_dies_after_it_stored_a_late_outcome_does_not_take_it_along() {
    story(setup(), async |broker| {
        let late = broker.allocate("student-1").wait(1).send().await.expect_status(202);
        let location = late.must_have("location").to_owned();
        doomed(broker, Point::OutcomeStored).await;
        dies(broker).await;
        // No worker runs: every response now was stored before.
        let ended = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        broker.start_worker().await;
        broker.queues().are_empty().await;
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(Some(again.sandbox_id()), ended.json["response"]["body"]["sandbox_id"].as_str());
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_dies_over_a_dead_letter_leaves_one() {
    story(setup(), async |broker| {
        let queues = broker.queues();
        queues.send(&queues.name("requests"), "not a message of ours").await;
        doomed(broker, Point::Buried).await;
        dies(broker).await;
        assert_eq!(queues.depth(&queues.name("requests-dlq")).await.total(), 1, "its copy is sent");
        assert_eq!(queues.requests().await.total(), 1, "and it is not deleted");
        broker.start_worker().await;
        queues.are_empty().await;
        let letters = broker.letters(&[]).await;
        assert_eq!(letters.len(), 1, "two copies are one letter: {letters:#?}");
        assert_eq!((&letters[0]["reason"], &letters[0]["bytes"]), (&"malformed".into(), &21.into()));
        broker.discard(&["--all"]).await;
    })
    .await;
}
