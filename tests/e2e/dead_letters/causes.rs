//! A bug that kills workers over one kind of message: its messages die, the others are untouched; once it is mended, they
//! are replayed and every track ends with exactly what it asked for.

use broker_common::crash::{Point, SETTING};
use broker_tests::cli::Stats;
use broker_tests::{Broker, Setup, story, together, wait_for_condition};

use crate::distinct_sandboxes;

/// Starts workers that die at `point` until `letters` dead letters are kept, as a restarting service would.
async fn crash_until_dead(broker: &mut Broker, point: Point, letters: usize) {
    let kill = format!("{}=kill", point.as_str());
    while broker.open_letters().await.len() < letters {
        broker.launch_worker(&[(SETTING, &kill)]).await;
        let worker = broker.workers_len() - 1;
        wait_for_condition("the worker to die, or the letters to be kept", async || {
            if broker.worker_mut(worker).process().has_ended() {
                return Ok(());
            }
            match broker.open_letters().await.len() {
                kept if kept >= letters => Ok(()),
                kept => Err(kept),
            }
        })
        .await;
        broker.kill_worker(worker);
    }
}

#[tokio::test]
async fn a_bug_in_one_kind_is_mended_and_its_messages_are_replayed() {
    let setup = Setup::new().workers(1).pool(20).var("BROKER_VISIBILITY_S", "2").var("BROKER_WAIT_S", "1");
    story(setup, async |broker| {
        let held = together((0..4).map(|n| broker.allocate(&format!("returner-{n}")).wait(45).send())).await;
        distinct_sandboxes(&held);
        broker.stop_workers().await;
        for (n, answer) in held.iter().enumerate() {
            broker.mark(answer.sandbox_id(), &format!("returner-{n}")).send().await.expect_status(202);
        }
        let mut asked = Vec::new();
        for n in 0..6 {
            let answer =
                broker.allocate(&format!("asker-{n}")).respond_async().send().await.expect_status(202);
            asked.push(answer.must_have("location").to_owned());
        }

        crash_until_dead(broker, Point::BeforeEnd, 4).await;
        let letters = broker.letters(&["--reason", "max_receives_exceeded"]).await;
        assert_eq!(letters.len(), 4, "{letters:#?}");
        for letter in &letters {
            assert_eq!(
                (&letter["kind"], &letter["receives"]),
                (&"mark_for_deletion".into(), &5.into()),
                "{letter}"
            );
            assert!(letter["track"].as_str().is_some_and(|track| track.starts_with("returner-")), "{letter}");
        }

        // Mended. The good ones around it came to their end, some of them by workers that died over the others.
        broker.start_worker().await;
        for (n, location) in asked.iter().enumerate() {
            let ended = broker.outcome(location, &format!("asker-{n}")).await;
            assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        }
        assert_eq!(
            broker.stats().await,
            Stats { total: 20, available: 10, allocated: 10, ..Stats::default() }
        );
        let dry = broker.replay(&["--kind", "mark_for_deletion", "--dry-run"]).await;
        assert_eq!((dry.done, dry.dry_run, broker.open_letters().await.len()), (4, true, 4), "{dry:?}");
        let replayed = broker.replay(&["--kind", "mark_for_deletion"]).await;
        assert_eq!((replayed.done, replayed.failed), (4, 0), "{replayed:?}");
        broker.queues().are_empty().await;
        wait_for_condition("the returns to be done", async || match broker.stats().await {
            stats if stats.pending_deletion == 4 => Ok(()),
            stats => Err(stats),
        })
        .await;
        assert_eq!(broker.stats().await.allocated, 6);
        assert_eq!(broker.letters(&["--state", "replayed"]).await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn an_asynchronous_request_that_dies_reads_failed_and_its_replay_completes_it() {
    story(Setup::new().workers(0).pool(3).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        let queued = broker.allocate("student-1").respond_async().send().await.expect_status(202);
        let location = queued.must_have("location").to_owned();
        crash_until_dead(broker, Point::BeforeClaim, 1).await;
        let failed = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(failed.text_of("status"), "failed", "{failed:#?}");
        assert_eq!(failed.json["response"]["status"], 500, "{failed:#?}");
        broker.cancel(&location, "student-1").send().await.expect_problem(409, "NOT_CANCELLABLE");

        broker.start_worker().await;
        assert_eq!(broker.replay(&["--track", "student-1"]).await.done, 1);
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(ended.json["response"]["body"]["sandbox_id"], again.sandbox_id());
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}
