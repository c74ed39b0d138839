//! Dead letters of a bug that kills workers at one kind of message: only these messages become dead letters; after the fix they are
//! replayed, and every track ends with exactly what it requested.

use broker_runtime::config::CRASH_SETTING;
use broker_runtime::crash_points::Point;
use broker_tests::cli::Stats;
use broker_tests::table::text;
use broker_tests::{Broker, Setup, story, together, wait_for_condition};

use crate::distinct_sandboxes;

/// Starts workers that die at `point` until `count` letters of a kind are kept, as a restarting service would.
async fn crash_until_dead(broker: &mut Broker, point: Point, kind: &str, count: usize) {
    let kill = format!("{}=kill", point.as_str());
    let kept = async |broker: &Broker| {
        let letters = broker.open_letters().await;
        letters.iter().filter(|letter| letter.get("letter_kind") == Some(&text(kind))).count()
    };
    while kept(broker).await < count {
        broker.launch_worker(&[(CRASH_SETTING, &kill)]).await;
        let worker = broker.workers_len() - 1;
        wait_for_condition("the worker to die, or the letters to be kept", async || {
            if broker.worker_mut(worker).process().has_ended() {
                return Ok(());
            }
            match kept(broker).await {
                kept if kept >= count => Ok(()),
                kept => Err(kept),
            }
        })
        .await;
        broker.kill_worker(worker);
    }
}

#[tokio::test]
async fn a_bug_in_one_kind_is_mended_and_its_messages_are_replayed() {
    let setup = Setup::new().workers(1).pool(20).var("BROKER_VISIBILITY_S", "2");
    story(setup, async |broker| {
        let held = together((0..4).map(|n| broker.allocate(&format!("returner-{n}")).wait(45).send())).await;
        distinct_sandboxes(&held);
        broker.stop_workers().await;
        for (n, answer) in held.iter().enumerate() {
            broker
                .return_sandbox(answer.sandbox_id(), &format!("returner-{n}"))
                .wait(1)
                .send()
                .await
                .expect_status(202);
        }
        let mut asked = Vec::new();
        for n in 0..6 {
            let answer =
                broker.allocate(&format!("asker-{n}")).respond_async().send().await.expect_status(202);
            asked.push(answer.must_have("location").to_owned());
        }

        crash_until_dead(broker, Point::BeforeReturn, "mark_for_deletion", 4).await;
        let letters = broker.letters(&["--kind", "mark_for_deletion"]).await;
        assert_eq!(letters.len(), 4, "{letters:#?}");
        for letter in &letters {
            let why = (&letter["reason"], &letter["receives"]);
            assert_eq!(why, (&"max_receives_exceeded".into(), &5.into()), "{letter}");
            assert!(letter["track"].as_str().is_some_and(|track| track.starts_with("returner-")), "{letter}");
        }

        // Mended. Some of the good ones may have died with the workers that had them in their hands, each time.
        broker.start_worker().await;
        let dry = broker.replay(&["--kind", "mark_for_deletion", "--dry-run"]).await;
        assert_eq!((dry.done, dry.dry_run), (4, true), "{dry:?}");
        let all = broker.open_letters().await.len() as u64;
        let replayed = broker.replay(&["--all"]).await;
        assert_eq!((replayed.done, replayed.failed), (all, 0), "{replayed:?}");
        for (n, location) in asked.iter().enumerate() {
            let ended = broker.outcome(location, &format!("asker-{n}")).await;
            assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        }
        broker.queues().are_empty().await;
        let expected =
            Stats { total: 20, available: 10, allocated: 6, pending_deletion: 4, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        assert_eq!(broker.letters(&["--state", "replayed"]).await.len() as u64, all);
    })
    .await;
}

#[tokio::test]
async fn an_asynchronous_request_that_dies_reads_failed_and_its_replay_completes_it() {
    story(Setup::new().workers(0).pool(3).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        let queued = broker.allocate("student-1").respond_async().send().await.expect_status(202);
        let location = queued.must_have("location").to_owned();
        crash_until_dead(broker, Point::BeforeClaim, "allocate", 1).await;
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

#[tokio::test]
async fn a_request_that_reads_failed_has_a_letter_also_if_its_worker_died_before_it_sent_one() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let queued = broker.allocate("student-1").respond_async().send().await.expect_status(202);
        let location = queued.must_have("location").to_owned();
        // As a worker leaves it that dies between the outcome and the letter.
        let table = broker.table();
        let mut record = table.must_get(&format!("REQ#{}", queued.must_have("x-request-id"))).await;
        record.insert("state".to_owned(), text("failed"));
        record.insert(
            "outcome".to_owned(),
            text("{\"outcome\":\"dead_lettered\",\"reason\":\"malformed_item\"}"),
        );
        table.put(record).await;
        broker.start_worker().await;
        broker.holds_letters(1).await;
        let letter = broker.letters(&[]).await.remove(0);
        assert_eq!((&letter["reason"], &letter["kind"]), (&"malformed_item".into(), &"allocate".into()));
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        assert_eq!(broker.outcome(&location, "student-1").await.text_of("status"), "succeeded");
    })
    .await;
}
