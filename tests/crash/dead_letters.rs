//! Crashes of a drainer and of an operator's replay: SIGKILL between any two effects; the next one finishes.

use broker_runtime::crash_points::Point;
use broker_tests::table::text;
use broker_tests::{Broker, story};

use super::{CRASH_AT, setup};

/// An asynchronous request of `student-1` that is a dead letter, and where its outcome is asked for.
async fn dead_request(broker: &mut Broker) -> String {
    let queued = broker.allocate("student-1").respond_async().send().await.expect_status(202);
    let queues = broker.queues();
    let message = queues.take(&queues.name("requests"), 1).await.remove(0);
    queues.send_copy(&queues.name("requests-dlq"), &message).await;
    queued.must_have("location").to_owned()
}

async fn status(broker: &Broker, location: &str) -> String {
    broker.request(location, "student-1").send().await.expect_status(200).text_of("status").to_owned()
}

#[tokio::test]
async fn a_drainer_that_dies_over_a_letter_leaves_one_and_the_redelivery_fails_nothing_that_was_replayed() {
    story(setup(), async |broker| {
        let location = dead_request(broker).await;
        broker.launch_worker(&[(CRASH_AT, &format!("{}=kill", Point::LetterKept.as_str()))]).await;
        broker.worker_mut(0).process().ended().await;
        broker.kill_worker(0);
        assert_eq!(broker.open_letters().await.len(), 1, "it was kept");
        let queues = broker.queues();
        assert_eq!(queues.depth(&queues.name("requests-dlq")).await.total(), 1, "and not deleted");
        assert_eq!(status(broker, &location).await, "failed");

        // Replayed, and on its way, before the dead message comes again: that must not fail the request once more.
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        assert_eq!(status(broker, &location).await, "queued");
        let replayed = queues.take(&queues.name("requests"), 1).await.remove(0);
        broker.start_worker().await;
        queues.are_empty().await;
        assert_eq!(status(broker, &location).await, "queued");
        assert_eq!(broker.all_letters().await.len(), 1);
        queues.send_copy(&queues.name("requests"), &replayed).await;
        assert_eq!(broker.outcome(&location, "student-1").await.text_of("status"), "succeeded");
        queues.are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

/// Whatever an operator's command had done when it died, the next one finishes it, and the request is done once.
async fn a_replay_survives(point: Point, queued_at_death: u64) {
    story(setup(), async |broker| {
        let location = dead_request(broker).await;
        broker.start_worker().await;
        broker.holds_letters(1).await;
        broker.stop_workers().await;
        let kill = format!("{}=kill", point.as_str());
        let died = broker.cli_with(&["dead-letters", "replay", "--all"], &[(CRASH_AT, &kill)]).await;
        assert_eq!(died.code, -1, "it was killed: {died:?}");
        let letter = broker.open_letters().await.remove(0);
        assert_eq!(letter["state"], text("replaying"));
        assert_eq!(broker.queues().requests().await.total(), queued_at_death);
        let finished = broker.replay(&["--all"]).await;
        assert_eq!((finished.done, finished.resumed, finished.failed), (1, 1, 0), "{finished:?}");
        assert!(broker.open_letters().await.is_empty());
        broker.start_worker().await;
        assert_eq!(broker.outcome(&location, "student-1").await.text_of("status"), "succeeded");
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
        let lines = broker.audit().await;
        let ended = |line: &&broker_tests::table::Item| line.contains_key("act_ended");
        assert_eq!(
            (lines.len(), lines.iter().filter(ended).count()),
            (2, 1),
            "a killed action has a line too: {lines:#?}"
        );
    })
    .await;
}

/// Nobody has to replay it: once it is not held any more it is discarded, and its request does not wait in vain.
#[tokio::test]
async fn a_letter_whose_replay_died_is_discarded_and_its_request_is_not_left_waiting() {
    story(setup(), async |broker| {
        let location = dead_request(broker).await;
        broker.start_worker().await;
        broker.holds_letters(1).await;
        broker.stop_workers().await;
        let kill = format!("{}=kill", Point::LetterTaken.as_str());
        let died = broker.cli_with(&["dead-letters", "replay", "--all"], &[(CRASH_AT, &kill)]).await;
        assert_eq!(died.code, -1, "it was killed: {died:?}");
        assert_eq!(status(broker, &location).await, "queued");
        let letter = broker.open_letters().await.remove(0);
        let discarded = broker.discard(&[letter["SK"].as_s().expect("an id")]).await;
        assert_eq!((discarded.done, discarded.skipped, discarded.failed), (1, 0, 0), "{discarded:?}");
        assert!(broker.open_letters().await.is_empty());
        assert_eq!(status(broker, &location).await, "failed");
    })
    .await;
}

#[tokio::test]
async fn a_replay_that_dies_before_it_sends_is_finished_by_the_next() {
    a_replay_survives(Point::LetterTaken, 0).await;
}

#[tokio::test]
async fn a_replay_that_dies_after_it_sent_is_finished_by_the_next_and_sends_nothing_that_counts() {
    a_replay_survives(Point::LetterSent, 1).await;
}
