//! Sweep: leftovers of dead processes are removed; those of living ones are not.

use broker_tests::{Fault, Outage, Rule, Setup, ShapedService, story, wait_for_condition};

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
        let first = broker.job("sweep").await;
        assert_eq!((first.changed, first.details["seen_first"]), (0, 1), "unseen is not gone: {first:?}");
        let report = broker.job("sweep").await;
        assert_eq!((report.details["reply_queues"], report.details["instances"]), (1, 1), "{report:?}");
        assert!(!queues.reply_queues().await.contains(&dead));
        broker.allocate("student").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_sqs_does_not_let_us_delete_stops_nothing_else_and_is_tried_again() {
    story(Setup::new().apis(1).workers(1).pool(1).faults(1), async |broker| {
        let (queues, table) = (broker.queues(), broker.table());
        let alive = queues.reply_queues().await.remove(0);
        for _ in 0..2 {
            broker.start_api().await;
        }
        let dead: Vec<_> = queues.reply_queues().await.into_iter().filter(|queue| *queue != alive).collect();
        for queue in &dead {
            broker.kill_api(1);
            table.age_heartbeat(queue).await;
        }
        assert_eq!(broker.job("sweep").await.details["seen_first"], 2);
        let refused = Rule::new(Fault::Refuse("AccessDenied")).on("DeleteQueue").containing(&dead[0]);
        broker.proxy().add(refused);
        let report = broker.job("sweep").await;
        assert_eq!((report.failed, report.details["reply_queues"]), (1, 1), "{report:?}");
        broker.proxy().calm();
        let report = broker.job("sweep").await;
        assert_eq!((report.failed, report.details["reply_queues"]), (0, 1), "it was seen before: {report:?}");
        assert_eq!(queues.reply_queues().await, [alive]);
    })
    .await;
}

#[tokio::test]
async fn an_api_whose_queue_was_swept_while_it_slept_makes_a_new_one() {
    story(Setup::new().apis(1).pool(2), async |broker| {
        let (queues, table) = (broker.queues(), broker.table());
        let queue = queues.reply_queues().await.remove(0);
        table.age_heartbeat(&queue).await;
        assert_eq!(broker.job("sweep").await.changed, 0);
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

#[tokio::test]
async fn one_that_says_between_two_sweeps_that_it_lives_is_not_swept() {
    story(Setup::new().apis(2).pool(1), async |broker| {
        let (queues, table) = (broker.queues(), broker.table());
        let alive = queues.reply_queues().await;
        for queue in &alive {
            table.age_heartbeat(queue).await;
        }
        assert_eq!(broker.job("sweep").await.details["seen_first"], 2);
        // Another one, and old as well: what counts is that something changed.
        for queue in &alive {
            table.age_heartbeat_by(queue, 93).await;
        }
        let report = broker.job("sweep").await;
        assert_eq!((report.changed, report.details["seen_first"]), (0, 2), "{report:?}");
        assert_eq!(queues.reply_queues().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_swept_for_what_nobody_could_say_while_the_table_was_away() {
    story(Setup::new().apis(1).workers(1).pool(1).faults(1), async |broker| {
        let queues = broker.queues();
        let away = broker.proxy().outage(ShapedService::DynamoDb, Outage::Refused);
        wait_for_condition("the worker to stop receiving", async || {
            match broker.worker(0).metrics().probe("/readyz").await {
                Some((503, _)) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        for queue in queues.reply_queues().await {
            broker.table().age_heartbeat(&queue).await;
        }
        drop(away);
        for _ in 0..2 {
            let report = broker.job_refused("sweep").await;
            assert_eq!(report.changed, 0, "{report:?}");
        }
        assert_eq!(queues.reply_queues().await.len(), 1);
        broker.allocate("student").send().await.expect_status(201);
    })
    .await;
}
