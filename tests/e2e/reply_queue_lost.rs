//! Reply queue that is gone, or so new that SQS does not know it: waiting callers still get their outcome, and later requests
//! use a new queue.

use broker_tests::{Fault, Rule, Setup, story, wait_for_condition};

#[tokio::test]
async fn an_api_whose_reply_queue_was_swept_tells_the_truth_and_makes_a_new_one() {
    story(Setup::new().apis(1).workers(0).pool(2), async |broker| {
        let queues = broker.queues();
        let before = queues.reply_queues().await;
        let waiting = tokio::spawn(broker.allocate("student-1").wait(5).send());
        queues.holds_requests(1).await;
        for queue in &before {
            queues.remove(queue).await;
        }
        broker.start_worker().await;
        // Its reply finds no queue; the caller gets the stored outcome when the wait is over.
        let told = waiting.await.expect("an answer").expect_status(201);

        wait_for_condition("a new reply queue", async || {
            let (now, ready) = (queues.reply_queues().await, broker.api(0).probe("/readyz").await);
            let is_new =
                now.len() == 1 && now != before && ready.as_ref().is_some_and(|(status, _)| *status == 200);
            if is_new { Ok(()) } else { Err((now, ready)) }
        })
        .await;
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), told.sandbox_id());
        broker.allocate("student-2").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_reply_to_a_queue_that_sqs_does_not_know_yet_is_stored_and_wakes_its_caller_all_the_same() {
    // The wait is longer than the test's patience: only a reply can end it.
    let setup = Setup::new().apis(1).workers(1).pool(2).faults(1).var("BROKER_WAIT_S", "50");
    story(setup, async |broker| {
        // In a message to the requests queue the name comes without the slash of a URL.
        let reply_queue = format!("/{}", broker.queues().name("replies-"));
        let unknown = Rule::new(Fault::UnknownQueue).on("SendMessageBatch").containing(&reply_queue);
        broker.proxy().add(unknown.times(1));
        broker.allocate("student-1").send().await.expect_status(201);
        assert_eq!(broker.proxy().done("SendMessageBatch", Fault::UnknownQueue), 1);
        let woken = broker.api(0).metric("broker_reply_wait_seconds_count").await;
        assert!((woken - 1.0).abs() < f64::EPSILON, "the reply woke {woken}, not the end of the wait");
        broker.allocate("student-1").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn attempts_to_make_a_reply_queue_that_fail_leave_nothing_behind() {
    story(Setup::new().apis(0).workers(1).pool(1).faults(1), async |broker| {
        // Created each time, and each time the response is lost: all attempts of two calls.
        broker.proxy().add(Rule::new(Fault::LoseResponse).on("CreateQueue").times(6));
        broker.start_api().await;
        assert_eq!(broker.proxy().done("CreateQueue", Fault::LoseResponse), 6);
        let queues = broker.queues().reply_queues().await;
        assert_eq!(queues.len(), 1, "{queues:?}");
        let apis = broker.table().instances().await.into_iter().filter(|role| role == "api").count();
        assert_eq!(apis, 1, "and one instance");
        broker.allocate("student-1").send().await.expect_status(201);
    })
    .await;
}
