//! Name prefix: a track that accepts only certain sandboxes.

use broker_tests::cli::Stats;
use broker_tests::{Setup, story, together};

use crate::{count, distinct_sandboxes};

#[tokio::test]
async fn a_prefix_finds_the_last_five_of_five_thousand_and_then_none() {
    story(Setup::new().apis(2).workers(3).pool(4_995), async |broker| {
        let rare = ["pool", "seed", "--count", "5", "--name-prefix", "zebra", "--start", "4995"];
        broker.cli_ok(&rare).await;
        assert_eq!(broker.stats().await.available, 5_000);

        let calls = (0..5).map(|n| broker.allocate(&format!("student-{n}")).name_prefix("zebra").send());
        let answers = together(calls).await;
        assert_eq!(count(&answers, 201), 5, "{answers:#?}");
        assert_eq!(distinct_sandboxes(&answers).len(), 5);
        for answer in &answers {
            assert!(answer.text_of("name").starts_with("zebra-"), "{answer:#?}");
        }
        let sixth = broker.allocate("student-6").name_prefix("zebra").send().await;
        sixth.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let any = broker.allocate("student-6").send().await.expect_status(201);
        assert!(any.text_of("name").starts_with("sandbox-"), "{any:#?}");
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 5_000, available: 4_994, allocated: 6, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn more_tracks_than_matching_sandboxes_share_them_out_exactly() {
    story(Setup::new().apis(2).workers(3).pool(300), async |broker| {
        let calls =
            (0..30).map(|n| broker.allocate(&format!("student-{n}")).name_prefix("sandbox-00029").send());
        let answers = together(calls).await;
        assert_eq!((count(&answers, 201), count(&answers, 409)), (10, 20), "{answers:#?}");
        let winners = answers.iter().filter(|answer| answer.status == 201);
        assert_eq!(distinct_sandboxes(winners).len(), 10);
    })
    .await;
}
