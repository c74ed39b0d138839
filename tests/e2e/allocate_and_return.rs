//! Life of a sandbox: allocated, returned, and another one allocated.

use std::collections::BTreeSet;

use broker_tests::cli::Stats;
use broker_tests::{Setup, story};

#[tokio::test]
async fn a_track_that_returns_and_allocates_five_times_uses_five_fresh_sandboxes() {
    story(Setup::new().apis(2).workers(3).pool(10), async |broker| {
        let mut used = BTreeSet::new();
        for round in 1..=5 {
            let answer = broker.allocate("student-1").send().await.expect_status(201);
            let sandbox = answer.sandbox_id();
            assert!(used.insert(sandbox.to_owned()), "round {round} got {sandbox} again");
            let again = broker.allocate("student-1").send().await.expect_status(200);
            assert_eq!(again.sandbox_id(), sandbox, "round {round}");
            broker.return_sandbox(sandbox, "student-1").send().await.expect_status(200);
            broker.return_sandbox(sandbox, "student-1").send().await.expect_status(200);
        }
        for sandbox in &used {
            broker.return_sandbox(sandbox, "student-1").send().await.expect_status(200);
        }
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 10, available: 5, pending_deletion: 5, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_returned_sandbox_is_not_offered_again_when_it_was_the_last() {
    story(Setup::new().apis(2).workers(3).pool(1), async |broker| {
        let answer = broker.allocate("student-1").send().await.expect_status(201);
        broker.return_sandbox(answer.sandbox_id(), "student-1").send().await.expect_status(200);
        broker.allocate("student-1").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        broker.allocate("student-2").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
    })
    .await;
}
