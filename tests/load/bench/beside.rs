//! Claims beside what else the broker does: a limit on their tenant, heartbeats of many owners, a storm of refill, a rollout.
//!
//! Without and with it in turns, on one broker: only the ratio of two phases that follow each other counts. Each on loopback, and
//! with AWS's times and conflicts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker_tests::{Broker, Call, Provider, Setup, together, wait_for_condition, warden};
use serde_json::json;
use tokio::time::{Instant, interval, sleep_until};

use crate::figure::Figure;
use crate::figure::Target::{self, AtLeast, AtMost};
use crate::plan::Violation;
use crate::scenario::claims;
use crate::shape::Shape;
use crate::user::Sample;

/// Of each phase.
const PHASE: Duration = Duration::from_secs(5);
/// Pairs of phases, one without and one with.
const PAIRS: usize = 2;
/// Sandboxes: more than are claimed in all phases.
const POOL: usize = 40_000;
/// When every worker looks at a new limit's permits for the last time of many.
const SETTLES_IN: Duration = Duration::from_secs(12);
/// Owners that beat, and what they said at their allocation.
const OWNERS: usize = 10_000;
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The answers of both kinds of phases.
struct Pair {
    without: Vec<Sample>,
    with: Vec<Sample>,
}

impl Pair {
    /// Claims a second, times as many as without.
    fn rate(&self) -> f64 {
        let rate = |of: &[Sample]| of.iter().filter(|sample| sample.status == 201).count() as f64;
        rate(&self.with) / rate(&self.without).max(1.0)
    }

    /// The p99 of claims, times as long as without.
    fn p99(&self) -> f64 {
        p99_ms(&self.with) / p99_ms(&self.without).max(0.001)
    }
}

pub(crate) fn p99_ms(of: &[Sample]) -> f64 {
    let mut micros: Vec<u64> = of.iter().map(|sample| sample.micros).collect();
    micros.sort_unstable();
    let at = micros.len().saturating_sub(1) * 99 / 100;
    micros.get(at).copied().unwrap_or_default() as f64 / 1_000.0
}

/// The claims of `users`, without and with what `switch` turns on and off.
async fn in_turns(broker: &Broker, users: usize, switch: impl AsyncFn(bool)) -> Vec<Pair> {
    let (addresses, next) = (addresses(broker), Arc::new(AtomicU64::new(0)));
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        switch(false).await;
        let without = claims(&addresses, users, PHASE, &next).await;
        switch(true).await;
        let with = claims(&addresses, users, PHASE, &next).await;
        let pair = Pair { without, with };
        println!(
            "  {} and {} claims: rate {:.2}, p99 {:.2}",
            pair.without.len(),
            pair.with.len(),
            pair.rate(),
            pair.p99()
        );
        pairs.push(pair);
    }
    switch(false).await;
    pairs
}

fn addresses(broker: &Broker) -> Vec<String> {
    broker.addresses().into_iter().map(str::to_owned).collect()
}

/// Ends the broker, if nothing is wrong with its pool.
pub(crate) async fn end(broker: Broker) -> Result<(), Violation> {
    let verdict = broker.cli(&["pool", "verify"]).await;
    broker.finish().await;
    if verdict.code == 0 {
        return Ok(());
    }
    println!("pool verify: {}{}", verdict.stdout, verdict.stderr);
    Err(Violation)
}

/// Applies a policy, and waits until every process follows it.
async fn policy(broker: &Broker, text: &str) {
    let file = warden::scratch().join(broker.queues().name("policy"));
    std::fs::write(&file, text).expect("a file");
    let path = file.to_str().expect("a path of text");
    let applied: serde_json::Value = broker.cli_ok(&["policy", "apply", path, "--json"]).await.json();
    let version = applied["version"].as_f64().expect("a version");
    wait_for_condition("every process to follow", async || {
        for process in broker.metrics() {
            let followed = process.metric("broker_policy_version").await;
            if followed != version {
                return Err(followed);
            }
        }
        Ok(())
    })
    .await;
}

/// One figure of each shape, of all pairs of all runs.
async fn figures(
    runs: usize,
    names: [&'static str; 2],
    target: Target,
    value: fn(&Pair) -> f64,
    measure: impl AsyncFn(Shape) -> Result<Vec<Pair>, Violation>,
) -> Result<Vec<Figure>, Violation> {
    let mut figures = Vec::new();
    for (shape, name) in Shape::BOTH.into_iter().zip(names) {
        let mut values = Vec::new();
        for _ in 0..runs {
            values.extend(measure(shape).await?.iter().map(value));
        }
        figures.push(Figure::new(name, target, values));
    }
    Ok(figures)
}

/// One tenant whose every claim takes a permit, once its limit has settled: for the first ten seconds each worker looks at all
/// permits once a second. In AWS's shape by 25 users: the permits of a limit are one partition, which takes 500 transactions a
/// second.
pub(crate) async fn limited(runs: usize) -> Result<Vec<Figure>, Violation> {
    const WITHOUT: &str = "[flavour.all]\nprefix = \"sandbox-\"\n";
    let names = ["claims/s, times as many", "the same by 25 users in AWS's shape"];
    figures(runs, names, AtLeast(0.85), Pair::rate, async |shape| {
        let broker = Broker::start(shape.on(Setup::new().workers(2).pool(2 * POOL))).await;
        shape.begin(&broker);
        let with = format!("{WITHOUT}[tenant.platform]\nlimits = {{ all = {} }}\n", 2 * POOL);
        let users = if shape == Shape::Aws { 25 } else { 50 };
        let (addresses, next) = (addresses(&broker), Arc::new(AtomicU64::new(u64::MAX / 2)));
        let pairs = in_turns(&broker, users, async |on| {
            policy(&broker, if on { &with } else { WITHOUT }).await;
            if on {
                claims(&addresses, 1, SETTLES_IN, &next).await;
            }
        })
        .await;
        end(broker).await?;
        Ok(pairs)
    })
    .await
}

/// Owners that beat, beside ten users.
pub(crate) async fn heartbeats(runs: usize) -> Result<Vec<Figure>, Violation> {
    let names = ["p99 of a claim, times as long", "the same in AWS's shape"];
    figures(runs, names, AtMost(1.05), Pair::p99, async |shape| {
        let broker = Broker::start(shape.on(Setup::new().workers(2).pool(OWNERS + POOL))).await;
        let owners = owners(&broker).await;
        let due = Instant::now() + HEARTBEAT;
        shape.begin(&broker);
        // A beat that moves the end by less than a heartbeat writes nothing.
        sleep_until(due).await;
        let beats = Arc::new(AtomicBool::new(false));
        let told = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let heart = tokio::spawn(beat(owners, Arc::clone(&beats), Arc::clone(&told)));
        let pairs = in_turns(&broker, 10, async |on| beats.store(on, Ordering::Relaxed)).await;
        heart.abort();
        let [held, failed] = [0, 1].map(|at| told[at].load(Ordering::Relaxed));
        println!("  {held} beats held, {failed} did not");
        end(broker).await?;
        Ok(pairs)
    })
    .await
}

/// The renewals of those who hold a sandbox with a heartbeat.
async fn owners(broker: &Broker) -> Vec<Call> {
    let mut renewals = Vec::new();
    let body = json!({ "heartbeat_s": HEARTBEAT.as_secs() });
    for some in (0..OWNERS).collect::<Vec<_>>().chunks(100) {
        let asked = some.iter().map(|n| broker.allocate(&format!("owner-{n}")).json(&body).send());
        for (n, told) in some.iter().zip(together(asked.collect::<Vec<_>>()).await) {
            let sandbox = told.expect_status(201).sandbox_id().to_owned();
            let path = format!("/v1/sandboxes/{sandbox}/renew");
            let call = broker.balanced().call(http::Method::POST, &path);
            renewals.push(call.header("x-instruqt-sandbox-id", format!("owner-{n}")));
        }
    }
    renewals
}

/// Each owner beats once in a heartbeat, one after the other, while `on`.
async fn beat(owners: Vec<Call>, on: Arc<AtomicBool>, told: Arc<[AtomicU64; 2]>) {
    let mut pace = interval(HEARTBEAT / u32::try_from(OWNERS).unwrap_or(u32::MAX));
    for call in owners.iter().cycle() {
        pace.tick().await;
        if on.load(Ordering::Relaxed) {
            let (call, told) = (call.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let status = call.send().await.status;
                told[usize::from(status != 200)].fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

/// Ten flavours that each ask for a sandbox a second, beside ten users.
pub(crate) async fn refill(runs: usize) -> Result<Vec<Figure>, Violation> {
    let names = ["p99 of a claim, times as long", "the same in AWS's shape"];
    figures(runs, names, AtMost(1.05), Pair::p99, async |shape| {
        let provider = Provider::start(1).await;
        // The census, which must run, takes its time for each sandbox.
        let setup = provider.setup().apis(1).workers(2).pool(POOL / 3).var("BROKER_SCHEDULER", "workers");
        let setup = setup.var("BROKER_CENSUS_EVERY_S", "10").var("BROKER_REFILL_EVERY_S", "1");
        let broker = Broker::start(shape.on(setup)).await;
        // The pool is none of the provider's.
        for job in ["sync", "expire", "cleanup"] {
            broker.cli_ok(&["job", "pause", job]).await;
        }
        shape.begin(&broker);
        let flavour = |n: usize| {
            let url = provider.url();
            format!(
                "[flavour.f{n}]\nprefix = \"f{n}-\"\nrefill = {{ min = 5000, max = 9000, rate_per_minute = 60, \
                 url = \"{url}/hooks/refill\" }}\n"
            )
        };
        let storm: String = (0..10).map(flavour).collect();
        let asked = async || provider.world().await.hooked("refill.requested").count();
        let pairs = in_turns(&broker, 10, async |on| {
            let before = asked().await;
            policy(&broker, if on { &storm } else { "[flavour.none]\nprefix = \"none-\"\n" }).await;
            if on {
                wait_for_condition("the storm", async || match asked().await {
                    now if now > before => Ok(()),
                    now => Err(now),
                })
                .await;
            }
        })
        .await;
        println!("  {} sandboxes were asked for", asked().await);
        end(broker).await?;
        Ok(pairs)
    })
    .await
}

/// A rollout beside fifty users: each worker is told to end (SIGTERM) once another one has taken its place.
pub(crate) async fn rollout(runs: usize) -> Result<Vec<Figure>, Violation> {
    let names = [
        ["requests that were lost", "p99 of a claim, times as long"],
        ["requests that were lost in AWS's shape", "the same p99 in AWS's shape"],
    ];
    let mut all = Vec::new();
    for (shape, [lost, late]) in Shape::BOTH.into_iter().zip(names) {
        let (mut losses, mut p99s) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let mut broker = Broker::start(shape.on(Setup::new().workers(2).pool(POOL))).await;
            shape.begin(&broker);
            let (addresses, next) = (addresses(&broker), Arc::new(AtomicU64::new(0)));
            let without = claims(&addresses, 50, PHASE, &next).await;
            let (with, ()) = tokio::join!(claims(&addresses, 50, PHASE, &next), replace_workers(&mut broker));
            let lost = with.iter().filter(|sample| sample.status != 201).count();
            let pair = Pair { without, with };
            println!(
                "  {} and {} claims, {lost} lost: p99 {:.2}",
                pair.without.len(),
                pair.with.len(),
                pair.p99()
            );
            losses.push(lost as f64);
            p99s.push(pair.p99());
            end(broker).await?;
        }
        all.push(Figure::new(lost, AtMost(0.0), losses));
        all.push(Figure::new(late, AtMost(2.0), p99s));
    }
    Ok(all)
}

/// Replaces each worker, one after the other.
async fn replace_workers(broker: &mut Broker) {
    for _ in 0..broker.workers_len() {
        broker.start_worker().await;
        broker.stop_worker(0).await;
    }
}
