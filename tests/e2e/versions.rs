//! Message of a newer version, while old workers still run: it waits for a newer worker.

use broker_tests::queues::Depth;
use broker_tests::{Setup, story, wait_for_condition};

/// How many receives SQS grants a message before it is a dead letter.
const RECEIVES: usize = 5;

#[tokio::test]
async fn a_message_of_a_newer_version_is_put_back_and_never_dead_lettered() {
    const NEWER: &str = "{\"v\": 2, \"what\": \"nobody here knows\"}";
    story(Setup::new().workers(2).pool(1), async |broker| {
        let queues = broker.queues();
        queues.send(&queues.name("requests"), NEWER).await;
        wait_for_condition("it to be put back more often than redrive allows", async || {
            let put_back = broker.logs().matches("message of a newer version put back").count();
            if put_back > RECEIVES { Ok(()) } else { Err(put_back) }
        })
        .await;
        assert_eq!(queues.depth(&queues.name("requests-dlq")).await, Depth::default());
        broker.allocate("student-1").send().await.expect_status(201);

        broker.stop_workers().await;
        let left = queues.take(&queues.name("requests"), 1).await;
        assert_eq!(left[0].body(), Some(NEWER));
    })
    .await;
}

#[tokio::test]
async fn what_no_worker_could_read_for_long_is_a_dead_letter_and_is_replayed_as_if_it_were_new() {
    const NEWER: &str = "{\"v\": 2, \"what\": \"nobody here knows\"}";
    story(Setup::new().workers(1), async |broker| {
        let queues = broker.queues();
        let two_hours_ago = (broker_tests::table::now_s() - 7_200) * 1_000;
        let since = two_hours_ago.to_string();
        for queue in ["requests", "maintenance"] {
            queues.send_marked(&queues.name(queue), NEWER, "put_back_since_ms", &since).await;
        }
        broker.holds_letters(2).await;
        assert_eq!(broker.letters(&["--reason", "newer_version"]).await.len(), 2);
        // Sent again it waits anew.
        broker.replay(&["--all"]).await;
        wait_for_condition("both to be put back", async || {
            let put_back = broker.logs().matches("message of a newer version put back").count();
            if put_back >= 2 { Ok(()) } else { Err(put_back) }
        })
        .await;
        broker.stop_workers().await;
        assert_eq!(broker.open_letters().await.len(), 0);
        for queue in ["requests", "maintenance"] {
            queues.take(&queues.name(queue), 1).await;
        }
    })
    .await;
}
