//! A reply queue that is gone: whoever waits still learns the truth, and the next one is asked through a new queue.

use broker_tests::{Setup, story, wait_for_condition};

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
        // Its reply finds no queue; what the worker stored is what the caller is told when his wait is over.
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
