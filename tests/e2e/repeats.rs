//! Repeats: a track that repeats its request gets the same sandbox, over any API.

use broker_tests::cli::Stats;
use broker_tests::{Setup, story, together};

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
