//! External scheduler (`BROKER_SCHEDULER=external`): the message that Terraform gives to EventBridge Scheduler, byte for byte,
//! again and again.

use std::collections::BTreeMap;

use broker_runtime::config::CRASH_SETTING;
use broker_runtime::crash_points::Point;
use broker_tests::{Broker, Setup, story, wait_for_condition};

/// What Terraform renders, by job.
fn rendered(job: &str) -> String {
    let rendered = include_str!("../../../infra/terraform/firings.json");
    let rendered: BTreeMap<String, String> = serde_json::from_str(rendered).expect("JSON");
    rendered[job].clone()
}

/// Workers that would start every job each second if the schedule were theirs.
fn external() -> Setup {
    let jobs = ["SYNC", "EXPIRE", "CLEANUP", "PURGE", "CENSUS", "SWEEP"];
    let setup = Setup::new().apis(0).workers(1).pool(1).var("BROKER_SCHEDULER", "external");
    jobs.iter().fold(setup, |setup, job| setup.var(&format!("BROKER_{job}_EVERY_S"), "1"))
}

async fn fire(broker: &Broker, job: &str) {
    let queues = broker.queues();
    queues.send(&queues.name("maintenance"), &rendered(job)).await;
}

/// How often all running workers ran what the metrics call `word`.
async fn runs(broker: &Broker, word: &str) -> u64 {
    let mut runs = 0;
    for worker in 0..broker.workers_len() {
        let metrics = broker.worker(worker).metrics().probe("/metrics").await.expect("metrics").1;
        let of_word = metrics.lines().filter(|line| line.starts_with(&format!("broker_{word}_total{{")));
        runs += of_word.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    runs
}

async fn ran(broker: &Broker, word: &str, times: u64) {
    wait_for_condition(&format!("{times} runs of {word}"), async || match runs(broker, word).await {
        all if all == times => Ok(()),
        other => Err(other),
    })
    .await;
    broker.queues().are_empty().await;
}

#[tokio::test]
async fn the_same_message_starts_its_job_each_time_and_nothing_else_does() {
    story(external(), async |broker| {
        for time in 1..=3 {
            fire(broker, "census").await;
            ran(broker, "census", time).await;
        }
        for (job, word) in [("expire", "expiry"), ("purge_stale", "purge"), ("sweep", "sweep")] {
            assert_eq!(runs(broker, word).await, 0, "{job} ran by itself");
            fire(broker, job).await;
            ran(broker, word, 1).await;
        }
        assert_eq!(runs(broker, "census").await, 3, "no trigger was sent again");

        // The exceptions of the workers' own schedule, and an operator's pause, hold here too.
        broker.cli_ok(&["job", "pause", "census"]).await;
        for job in ["sync", "cleanup", "census"] {
            fire(broker, job).await;
        }
        broker.queues().are_empty().await;
        assert_eq!((runs(broker, "sync").await, runs(broker, "cleanup").await), (0, 0), "without a provider");
        assert_eq!(runs(broker, "census").await, 3, "paused");
        broker.cli_ok(&["job", "resume", "census"]).await;
        fire(broker, "census").await;
        ran(broker, "census", 4).await;
    })
    .await;
}

/// The only worker comes as far as `point`.
async fn a_worker_dies_at(broker: &mut Broker, point: Point) {
    let kill = format!("{}=kill", point.as_str());
    broker.launch_worker(&[(CRASH_SETTING, &kill)]).await;
    let status = broker.worker_mut(0).process().ended().await;
    assert!(!status.success(), "{status}");
    broker.kill_worker(0);
}

#[tokio::test]
async fn a_redelivered_firing_does_not_run_twice_and_the_next_one_runs() {
    story(external().workers(0).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        fire(broker, "census").await;
        a_worker_dies_at(broker, Point::BeforeDelete).await;
        let counted = broker.table().must_get("CENSUS").await;
        assert_eq!(broker.queues().maintenance().await.total(), 1, "it comes again");
        broker.start_worker().await;
        broker.queues().are_empty().await;
        assert_eq!(runs(broker, "census").await, 0);
        assert_eq!(broker.table().must_get("CENSUS").await, counted);
        fire(broker, "census").await;
        ran(broker, "census", 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_firing_whose_worker_died_before_its_run_was_noted_runs_again() {
    story(external().workers(0).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        fire(broker, "census").await;
        a_worker_dies_at(broker, Point::Ran).await;
        broker.start_worker().await;
        ran(broker, "census", 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_firing_that_names_no_job_dies_with_its_reason_and_a_dead_one_that_does_is_replayed() {
    story(external(), async |broker| {
        let queues = broker.queues();
        let bad = [
            rendered("sync").replace("sync", "make_coffee"),
            rendered("sync").replace(r#""job":"sync""#, r#""job":"sync","accept_stale":true"#),
            rendered("sync").replace(r#""v":1"#, r#""v":1,"deadline_ms":3"#),
        ];
        queues.send_all(&queues.name("maintenance"), &bad).await;
        queues.send(&queues.name("requests"), &rendered("census")).await;
        broker.holds_letters(4).await;
        let letters = broker.letters(&["--kind", "start_job", "--reason", "malformed"]).await;
        let why: Vec<_> =
            letters.iter().map(|letter| letter["reason_text"].as_str().expect("a text")).collect();
        for word in ["make_coffee", "accept_stale", "deadline_ms"] {
            assert_eq!(why.iter().filter(|why| why.contains(word)).count(), 1, "{word}: {why:#?}");
        }
        assert_eq!(broker.letters(&["--queue", "requests"]).await.len(), 1, "each queue has its own kinds");
        assert_eq!(broker.discard(&["--reason", "malformed"]).await.done, 4);

        queues.send(&queues.name("maintenance-dlq"), &rendered("census")).await;
        broker.holds_letters(1).await;
        assert_eq!(runs(broker, "census").await, 0);
        assert_eq!(broker.replay(&["--kind", "start_job"]).await.done, 1);
        ran(broker, "census", 1).await;
    })
    .await;
}
