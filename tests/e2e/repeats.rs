//! Repeats: a track that repeats its request gets the same sandbox, over any API.

use broker_tests::cli::Stats;
use std::time::Duration;

use broker_tests::{Latency, Setup, story, together, wait_for_condition};

use crate::count;

#[tokio::test]
async fn a_repeat_answers_200_with_the_same_sandbox_over_either_api() {
    story(Setup::new().apis(2).workers(3).pool(5), async |broker| {
        let first = broker.api(0).allocate("student-1").send().await.expect_status(201);
        for api in [0, 1, 0] {
            let again = broker.api(api).allocate("student-1").send().await.expect_status(200);
            for field in ["sandbox_id", "name", "external_id", "allocated_at", "expires_at", "track_name"] {
                assert_eq!(again.json[field], first.json[field], "{field}");
            }
            assert_ne!(again.text_of("request_id"), first.text_of("request_id"));
        }
    })
    .await;
}

#[tokio::test]
async fn fifty_simultaneous_repeats_of_one_key_get_one_sandbox() {
    story(Setup::new().apis(2).workers(3).pool(60), async |broker| {
        for key in ["first", "second", "third"] {
            let calls = (0..50).map(|n| broker.api(n).allocate("student-1").key(key).send());
            let answers = together(calls).await;
            assert_eq!((count(&answers, 201), count(&answers, 200)), (1, 49), "{key}: {answers:#?}");
            let sandbox = answers[0].sandbox_id();
            assert!(answers.iter().all(|answer| answer.sandbox_id() == sandbox), "{key}: {answers:#?}");
        }
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 60, available: 57, allocated: 3, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_asked_for_again_and_again_costs_few_calls_and_each_request_has_its_own_end() {
    const REPEATS: u64 = 300;
    story(Setup::new().apis(1).workers(1).pool(20).faults(1), async |broker| {
        let hop = (Duration::from_millis(8), Duration::from_millis(8));
        broker.proxy().set_latency(Latency { dynamodb: hop, ..Latency::none() });
        let first = broker.allocate("student").key("hot").send().await.expect_status(201);
        let before = broker.proxy().tallies().calls("TransactWriteItems");
        let hot: Vec<_> = (0..REPEATS).map(|_| broker.allocate("student").key("hot").send()).collect();
        let hot = tokio::spawn(together(hot));
        let others: Vec<_> = (0..10).map(|n| broker.allocate(&format!("other-{n}")).send()).collect();
        for answer in together(others).await {
            answer.expect_status(201);
        }
        // One of them asks for something else under that key, others do not wait.
        let other = broker.allocate("student").key("hot").body(r#"{"lab_duration_hours": 7}"#);
        other.send().await.expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
        for _ in 0..3 {
            let queued = broker.allocate("student").key("hot").respond_async().send().await;
            let location = queued.expect_status(202).must_have("location").to_owned();
            let outcome = broker.outcome(&location, "student").await;
            assert_eq!(outcome.json["response"]["body"]["sandbox_id"], first.json["sandbox_id"]);
        }
        let hot = hot.await.expect("answers");
        assert_eq!(count(&hot, 200), hot.len(), "{hot:#?}");
        assert!(hot.iter().all(|answer| answer.sandbox_id() == first.sandbox_id()));
        let calls = broker.proxy().tallies().calls("TransactWriteItems") - before;
        assert!(calls < REPEATS / 2, "{calls} calls for {REPEATS} repeats of one key");
    })
    .await;
}

#[tokio::test]
async fn a_return_that_is_asked_for_again_and_again_is_one_return() {
    story(Setup::new().apis(1).workers(1).pool(3).faults(1), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let before = broker.proxy().tallies().calls("TransactWriteItems");
        let hop = (Duration::from_millis(8), Duration::from_millis(8));
        broker.proxy().set_latency(Latency { dynamodb: hop, ..Latency::none() });
        let calls: Vec<_> =
            (0..100).map(|_| broker.return_sandbox(held.sandbox_id(), "student").send()).collect();
        let answers = together(calls).await;
        assert_eq!(count(&answers, 200), 100, "{answers:#?}");
        let first = &answers[0].json["deletion_requested_at"];
        assert!(answers.iter().all(|answer| answer.json["deletion_requested_at"] == *first));
        let calls = broker.proxy().tallies().calls("TransactWriteItems") - before;
        assert!(calls < 50, "{calls} calls for a hundred repeats of one return");
        wait_for_condition("one to be returned", async || match broker.stats().await {
            stats if stats.pending_deletion == 1 => Ok(()),
            stats => Err(stats),
        })
        .await;
    })
    .await;
}
