//! Expiry: sandboxes come back, whatever their owners do.

use broker_tests::{Setup, story, together};
use serde_json::json;

use crate::count;

const MINUTE: u64 = 60;

#[tokio::test]
async fn a_sandbox_is_taken_back_half_an_hour_after_its_own_time_is_over() {
    story(Setup::new().pool(6), async |broker| {
        let mut sandboxes = Vec::new();
        for (track, hours) in [("late", 1), ("in-grace", 1), ("in-time", 8)] {
            let ask = broker.allocate(track).json(&json!({ "lab_duration_hours": hours }));
            sandboxes.push(ask.send().await.expect_status(201).sandbox_id().to_owned());
        }
        let table = broker.table();
        table.age(&sandboxes[0], 31 * MINUTE).await;
        table.age(&sandboxes[1], 29 * MINUTE).await;
        let report = broker.job("expire").await;
        assert_eq!((report.found, report.changed, report.failed), (1, 1, 0), "{report:?}");

        broker.return_sandbox(&sandboxes[0], "late").send().await.expect_problem(403, "ALLOCATION_EXPIRED");
        let shown = broker.shown(&sandboxes[0]).await;
        assert_eq!(
            (&shown["status"], &shown["deletion_reason"]),
            (&json!("pending_deletion"), &json!("expired"))
        );
        broker.allocate("late").send().await.expect_status(201);
        broker.return_sandbox(&sandboxes[1], "in-grace").send().await.expect_status(200);
        broker.return_sandbox(&sandboxes[2], "in-time").send().await.expect_status(200);
        assert_eq!(broker.job("expire").await.found, 0);
    })
    .await;
}

#[tokio::test]
async fn the_grace_is_a_setting() {
    story(Setup::new().pool(2).var("BROKER_EXPIRY_GRACE_MINUTES", "0"), async |broker| {
        let answer = broker.allocate("late").send().await.expect_status(201);
        assert_eq!(broker.job("expire").await.found, 0);
        broker.table().age(answer.sandbox_id(), 2).await;
        assert_eq!(broker.job("expire").await.changed, 1);
    })
    .await;
}

#[tokio::test]
async fn owners_who_mark_while_expiry_runs_twice_end_each_lease_once() {
    const TRACKS: usize = 60;
    story(Setup::new().apis(2).workers(3).pool(TRACKS), async |broker| {
        let mut marks = Vec::new();
        for n in 0..TRACKS {
            let track = format!("student-{n}");
            let answer = broker.allocate(&track).send().await.expect_status(201);
            broker.table().age(answer.sandbox_id(), 40 * MINUTE).await;
            marks.push(broker.return_sandbox(answer.sandbox_id(), &track).send());
        }
        let (marked, first, second) =
            tokio::join!(together(marks), broker.job("expire"), broker.job("expire"));
        let expired = marked.iter().filter(|answer| answer.status == 403).count();
        assert_eq!(count(&marked, 200) + expired, TRACKS, "{marked:#?}");
        assert_eq!(first.changed + second.changed, expired as u64, "{first:?} {second:?}");
        let stats = broker.stats().await;
        assert_eq!((stats.allocated, stats.pending_deletion), (0, TRACKS as u64));
    })
    .await;
}

#[tokio::test]
async fn an_owner_past_the_end_keeps_the_sandbox_until_there_is_another() {
    story(Setup::new().pool(1), async |broker| {
        let first = broker.allocate("late").send().await.expect_status(201);
        broker.table().age(first.sandbox_id(), MINUTE).await;
        broker.allocate("late").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let shown = broker.shown(first.sandbox_id()).await;
        assert_eq!(shown["status"], "allocated", "{shown}");
        // None of the wanted kind is none.
        let wanted = broker.allocate("late").name_prefix("elsewhere-");
        wanted.send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");

        broker.seed(2).await;
        let next = broker.allocate("late").send().await.expect_status(201);
        assert_ne!(next.sandbox_id(), first.sandbox_id());
        let shown = broker.shown(first.sandbox_id()).await;
        assert_eq!(
            (&shown["status"], &shown["deletion_reason"]),
            (&json!("pending_deletion"), &json!("expired"))
        );
        let again = broker.allocate("late").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), next.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn an_owner_past_the_end_who_does_not_wait_gets_one_more_and_never_two() {
    story(Setup::new().pool(3), async |broker| {
        let first = broker.allocate("late").send().await.expect_status(201);
        broker.table().age(first.sandbox_id(), MINUTE).await;
        let mut asked = Vec::new();
        for _ in 0..2 {
            let queued = broker.allocate("late").respond_async().send().await.expect_status(202);
            asked.push(queued.must_have("location").to_owned());
        }
        let mut got = std::collections::BTreeSet::new();
        for location in &asked {
            let ended = broker.outcome(location, "late").await;
            assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
            got.insert(ended.json["response"]["body"]["sandbox_id"].to_string());
        }
        assert_eq!(got.len(), 1, "{got:?}");
        let stats = broker.stats().await;
        assert_eq!((stats.available, stats.allocated, stats.pending_deletion), (1, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn two_operators_who_give_a_lease_longer_at_once_both_do() {
    story(Setup::new().pool(1), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let (sandbox, expires_at) = (held.sandbox_id(), held.number_of("expires_at"));
        let extend = async || broker.cli_ok(&["sandbox", "extend", sandbox, "--hours", "2"]).await;
        tokio::join!(extend(), extend(), extend());
        let again = broker.allocate("student").send().await.expect_status(200);
        assert_eq!(again.number_of("expires_at"), expires_at + 6 * 3_600);
    })
    .await;
}
