//! Empty pool: reported at once, and never to a track that holds a sandbox.

use std::time::Duration;

use broker_tests::{Setup, story, together, within};

#[tokio::test]
async fn the_empty_pool_is_a_409_at_once_and_not_after_the_wait() {
    story(Setup::new(), async |broker| {
        let calls = (0..20).map(|n| broker.allocate(&format!("student-{n}")).wait(50).send());
        for answer in within(Duration::from_secs(20), "20 answers", together(calls)).await {
            answer.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        }
    })
    .await;
}

#[tokio::test]
async fn an_owner_who_asks_again_on_the_empty_pool_gets_his_sandbox() {
    story(Setup::new().pool(1), async |broker| {
        let owner = broker.allocate("owner").send().await.expect_status(201);
        broker.allocate("late").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let calls = (0..20).map(|n| {
            let track = if n % 2 == 0 { "owner" } else { "late" };
            broker.allocate(track).send()
        });
        for (n, answer) in together(calls).await.into_iter().enumerate() {
            if n % 2 == 0 {
                assert_eq!(answer.expect_status(200).sandbox_id(), owner.sandbox_id());
            } else {
                answer.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
            }
        }
        let elsewhere = broker.allocate("owner").name_prefix("no-such-name").send().await.expect_status(200);
        assert_eq!(elsewhere.sandbox_id(), owner.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_is_filled_again_is_found_again() {
    story(Setup::new(), async |broker| {
        broker.allocate("student-1").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        broker.seed(1).await;
        broker.allocate("student-1").send().await.expect_status(201);
    })
    .await;
}
