//! Crashes in the middle of each job; another worker takes over, and the result is the same.

use broker_runtime::crash_points::Point;
use broker_tests::cli::{JobReport, Stats};
use broker_tests::table::{now_s, number};
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use serde_json::{Value, json};

use super::{dies, doomed};

const SANDBOXES: u64 = 30;
/// Long past every grace.
const TWO_DAYS: u64 = 48 * 3_600;

/// No worker yet; what a dead one had in its hands comes back soon.
async fn with_provider() -> (Provider, Setup) {
    let provider = Provider::start_with(30, &["--page-size", "10"]).await;
    let setup = provider.setup().apis(1).workers(0).var("BROKER_VISIBILITY_S", "2");
    (provider, setup)
}

/// Sends a run of `job`; the worker that takes it dies at `point`. What it leaves breaks no promise.
pub(super) async fn dies_in(broker: &mut Broker, job: &str, point: Point) {
    // No caller waits for this run: its worker is about to die.
    broker.cli(&["job", "run", job, "--timeout-s", "0"]).await;
    doomed(broker, point).await;
    dies(broker).await;
    broker.verify().await;
}

/// Another worker finds the message again, and does the rest.
pub(super) async fn is_taken_over(broker: &mut Broker) {
    broker.start_worker().await;
    broker.queues().are_empty().await;
}

/// That there is nothing left to do for `job`.
async fn has_nothing_to_do(broker: &Broker, job: &str) {
    let JobReport { changed, failed, aborted, .. } = broker.job(job).await;
    assert_eq!((changed, failed, aborted), (0, 0, None), "{job}");
}

/// All sandboxes handed out, by workers that are gone again.
async fn everything_is_allocated(broker: &mut Broker) -> Vec<String> {
    broker.start_worker().await;
    let mut sandboxes = Vec::new();
    for n in 0..SANDBOXES {
        let told = broker.allocate(&format!("student-{n}")).send().await.expect_status(201);
        sandboxes.push(told.sandbox_id().to_owned());
    }
    broker.queues().are_empty().await;
    broker.stop_workers().await;
    sandboxes
}

#[track_caller]
fn some_but_not_all(what: &str, count: u64) {
    assert!((1..SANDBOXES).contains(&count), "{count} {what} when it died");
}

#[tokio::test]
async fn a_sync_that_dies_before_or_between_its_writes_is_done_by_the_next_worker() {
    let (_provider, setup) = with_provider().await;
    story(setup, async |broker| {
        dies_in(broker, "sync", Point::Listed).await;
        assert_eq!(broker.stats().await, Stats::default(), "read, and nothing written");
        // The same message again, and again the worker dies; then one does not.
        doomed(broker, Point::Stepped).await;
        dies(broker).await;
        some_but_not_all("inserted", broker.stats().await.arriving);
        is_taken_over(broker).await;
        everything_is_offered(broker).await;
        has_nothing_to_do(broker, "sync").await;
    })
    .await;
}

/// Waits until the last arrival is admitted.
async fn everything_is_offered(broker: &Broker) {
    let expected = Stats { total: SANDBOXES, available: SANDBOXES, ..Stats::default() };
    wait_for_condition("every sandbox is available", async || match broker.stats().await {
        stats if stats == expected => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_sync_brought_and_did_not_admit_is_admitted_by_another_worker() {
    let (_provider, setup) = with_provider().await;
    story(setup.var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        dies_in(broker, "sync", Point::Arrived).await;
        let arrived = Stats { total: SANDBOXES, arriving: SANDBOXES, ..Stats::default() };
        assert_eq!(broker.stats().await, arrived, "known, and not offered");
        broker.start_worker().await;
        everything_is_offered(broker).await;
        // Its tick did it, and counted it: the sync, if it ran again, found nothing new.
        wait_for_condition("them to be counted", async || {
            match broker.worker(0).metrics().metric("broker_serve_left_behind_total").await {
                counted if counted == SANDBOXES as f64 => Ok(()),
                counted => Err(counted),
            }
        })
        .await;
        broker.lists_are_current().await;
        broker.allocate("student").send().await.expect_status(201);
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_dies_between_two_admissions_leaves_the_rest_to_another_one() {
    let (_provider, setup) = with_provider().await;
    story(setup.var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        dies_in(broker, "sync", Point::Admitted).await;
        let stats = broker.stats().await;
        some_but_not_all("available", stats.available);
        assert_eq!(stats.available + stats.arriving, SANDBOXES);
        is_taken_over(broker).await;
        everything_is_offered(broker).await;
    })
    .await;
}

#[tokio::test]
async fn an_expiry_that_dies_between_two_leases_ends_each_once() {
    story(Setup::new().apis(1).workers(0).pool(30).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        for sandbox in everything_is_allocated(broker).await {
            broker.table().age(&sandbox, TWO_DAYS).await;
        }
        dies_in(broker, "expire", Point::Stepped).await;
        let stats = broker.stats().await;
        some_but_not_all("expired", stats.pending_deletion);
        assert_eq!(stats.allocated + stats.pending_deletion, SANDBOXES);
        is_taken_over(broker).await;
        let expected = Stats { total: SANDBOXES, pending_deletion: SANDBOXES, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        has_nothing_to_do(broker, "expire").await;
    })
    .await;
}

#[tokio::test]
async fn a_purge_that_dies_between_two_removals_removes_the_rest() {
    let (provider, setup) = with_provider().await;
    story(setup.pool(30), async |broker| {
        broker.start_worker().await;
        provider.misbehave(json!({ "list": { "no_next": true } })).await;
        broker.cli_ok(&["job", "run", "sync", "--accept-stale"]).await;
        broker.queues().are_empty().await;
        broker.stop_workers().await;
        let stale = ["pool", "list", "--status", "stale", "--json"];
        let stale: Vec<Value> = broker.cli_ok(&stale).await.json();
        assert_eq!(stale.len(), 20);
        for sandbox in &stale {
            broker.table().age(sandbox["sandbox_id"].as_str().expect("an id"), TWO_DAYS).await;
        }
        dies_in(broker, "purge-stale", Point::Stepped).await;
        some_but_not_all("left", broker.stats().await.stale);
        is_taken_over(broker).await;
        assert_eq!(broker.stats().await, Stats { total: 10, available: 10, ..Stats::default() });
        has_nothing_to_do(broker, "purge-stale").await;
    })
    .await;
}

/// Everything given back, by workers that are gone again.
async fn everything_is_given_back(broker: &mut Broker) {
    let sandboxes = everything_is_allocated(broker).await;
    broker.start_worker().await;
    for (n, sandbox) in sandboxes.iter().enumerate() {
        broker.return_sandbox(sandbox, &format!("student-{n}")).send().await.expect_status(200);
    }
    broker.queues().are_empty().await;
    broker.stop_workers().await;
}

#[tokio::test]
async fn a_plan_that_dies_before_its_messages_are_sent_is_due_again_by_itself() {
    let (provider, setup) = with_provider().await;
    story(setup.pool(30), async |broker| {
        everything_is_given_back(broker).await;
        dies_in(broker, "cleanup", Point::Planned).await;
        is_taken_over(broker).await;
        // Only the planned and unsent deletions are left: none is sent before its plan is void.
        let lost = ["pool", "list", "--status", "pending_deletion", "--json"];
        let lost: Vec<Value> = broker.cli_ok(&lost).await.json();
        some_but_not_all("planned", lost.len() as u64);
        for sandbox in &lost {
            let sandbox = sandbox["sandbox_id"].as_str().expect("an id");
            let due = broker.shown(sandbox).await["due_at"].as_u64().expect("a time");
            assert!((now_s()..now_s() + 15 * 60).contains(&due), "15 minutes after its slot: {due}");
            // As if those minutes had passed.
            broker.table().age(sandbox, 0).await;
        }
        everything_is_deleted(broker, &provider).await;
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_dies_after_the_provider_did_it_is_found_done() {
    let (provider, setup) = with_provider().await;
    story(setup.pool(30), async |broker| {
        everything_is_given_back(broker).await;
        dies_in(broker, "cleanup", Point::GoneAtProvider).await;
        let gone = provider.world().await.deletions_that("deleted");
        some_but_not_all("gone at the provider", gone as u64);
        assert!(broker.stats().await.deleted < gone as u64, "one at least has no tombstone");
        is_taken_over(broker).await;
        everything_is_deleted(broker, &provider).await;
    })
    .await;
}

/// Cleans up until all are tombstones, each deleted once at the provider.
async fn everything_is_deleted(broker: &Broker, provider: &Provider) {
    wait_for_condition("tombstones of all", async || {
        // The deletions that the dead worker planned and did not send are due again later; this story does not wait for that.
        let pending = ["pool", "list", "--status", "pending_deletion", "--json"];
        for sandbox in broker.cli_ok(&pending).await.json::<Vec<Value>>() {
            broker.cli(&["sandbox", "retry-delete", sandbox["sandbox_id"].as_str().expect("an id")]).await;
        }
        broker.job("cleanup").await;
        broker.queues().are_empty().await;
        match broker.stats().await {
            stats if stats.deleted == SANDBOXES => Ok(()),
            stats => Err(stats),
        }
    })
    .await;
    let world = provider.world().await;
    assert_eq!((world.accounts.len(), world.deletions_that("deleted") as u64), (0, SANDBOXES), "{world:?}");
    has_nothing_to_do(broker, "cleanup").await;
}

#[tokio::test]
async fn a_tick_that_was_taken_and_not_sent_is_taken_again_when_its_minute_is_over() {
    let setup = Setup::new().apis(1).workers(0).pool(30).var("BROKER_SCHEDULER", "workers");
    story(setup, async |broker| {
        // Only this job's tick is due.
        for job in ["expire", "purge-stale", "sweep"] {
            broker.cli_ok(&["job", "pause", job]).await;
        }
        doomed(broker, Point::TickTaken).await;
        dies(broker).await;
        assert_eq!(broker.queues().maintenance().await.total(), 0, "nothing was sent");
        let table = broker.table();
        let mut tick = table.must_get("TICK#census").await;
        assert!(tick.contains_key("taken_until_ms"), "{tick:?}");
        // As if that minute had passed.
        tick.insert("taken_until_ms".to_owned(), number(now_s() * 1_000));
        table.put(tick).await;
        broker.start_worker().await;
        wait_for_condition("a census", async || table.get("CENSUS").await.ok_or("none")).await;
        broker.cli_ok(&["job", "pause", "census"]).await;
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_census_that_dies_before_it_is_kept_is_taken_again() {
    story(Setup::new().apis(1).workers(0).pool(30).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        dies_in(broker, "census", Point::Counted).await;
        assert!(broker.table().get("CENSUS").await.is_none(), "counted, and not kept");
        is_taken_over(broker).await;
        let census = broker.table().must_get("CENSUS").await;
        assert_eq!(census["available_count"].as_n().map(String::as_str), Ok("30"));
    })
    .await;
}

#[tokio::test]
async fn a_sweep_that_dies_between_a_queue_and_its_instance_forgets_it_later() {
    story(Setup::new().apis(2).workers(0).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        let queues = broker.queues();
        let both = queues.reply_queues().await;
        broker.kill_api(0);
        broker.stop_apis().await;
        let left = queues.reply_queues().await;
        let [dead] = left.as_slice() else { panic!("{left:?} of {both:?}") };
        broker.table().age_heartbeat(dead).await;
        broker.start_worker().await;
        assert_eq!(broker.job("sweep").await.changed, 0, "seen once");
        broker.stop_workers().await;
        dies_in(broker, "sweep", Point::Swept).await;
        assert!(queues.reply_queues().await.is_empty(), "it is gone");
        assert_eq!(broker.table().instances().await.iter().filter(|role| *role == "api").count(), 1);
        is_taken_over(broker).await;
        assert_eq!(broker.table().instances().await.iter().filter(|role| *role == "api").count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_worker_dies_before_it_is_reported_is_reported_by_the_next() {
    story(Setup::new().apis(1).workers(0).pool(30).var("BROKER_VISIBILITY_S", "2"), async |broker| {
        for sandbox in everything_is_allocated(broker).await {
            broker.table().age(&sandbox, TWO_DAYS).await;
        }
        let environment = (**broker).clone();
        let waiting = tokio::spawn(async move { environment.job("expire").await });
        doomed(broker, Point::Ran).await;
        dies(broker).await;
        assert_eq!(broker.stats().await.pending_deletion, SANDBOXES, "it ran");
        broker.start_worker().await;
        let report = waiting.await.expect("a report");
        // An index that lags may still show what is done.
        assert_eq!((report.changed, report.failed), (0, 0), "and had nothing left to do");
    })
    .await;
}

/// A policy whose gate guards every sandbox.
async fn guarded(broker: &Broker, provider: &Provider) {
    let url = provider.url();
    let text = format!(
        "[flavour.small]\nprefix = \"sandbox-\"\ngate = {{ url = \"{url}/hooks/gate\", timeout_s = 1, attempts = 5 }}\n"
    );
    let path = broker_tests::warden::scratch().join(broker.queues().name("guarded"));
    std::fs::write(&path, text).expect("the file is written");
    broker.cli_ok(&["policy", "apply", path.to_str().expect("a path of ours")]).await;
}

#[tokio::test]
async fn a_worker_that_dies_over_a_gate_leaves_the_question_to_another_one_with_the_same_id() {
    for point in [Point::GateNoted, Point::GateAnswered] {
        let (provider, setup) = with_provider().await;
        story(setup.var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
            guarded(broker, &provider).await;
            // What the dead worker had in its hands is served anew a few seconds later.
            dies_in(broker, "sync", point).await;
            assert_eq!(broker.stats().await.available, 0, "{point:?}");
            is_taken_over(broker).await;
            everything_is_offered(broker).await;
            let world = provider.world().await;
            let ids: std::collections::BTreeSet<_> =
                world.hooked("sandbox.check").map(|call| &call.id).collect();
            assert_eq!(ids.len() as u64, SANDBOXES, "{point:?}: one question a sandbox");
        })
        .await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_before_it_puts_a_refused_sandbox_aside_leaves_that_to_another_one() {
    let (provider, setup) = with_provider().await;
    story(setup.var("BROKER_SERVE_EVERY_S", "1"), async |broker| {
        guarded(broker, &provider).await;
        provider.misbehave(json!({ "gate": { "status": 422, "reason": "broken" } })).await;
        dies_in(broker, "sync", Point::RoomCounted).await;
        let Stats { quarantined, available, .. } = broker.stats().await;
        assert_eq!((quarantined, available), (0, 0), "when it died");
        is_taken_over(broker).await;
        wait_for_condition("a fifth to be in quarantine", async || match broker.stats().await {
            stats if stats.quarantined == SANDBOXES / 5 => Ok(()),
            stats => Err(stats),
        })
        .await;
    })
    .await;
}
