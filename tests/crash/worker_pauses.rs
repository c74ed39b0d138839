//! Pauses of a worker between a decision and its write, for longer than the visibility timeout.

use broker_runtime::crash_points::Point;
use broker_tests::cli::Stats;
use broker_tests::{Broker, story, wait_for_condition};

use super::{CRASH_AT, answer, asked, setup};

/// Starts a worker that stops at `point`, and waits until it does.
pub(super) async fn stands_still(broker: &mut Broker, point: Point) {
    broker.launch_worker(&[(CRASH_AT, &format!("{}=stop", point.as_str()))]).await;
    broker.worker_mut(0).process().frozen().await;
}

/// Waits until the stopped worker, which goes on now, has done all that it was about to do.
async fn catches_up(broker: &Broker) {
    broker.worker(0).thaw();
    wait_for_condition("the late worker to handle its message", async || {
        let (_, metrics) = broker.worker(0).metrics().probe("/metrics").await.ok_or("no answer")?;
        let handled = metrics.lines().any(|line| line.starts_with("broker_message_handling_seconds_count"));
        if handled { Ok(()) } else { Err("nothing handled yet") }
    })
    .await;
    broker.queues().are_empty().await;
}

#[tokio::test]
async fn a_claim_that_was_decided_long_ago_takes_nothing_from_whoever_was_faster() {
    story(setup(), async |broker| {
        let call = asked(broker, broker.allocate("student-1")).await;
        stands_still(broker, Point::BeforeClaim).await;
        broker.start_worker().await;
        let first = answer(call).await.expect_status(201);
        catches_up(broker).await;
        assert_eq!(broker.stats().await.allocated, 1);
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_was_decided_before_the_sandbox_was_given_back_claims_for_nobody() {
    story(setup(), async |broker| {
        let call = asked(broker, broker.allocate("student-1")).await;
        stands_still(broker, Point::BeforeClaim).await;
        broker.start_worker().await;
        let first = answer(call).await.expect_status(201);
        broker.return_sandbox(first.sandbox_id(), "student-1").send().await.expect_status(200);
        catches_up(broker).await;
        let expected = Stats { total: 10, available: 9, pending_deletion: 1, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
    })
    .await;
}

/// The end of a lease that `key` names, written when the key has the next one.
async fn a_late_end_ends_nothing(point: Point, key: &str) {
    story(setup(), async |broker| {
        broker.start_worker().await;
        let first = broker.allocate("student-1").key(key).send().await.expect_status(201);
        broker.stop_workers().await;
        let call = asked(broker, broker.return_sandbox(first.sandbox_id(), "student-1")).await;
        stands_still(broker, point).await;
        broker.start_worker().await;
        answer(call).await.expect_status(200);
        let second = broker.allocate("student-1").key(key).send().await.expect_status(201);
        catches_up(broker).await;
        let again = broker.allocate("student-1").key(key).send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), second.sandbox_id());
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

#[tokio::test]
async fn an_end_that_was_decided_long_ago_does_not_end_the_next_lease() {
    a_late_end_ends_nothing(Point::BeforeEnd, "lab-1").await;
}

#[tokio::test]
async fn a_return_that_was_written_without_a_look_does_not_end_the_next_lease() {
    a_late_end_ends_nothing(Point::BeforeReturn, "student-1").await;
}

#[tokio::test]
async fn a_reply_that_comes_after_everything_is_over_wakes_nobody_and_harms_nothing() {
    story(setup(), async |broker| {
        let call = asked(broker, broker.allocate("student-1")).await;
        stands_still(broker, Point::Claimed).await;
        broker.start_worker().await;
        let first = answer(call).await.expect_status(201);
        broker.return_sandbox(first.sandbox_id(), "student-1").send().await.expect_status(200);
        let second = broker.allocate("student-1").send().await.expect_status(201);
        catches_up(broker).await;
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), second.sandbox_id());
    })
    .await;
}

/// A lease of student-1 whose time has been over for half an hour and more, while no worker runs.
async fn overdue(broker: &mut Broker) -> String {
    broker.start_worker().await;
    let held = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
    broker.stop_workers().await;
    broker.table().age(&held, 31 * 60).await;
    // The job finds it in the index.
    broker.lists_are_current().await;
    held
}

#[tokio::test]
async fn an_expiry_that_was_decided_before_the_operator_gave_the_lease_longer_takes_nothing() {
    story(setup(), async |broker| {
        let held = overdue(broker).await;
        let queues = broker.queues();
        queues
            .send(&queues.name("maintenance"), r#"{"v":1,"body":{"kind":"start_job","job":"expire"}}"#)
            .await;
        stands_still(broker, Point::BeforeEnd).await;
        broker.cli_ok(&["sandbox", "extend", &held, "--hours", "8"]).await;
        broker.worker(0).thaw();
        queues.are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1, "he was told that it is his for eight hours");
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), held);
    })
    .await;
}

#[tokio::test]
async fn an_owner_whose_lease_was_given_longer_while_his_next_was_being_claimed_keeps_the_first() {
    story(setup(), async |broker| {
        let held = overdue(broker).await;
        let call = asked(broker, broker.allocate("student-1")).await;
        stands_still(broker, Point::BeforeEnd).await;
        broker.cli_ok(&["sandbox", "extend", &held, "--hours", "8"]).await;
        broker.worker(0).thaw();
        let told = answer(call).await.expect_status(200);
        assert_eq!(told.sandbox_id(), held);
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}
