//! Sweep: leftovers of dead processes are removed; those of living ones are not.

use broker_tests::{Setup, story, wait_for_condition};

#[tokio::test]
async fn the_reply_queue_of_a_killed_api_is_swept_when_its_heartbeat_is_old() {
    story(Setup::new().apis(1).pool(2), async |broker| {
        let (queues, table) = (broker.queues(), broker.table());
        let dead = queues.reply_queues().await.remove(0);
        broker.allocate("student").send().await.expect_status(201);
        broker.start_api().await;
        broker.kill_api(0);
        assert_eq!(broker.job("sweep").await.changed, 0, "it may only be slow");

        table.age_heartbeat(&dead).await;
        let report = broker.job("sweep").await;
        assert_eq!((report.details["reply_queues"], report.details["instances"]), (1, 1), "{report:?}");
        assert!(!queues.reply_queues().await.contains(&dead));
        broker.allocate("student").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn an_api_whose_queue_was_swept_while_it_slept_makes_a_new_one() {
    story(Setup::new().apis(1).pool(2), async |broker| {
        let (queues, table) = (broker.queues(), broker.table());
        let queue = queues.reply_queues().await.remove(0);
        table.age_heartbeat(&queue).await;
        assert_eq!(broker.job("sweep").await.details["reply_queues"], 1);
        wait_for_condition("a new reply queue", async || match queues.reply_queues().await.as_slice() {
            [new] if *new != queue => Ok(()),
            other => Err(other.to_vec()),
        })
        .await;
        wait_for_condition("an answer", async || {
            let answer = broker.allocate("student").send().await;
            if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer) }
        })
        .await;
    })
    .await;
}
