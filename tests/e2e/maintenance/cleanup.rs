//! Cleanup: returned sandboxes are deleted at the provider, at its rate, and never offered again.

use std::time::Duration;

use broker_tests::provider::assert_paced;
use broker_tests::table::{now_s, number, text};
use broker_tests::{Broker, Provider, story, wait_for_condition};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{clean_up_until_deleted, clean_up_what_was_lost_until_deleted, give_back, status};

/// Takes every slot of the plan before that second.
async fn plan_from(broker: &Broker, at_s: u64) {
    let pace = [("PK", text("PACE")), ("SK", text("META")), ("next_slot_ms", number(at_s * 1_000))];
    broker.table().put(pace.map(|(name, value)| (name.to_owned(), value)).into()).await;
}

#[tokio::test]
async fn what_was_given_back_is_deleted_at_the_provider_and_leaves_a_tombstone() {
    let provider = Provider::start(6).await;
    story(provider.setup().pool(6), async |broker| {
        let returned = give_back(broker, 3).await;
        let report = broker.job("cleanup").await;
        assert_eq!((report.found, report.changed), (3, 3), "{report:?}");
        clean_up_until_deleted(broker, 3).await;

        let world = provider.world().await;
        assert_eq!((world.accounts.len(), world.deletes), (3, 3), "{world:?}");
        for sandbox in &returned {
            assert!(!world.accounts.contains(sandbox), "{sandbox} is still there");
            assert_eq!(status(broker, sandbox).await, "deleted");
        }
        broker.job("sync").await;
        assert_eq!(broker.stats().await.available, 3);
        // Its owner may still ask, and repeat himself.
        broker.return_sandbox(&returned[0], "returner-0").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn plans_that_are_repeated_do_not_exceed_the_providers_rate() {
    const RATE: u64 = 4;
    const GIVEN_BACK: usize = 40;
    let provider = Provider::start(GIVEN_BACK).await;
    let setup = provider.setup().pool(GIVEN_BACK).var("BROKER_PROVIDER_RATE", &RATE.to_string());
    story(setup, async |broker| {
        give_back(broker, GIVEN_BACK).await;
        clean_up_until_deleted(broker, GIVEN_BACK as u64).await;
        let world = provider.world().await;
        assert_eq!(world.deletions_that("deleted"), GIVEN_BACK);
        // A slot is open for a quarter of a second, and the rest is the way to the provider on a busy machine.
        assert_paced(&world, RATE, Duration::from_secs(1));
    })
    .await;
}

#[tokio::test]
async fn two_workers_on_one_job_do_together_what_one_would_do() {
    const POOL: u64 = 40;
    let provider = Provider::start_with(40, &["--page-size", "7"]).await;
    story(provider.setup().workers(2), async |broker| {
        let (first, second) = tokio::join!(broker.job("sync"), broker.job("sync"));
        assert_eq!((first.failed, second.failed), (0, 0), "{first:?} {second:?}");
        assert_eq!(first.changed + second.changed, POOL, "{first:?} {second:?}");
        give_back(broker, 40).await;
        let (first, second) = tokio::join!(broker.job("cleanup"), broker.job("cleanup"));
        assert_eq!(first.changed + second.changed, POOL, "planned once each: {first:?} {second:?}");
        clean_up_until_deleted(broker, POOL).await;
        let world = provider.world().await;
        assert_eq!((world.deletes, world.deletions_that("deleted")), (40, 40), "{world:?}");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_killed_with_deletions_in_its_hands_loses_none() {
    let provider = Provider::start(20).await;
    story(provider.setup().pool(20).var("BROKER_VISIBILITY_S", "5"), async |broker| {
        give_back(broker, 20).await;
        // The first answers take long: the plan is done, the deletions are in the workers' hands.
        provider.misbehave(json!({ "delete": { "delay_ms": 3_000, "times": 20 } })).await;
        broker.job("cleanup").await;
        wait_for_condition("deletions under way", async || match provider.world().await.deletes {
            few @ ..3 => Err(few),
            _ => Ok(()),
        })
        .await;
        broker.worker(0).freeze();
        broker.kill_worker(0);
        broker.kill_worker(0);
        provider.behave().await;
        clean_up_what_was_lost_until_deleted(broker, 20).await;
        assert!(provider.world().await.accounts.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_due_again_when_its_message_is_lost_and_void_when_it_comes_after_all() {
    let provider = Provider::start(2).await;
    story(provider.setup().pool(2), async |broker| {
        let returned = &give_back(broker, 1).await[0];
        // The provider's rate is used up for the next seconds: the deletion waits in the queue for its slot.
        let slot = now_s() + 10;
        plan_from(broker, slot).await;
        assert_eq!(broker.job("cleanup").await.changed, 1);
        let planned = broker.shown(returned).await;
        assert_eq!(planned["due_at"].as_u64(), Some(slot + 15 * 60), "{planned:#}");
        assert_eq!(broker.job("cleanup").await.found, 0, "planned once");

        // As if its message had not come within those 15 minutes.
        broker.table().age(returned, 0).await;
        assert_eq!(broker.job("cleanup").await.changed, 1);
        clean_up_until_deleted(broker, 1).await;
        broker.queues().are_empty().await;
        assert_eq!(provider.world().await.deletes, 1, "the older plan is void");
    })
    .await;
}

#[tokio::test]
async fn deletions_that_come_late_are_done_although_the_plan_is_full() {
    const MANY: usize = 8;
    let provider = Provider::start(MANY).await;
    let setup = provider.setup().pool(MANY).workers(1).var("BROKER_PROVIDER_RATE", "10");
    story(setup, async |broker| {
        give_back(broker, MANY).await;
        let planned = now_s() + 8;
        plan_from(broker, planned).await;
        assert_eq!(broker.job("cleanup").await.changed, MANY as u64);
        broker.stop_worker(0).await;
        wait_for_condition("their time to be over", async || match now_s() {
            now if now > planned + 2 => Ok(()),
            now => Err(now),
        })
        .await;
        // Everything that can be planned is planned, as where nobody keeps pace with what is given back.
        plan_from(broker, now_s() + 600).await;
        broker.start_worker().await;
        wait_for_condition("all to be deleted", async || match provider.world().await {
            world if world.deletions_that("deleted") == MANY => Ok(()),
            world => Err(world),
        })
        .await;
        clean_up_until_deleted(broker, MANY as u64).await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_hands_its_deletions_on() {
    let provider = Provider::start(10).await;
    story(provider.setup().pool(10).var("BROKER_PROVIDER_RATE", "2"), async |broker| {
        give_back(broker, 10).await;
        broker.job("cleanup").await;
        broker.worker(0).signal(Signal::SIGCONT);
        broker.stop_worker(0).await;
        clean_up_until_deleted(broker, 10).await;
        let world = provider.world().await;
        assert_eq!(world.deletions_that("deleted"), 10);
    })
    .await;
}

#[tokio::test]
async fn a_job_does_not_wait_for_the_deletions_that_stand_before_it() {
    const MANY: usize = 60;
    let provider = Provider::start(MANY).await;
    let setup = provider.setup().pool(MANY).workers(1).var("BROKER_PROVIDER_RATE", "100");
    story(setup, async |broker| {
        give_back(broker, MANY).await;
        provider.misbehave(json!({ "delete": { "delay_ms": 3_000 } })).await;
        assert_eq!(broker.job("cleanup").await.changed, MANY as u64);
        wait_for_condition("the first to be deleted", async || match provider.world().await {
            world if world.deletes > 0 => Ok(()),
            world => Err(world),
        })
        .await;
        broker.job("census").await;
        let left = broker.stats().await.pending_deletion;
        assert!(left >= MANY as u64 / 2, "{left} are left: the job waited for the others");
        provider.behave().await;
        clean_up_until_deleted(broker, MANY as u64).await;
    })
    .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_out_and_named_and_makes_no_dead_letter() {
    let provider = Provider::start(2).await;
    story(provider.setup().pool(2), async |broker| {
        let returned = give_back(broker, 2).await;
        plan_from(broker, now_s() + 6).await;
        assert_eq!(broker.job("cleanup").await.changed, 2);
        // Planned, and then broken.
        let mut whole = broker.table().must_get(&format!("SBX#{}", returned[0])).await;
        let mut broken = whole.clone();
        broken.insert("created_at".to_owned(), text("yesterday"));
        broker.table().put(broken.clone()).await;
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.deleted, 1);

        // Due again: it is not planned any more.
        let due = text(&format!("{:012}", now_s()));
        for item in [&mut broken, &mut whole] {
            item.insert("state_key".to_owned(), due.clone());
        }
        broker.table().put(broken).await;
        let report = broker.job("cleanup").await;
        assert_eq!((report.found, report.changed, report.failed), (1, 0, 1), "{report:?}");
        assert_eq!(report.details["unreadable"], 1);
        broker.queues().are_empty().await;
        assert!(broker.letters(&[]).await.is_empty());
        let verified = broker.cli(&["pool", "verify"]).await;
        assert!(verified.code == 3 && verified.stdout.contains("unreadable_item"), "{verified:?}");

        broker.table().put(whole).await;
        clean_up_until_deleted(broker, 2).await;
    })
    .await;
}
