//! Schedule: the jobs run by themselves.

use broker_tests::table::{now_s, number};
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use serde_json::json;

use super::{clean_up_what_was_lost_until_deleted, give_back};

fn every_second(setup: Setup) -> Setup {
    let jobs = ["SYNC", "EXPIRE", "CLEANUP", "PURGE", "CENSUS", "SWEEP"];
    let setup = setup.var("BROKER_SCHEDULER", "workers");
    jobs.iter().fold(setup, |setup, job| setup.var(&format!("BROKER_{job}_EVERY_S"), "1"))
}

async fn pause_jobs(broker: &Broker) {
    for job in ["sync", "expire", "cleanup", "purge-stale", "census", "sweep"] {
        broker.cli_ok(&["job", "pause", job]).await;
    }
}

/// So that nothing is sent any more when the story ends.
async fn pause_all(broker: &Broker) {
    pause_jobs(broker).await;
    broker.queues().are_empty().await;
}

async fn census(broker: &Broker) -> Option<u64> {
    let item = broker.table().get("CENSUS").await?;
    item["as_of_ms"].as_n().ok()?.parse().ok()
}

#[tokio::test]
async fn a_pool_is_kept_clean_and_true_by_nobody() {
    let provider = Provider::start_with(10, &["--regrow-s", "1"]).await;
    story(every_second(provider.setup()), async |broker| {
        wait_for_condition("the pool to fill", async || match broker.stats().await {
            stats if stats.available == 10 => Ok(()),
            stats => Err(stats),
        })
        .await;
        broker.lists_are_current().await;
        let kept = broker.allocate("forgetful").send().await.expect_status(201);
        let given = broker.allocate("tidy").send().await.expect_status(201);
        broker.return_sandbox(given.sandbox_id(), "tidy").send().await.expect_status(200);
        broker.table().age(kept.sandbox_id(), 3_600).await;
        wait_for_condition("both to be gone and followed by new ones", async || {
            let (stats, world) = (broker.stats().await, provider.world().await);
            let clean = stats.deleted == 2 && stats.available == 10 && world.made == 12;
            if clean { Ok(()) } else { Err((stats, world)) }
        })
        .await;
        // The workers tell what they did, and how many there are.
        wait_for_condition("the metrics to say so", async || {
            let (mut found, mut said) = (false, String::new());
            for worker in 0..3 {
                said = broker.worker(worker).metrics().probe("/metrics").await.expect("metrics").1;
                found |= said.contains("broker_expiry_changed_total 1");
            }
            if found { Ok(()) } else { Err(said) }
        })
        .await;
        pause_all(broker).await;
    })
    .await;
}

#[tokio::test]
async fn a_paused_job_is_not_started_and_a_resumed_one_is() {
    story(every_second(Setup::new().pool(1).workers(0)), async |broker| {
        broker.cli_ok(&["job", "pause", "census"]).await;
        broker.start_worker().await;
        // Another job that ran twice after the worker's start says that the census had its chances.
        let swept = async || {
            let metrics = broker.worker(0).metrics().probe("/metrics").await.expect("metrics").1;
            let line = metrics.lines().find(|line| line.starts_with("broker_sweep_total")).map(str::to_owned);
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        wait_for_condition("three sweeps", async || match swept().await {
            few @ ..3 => Err(few),
            _ => Ok(()),
        })
        .await;
        assert_eq!(census(broker).await, None);
        broker.cli_ok(&["job", "resume", "census"]).await;
        wait_for_condition("a census", async || census(broker).await.ok_or("none")).await;
        pause_all(broker).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_sent_before_its_job_was_paused_is_left_out_unless_an_operator_asks_for_one() {
    story(every_second(Setup::new().pool(1).workers(1)), async |broker| {
        broker.cli_ok(&["pool", "pause"]).await;
        wait_for_condition("the worker to receive nothing", async || {
            let ready = broker.worker(0).metrics().metric("broker_ready").await;
            if ready == 0.0 { Ok(()) } else { Err(ready) }
        })
        .await;
        let census_before = census(broker).await;
        wait_for_condition("some runs of each job to be sent", async || {
            match broker.queues().maintenance().await {
                sent if sent.total() >= 12 => Ok(()),
                sent => Err(sent),
            }
        })
        .await;
        pause_jobs(broker).await;
        broker.cli_ok(&["pool", "resume"]).await;
        broker.queues().are_empty().await;
        assert_eq!(census(broker).await, census_before);
        let left_out = broker.logged("not run: it is paused");
        assert!(left_out.iter().any(|line| line.to_string().contains("census")), "{left_out:#?}");

        broker.cli_ok(&["job", "run", "census"]).await;
        assert!(census(broker).await > census_before);
    })
    .await;
}

#[tokio::test]
async fn a_tick_whose_worker_died_before_sending_is_taken_by_another() {
    story(every_second(Setup::new().pool(1).workers(0)), async |broker| {
        // As a worker leaves it that took the tick and died.
        broker.cli_ok(&["job", "resume", "census"]).await;
        let table = broker.table();
        let mut tick = table.must_get("TICK#census").await;
        let taken_until = (now_s() + 3) * 1_000;
        tick.insert("next_run_at_ms".to_owned(), number((now_s() - 60) * 1_000));
        tick.insert("taken_until_ms".to_owned(), number(taken_until));
        table.put(tick).await;
        broker.start_worker().await;
        let as_of = wait_for_condition("a census", async || census(broker).await.ok_or("none")).await;
        assert!(as_of >= taken_until, "{as_of} before {taken_until}: another worker had taken it");
        pause_all(broker).await;
    })
    .await;
}

#[tokio::test]
async fn workers_that_are_killed_in_the_middle_of_jobs_leave_nothing_half_done() {
    const POOL: usize = 60;
    let provider = Provider::start_with(POOL, &["--page-size", "7"]).await;
    let setup = provider.setup().workers(1).pool(POOL).var("BROKER_VISIBILITY_S", "2");
    story(setup, async |broker| {
        give_back(broker, 20).await;
        for n in 0..20 {
            let late = broker.allocate(&format!("late-{n}")).send().await.expect_status(201);
            broker.table().age(late.sandbox_id(), 3_600).await;
        }
        provider.misbehave(json!({ "list": { "delay_ms": 100 }, "delete": { "delay_ms": 100 } })).await;
        for round in 0..4 {
            for job in ["sync", "expire", "cleanup", "purge-stale", "census", "sweep"] {
                // No caller waits for these runs: their worker is about to die.
                broker.cli(&["job", "run", job, "--timeout-s", "0"]).await;
            }
            let before = provider.world().await;
            wait_for_condition("the jobs to be under way", async || {
                let (world, depth) = (provider.world().await, broker.queues().maintenance().await);
                let moved = world.lists + world.deletes > before.lists + before.deletes + round;
                if moved && depth.total() > 0 { Ok(()) } else { Err((world, depth)) }
            })
            .await;
            broker.kill_worker(0);
            broker.start_worker().await;
        }
        provider.behave().await;
        broker.job("expire").await;
        assert_eq!(broker.stats().await.allocated, 0);
        clean_up_what_was_lost_until_deleted(broker, 40).await;
        assert_eq!(broker.job("sync").await.failed, 0);
        let stats = broker.stats().await;
        assert_eq!((stats.total, stats.available, stats.stale), (60, 20, 0));
        assert_eq!(provider.world().await.accounts.len(), 20);
    })
    .await;
}
