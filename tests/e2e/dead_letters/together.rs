//! Replays and discards of two operators at once.

use broker_tests::letters::Tally;
use broker_tests::process::Process;
use broker_tests::{Setup, story, together, wait_for_condition};
use nix::sys::signal::Signal;

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
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| count(tally)).sum::<u64>();
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

#[tokio::test]
async fn an_interrupted_replay_leaves_nothing_in_the_middle_and_the_next_goes_on() {
    const LETTERS: usize = 60;
    story(Setup::new().apis(0).workers(1), async |broker| {
        let queues = broker.queues();
        let bodies: Vec<_> = (0..LETTERS).map(|n| format!("poison {n}")).collect();
        queues.send_all(&queues.name("requests-dlq"), &bodies).await;
        broker.holds_letters(LETTERS).await;
        broker.stop_workers().await;
        let args = ["dead-letters", "replay", "--all", "--rate", "5", "--json"];
        let mut replay = Process::start("broker", &mut broker.cli_command(&args));
        wait_for_condition("some to be sent", async || match queues.requests().await.total() {
            few @ 0..5 => Err(few),
            _ => Ok(()),
        })
        .await;
        replay.signal(Signal::SIGINT);
        assert_eq!(replay.ended().await.code(), Some(1), "{}", replay.log());
        let tally: Tally = serde_json::from_str(&replay.printed()).expect("its counts");
        assert!(tally.interrupted && (5..60).contains(&tally.done), "{tally:?}");
        let sent = queues.requests().await.total();
        assert_eq!((tally.done, broker.open_letters().await.len() as u64), (sent, LETTERS as u64 - sent));
        assert!(broker.letters(&["--state", "replaying"]).await.is_empty());
        let rest = broker.replay(&["--all"]).await;
        assert_eq!((rest.done, rest.resumed), (LETTERS as u64 - sent, 0), "{rest:?}");

        // All of them die again, each once, also under a run that meets what it sent itself.
        broker.start_worker().await;
        broker.holds_letters(LETTERS).await;
        let round = broker.replay(&["--all", "--rate", "60"]).await;
        assert_eq!(round.done, LETTERS as u64, "{round:?}");
        broker.holds_letters(LETTERS).await;
        assert_eq!(broker.discard(&["--all"]).await.done, LETTERS as u64);
    })
    .await;
}
