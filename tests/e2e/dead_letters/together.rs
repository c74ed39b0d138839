//! Two operators at once.

use broker_tests::{Setup, story, together};

use super::{bury, taken};

#[tokio::test]
async fn two_operators_who_list_and_replay_at_once_send_each_letter_once() {
    const LETTERS: usize = 60;
    story(Setup::new().workers(0).pool(LETTERS), async |broker| {
        let mut locations = Vec::new();
        for n in 0..LETTERS {
            let track = format!("student-{n}");
            let (message, location) = taken(broker, broker.allocate(&track).respond_async()).await;
            bury(broker, &message).await;
            locations.push((location, track));
        }
        broker.start_worker().await;
        broker.holds_letters(LETTERS).await;
        broker.stop_workers().await;

        let operators = (0..2).map(|n| {
            let environment = (**broker).clone();
            async move {
                let by = format!("operator-{n}");
                let listed = environment.letters(&[]).await.len();
                (listed, environment.replay(&["--all", "--by", &by]).await)
            }
        });
        let tallies = together(operators).await;
        let sum = |count: fn(&broker_tests::letters::Tally) -> u64| {
            tallies.iter().map(|(_, tally)| count(tally)).sum::<u64>()
        };
        assert_eq!(sum(|tally| tally.done), LETTERS as u64, "{tallies:#?}");
        assert_eq!((sum(|tally| tally.failed), sum(|tally| tally.resumed)), (0, 0), "{tallies:#?}");
        assert_eq!(broker.queues().requests().await.total(), LETTERS as u64, "each was sent once");

        broker.start_worker().await;
        broker.start_worker().await;
        for (location, track) in &locations {
            assert_eq!(broker.outcome(location, track).await.text_of("status"), "succeeded");
        }
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, LETTERS as u64);
        assert_eq!(broker.letters(&["--state", "replayed"]).await.len(), LETTERS);
    })
    .await;
}
