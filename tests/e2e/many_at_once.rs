//! Many tracks that allocate in the same second.

use std::time::Duration;

use broker_tests::cli::Stats;
use broker_tests::{Setup, story, together, within};

use crate::{count, distinct_sandboxes};

#[tokio::test]
async fn two_hundred_tracks_get_two_hundred_sandboxes_at_once() {
    story(Setup::new().apis(2).workers(3).pool(200), async |broker| {
        let calls = (0..200).map(|n| broker.allocate(&format!("student-{n}")).send());
        let answers = together(calls).await;
        assert_eq!(count(&answers, 201), 200, "{:#?}", answers.iter().find(|answer| answer.status != 201));
        assert_eq!(distinct_sandboxes(&answers).len(), 200);
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 200, allocated: 200, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_hundred_tracks_on_fifty_sandboxes_are_all_answered_at_once() {
    story(Setup::new().apis(2).workers(3).pool(50), async |broker| {
        let calls = (0..100).map(|n| broker.allocate(&format!("student-{n}")).wait(50).send());
        let answers = within(Duration::from_secs(25), "100 answers", together(calls)).await;
        assert_eq!((count(&answers, 201), count(&answers, 409)), (50, 50), "{answers:#?}");
        let (winners, losers): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 201);
        assert_eq!(distinct_sandboxes(&winners).len(), 50);
        for loser in losers {
            loser.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        }
    })
    .await;
}
