//! Processes that end under load: no request is lost, and no track gets two sandboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_tests::{Answer, Broker, Setup, story, together, wait_for_condition};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use crate::distinct_sandboxes;

const STUDENTS: u64 = 200;

/// Lets all students allocate at once; the number tells how many have their answer.
fn rush(broker: &Broker) -> (Arc<AtomicU64>, JoinHandle<Vec<Answer>>) {
    let answered = Arc::new(AtomicU64::new(0));
    let calls = (0..STUDENTS).map(|n| (broker.allocate(&format!("student-{n}")).wait(45), answered.clone()));
    let calls = calls.map(async |(call, answered)| {
        let answer = call.send().await;
        answered.fetch_add(1, Ordering::Relaxed);
        answer
    });
    let calls = tokio::spawn(together(calls.collect::<Vec<_>>()));
    (answered, calls)
}

async fn some_are_answered(answered: &AtomicU64) {
    wait_for_condition("the first answers", async || match answered.load(Ordering::Relaxed) {
        few @ ..10 => Err(few),
        _ => Ok(()),
    })
    .await;
}

#[track_caller]
fn all_got_their_own(answers: &[Answer]) {
    let other = answers.iter().find(|answer| answer.status != 201);
    assert!(other.is_none(), "{other:#?}");
    assert_eq!(distinct_sandboxes(answers).len(), answers.len());
}

#[tokio::test]
async fn a_worker_that_is_killed_with_requests_in_its_hands_loses_none() {
    story(Setup::new().apis(2).workers(3).pool(210).var("BROKER_VISIBILITY_S", "5"), async |broker| {
        let (answered, calls) = rush(broker);
        some_are_answered(&answered).await;
        broker.worker(0).freeze();
        let queues = broker.queues();
        wait_for_condition("only the frozen worker to hold requests", async || {
            let (depth, answered) = (queues.requests().await, answered.load(Ordering::Relaxed));
            let rest_is_held = depth.visible == 0 && answered + depth.in_flight >= STUDENTS;
            if rest_is_held { Ok(()) } else { Err((depth, answered)) }
        })
        .await;
        broker.kill_worker(0);
        all_got_their_own(&calls.await.expect("answers"));
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_hands_back_what_it_cannot_finish() {
    // Were requests lost with the worker, they would come back after 120 s, long after the callers' wait.
    story(Setup::new().apis(2).workers(3).pool(210).var("BROKER_VISIBILITY_S", "120"), async |broker| {
        let (answered, calls) = rush(broker);
        some_are_answered(&answered).await;
        broker.stop_worker(0).await;
        all_got_their_own(&calls.await.expect("answers"));
    })
    .await;
}

#[tokio::test]
async fn an_api_that_is_told_to_stop_still_answers_whoever_waits() {
    story(Setup::new().apis(2).workers(0).pool(30), async |broker| {
        let calls: Vec<_> = (0..20).map(|n| broker.api(0).allocate(&format!("student-{n}")).send()).collect();
        let calls = tokio::spawn(together(calls));
        broker.queues().holds_requests(20).await;
        let (draining, api) = broker.terminate_api(0);
        wait_for_condition("the draining API to be not ready", async || match api.probe("/readyz").await {
            Some((200, _)) => Err("still ready"),
            Some(_) | None => Ok(()),
        })
        .await;

        broker.start_worker().await;
        let answers = calls.await.expect("answers");
        all_got_their_own(&answers);
        draining.stopped().await;

        broker.start_api().await;
        for api in [0, 1] {
            for (n, first) in answers.iter().enumerate() {
                let again = broker.api(api).allocate(&format!("student-{n}")).send().await.expect_status(200);
                assert_eq!(again.sandbox_id(), first.sandbox_id());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_frozen_worker_that_wakes_up_late_cannot_claim_for_a_key_that_has_a_sandbox() {
    story(Setup::new().apis(2).workers(3).pool(210).var("BROKER_VISIBILITY_S", "5"), async |broker| {
        let (answered, calls) = rush(broker);
        some_are_answered(&answered).await;
        broker.worker(0).freeze();
        all_got_their_own(&calls.await.expect("answers"));
        broker.worker(0).signal(Signal::SIGCONT);
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, STUDENTS);
    })
    .await;
}
