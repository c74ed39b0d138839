//! Requests that wait: a thousand that are served by a thousand arrivals, and ten thousand that cost others nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use broker_tests::table::{now_ms, sandbox_key};
use broker_tests::{Broker, Provider, Setup, together, wait_for_condition};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::beside::end;
use crate::figure::Figure;
use crate::figure::Target::AtMost;
use crate::metrics::{self, Costs};
use crate::plan::Violation;
use crate::scenario::claims;
use crate::shape::Shape;

const WAITING: usize = 1_000;
/// Those that wait for what never comes.
const MANY: usize = 10_000;
/// Sandboxes beside them: more than are claimed.
const MANY_POOL: usize = 30_000;
/// Of each of the two measurements of claims.
const PHASE: Duration = Duration::from_secs(5);
/// Looks at those that wait.
const LOOKS: usize = 1_000;
/// What claims spend capacity on, by the broker's words.
const CLAIMS: [&str; 2] = ["candidates", "transaction"];

/// How long one request waited for its answer, in seconds.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// Since the beginning of the sync that brought the sandboxes.
    since_sync: f64,
    /// Since its sandbox arrived.
    since_arrival: f64,
}

/// From the beginning of the sync that brings them, and from each arrival, until each caller has its answer.
pub(crate) async fn served(runs: usize) -> Result<Vec<Figure>, Violation> {
    let [all, p99] = [
        ["until the last answer, s", "the same in AWS's shape, s"],
        ["p99 from arrival to answer, ms", "the same in AWS's shape, ms"],
    ];
    let mut figures = Vec::new();
    for (at, shape) in Shape::BOTH.into_iter().enumerate() {
        let (mut last, mut late) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let took = answers(shape).await?;
            let sorted = |of: fn(&Took) -> f64| {
                let mut sorted: Vec<_> = took.iter().map(of).collect();
                sorted.sort_by(f64::total_cmp);
                move |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN)
            };
            let (since_sync, since_arrival) =
                (sorted(|took| took.since_sync), sorted(|took| took.since_arrival));
            println!(
                "  {} served: median {:.2} s, last {:.2} s after the sync began; p99 {:.2} s after the arrival",
                took.len(),
                since_sync(WAITING / 2),
                since_sync(WAITING - 1),
                since_arrival(WAITING * 99 / 100)
            );
            last.push(since_sync(WAITING - 1));
            late.push(since_arrival(WAITING * 99 / 100) * 1_000.0);
        }
        let targets = if shape == Shape::Aws { (5.0, 1_000.0) } else { (2.0, 500.0) };
        figures.push(Figure::new(all[at], AtMost(targets.0), last));
        figures.push(Figure::new(p99[at], AtMost(targets.1), late));
    }
    Ok(figures)
}

/// How long each waited.
async fn answers(shape: Shape) -> Result<Vec<Took>, Violation> {
    let provider = Provider::start(0).await;
    let setup = provider.setup().apis(1).workers(2).var("BROKER_WAITING", "on");
    let broker = Arc::new(Broker::start(shape.on(setup)).await);
    let body = json!({ "max_wait_s": 600 });
    let mut waiting = JoinSet::new();
    for n in 0..WAITING {
        let call = broker.allocate(&format!("student-{n}")).wait(50).json(&body);
        waiting.spawn(async move { (call.send().await, Instant::now(), now_ms()) });
    }
    wait_for_condition("all to wait", async || match broker.table().keys("LINE#").await.len() {
        WAITING => Ok(()),
        parked => Err(parked),
    })
    .await;
    shape.begin(&broker);
    provider.grow(WAITING).await;
    let began = Instant::now();
    broker.cli_ok(&["job", "run", "sync"]).await;
    let mut answers = Vec::new();
    while let Some(answered) = waiting.join_next().await {
        answers.push(answered.expect("no call panics"));
    }
    let mut took = Vec::new();
    for (told, at, at_ms) in answers {
        let sandbox = broker.table().must_get(&sandbox_key(told.expect_status(201).sandbox_id())).await;
        // A new sandbox's version is the moment of its arrival in milliseconds, and its grant raised it by one.
        let version = sandbox["version"].as_n().expect("a number").parse::<u64>().expect("a version");
        took.push(Took {
            since_sync: at.duration_since(began).as_secs_f64(),
            since_arrival: at_ms.saturating_sub(version - 1) as f64 / 1_000.0,
        });
    }
    let broker = Arc::into_inner(broker).expect("nobody else has it");
    end(broker).await?;
    Ok(took)
}

/// Claims without and beside ten thousand requests that wait for what never comes, and looks at one of those: capacity units.
pub(crate) async fn many(runs: usize) -> Result<Vec<Figure>, Violation> {
    let names = [
        ["units of a claim, times as many", "read units of a look at a request that waits"],
        ["the same claim in AWS's shape", "the same look in AWS's shape"],
    ];
    let mut figures = Vec::new();
    for (shape, [claim, look]) in Shape::BOTH.into_iter().zip(names) {
        let (mut dearer, mut looks) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let [without, with, look] = units(shape).await?;
            println!(
                "  a claim takes {without:.2} units without and {with:.2} beside them, a look {look:.2}"
            );
            dearer.push(with / without);
            looks.push(look);
        }
        figures.push(Figure::new(claim, AtMost(1.02), dearer));
        figures.push(Figure::new(look, AtMost(1.0), looks));
    }
    Ok(figures)
}

/// Units of a claim without and beside those that wait, and of a look at one of them.
async fn units(shape: Shape) -> Result<[f64; 3], Violation> {
    let setup = Setup::new().workers(2).pool(MANY_POOL).var("BROKER_WAITING", "on");
    let broker = Broker::start(shape.on(setup)).await;
    shape.begin(&broker);
    let addresses: Vec<_> = broker.addresses().into_iter().map(str::to_owned).collect();
    let next = Arc::new(AtomicU64::new(0));
    let claim = async || {
        let before = metrics::costs(&broker).await;
        let claimed = claims(&addresses, 10, PHASE, &next).await.len();
        let after = metrics::costs(&broker).await;
        CLAIMS.iter().map(|operation| spent(operation, &before, &after)).sum::<f64>() / claimed as f64
    };
    let without = claim().await;
    let body = json!({ "max_wait_s": 3_600 });
    let mut locations = Vec::new();
    for some in (0..MANY).collect::<Vec<_>>().chunks(200) {
        let calls = some.iter().map(|n| {
            let call = broker.allocate(&format!("student-{n}")).name_prefix("none-").json(&body);
            call.wait(0).send()
        });
        let told = together(calls.collect::<Vec<_>>()).await;
        locations
            .extend(told.into_iter().map(|told| told.expect_status(202).must_have("location").to_owned()));
    }
    wait_for_condition("all to wait", async || match broker.table().keys("LINE#").await.len() {
        MANY => Ok(()),
        parked => Err(parked),
    })
    .await;
    let with = claim().await;
    let before = metrics::costs(&broker).await;
    for (n, location) in locations.iter().enumerate().take(LOOKS) {
        broker.request(location, &format!("student-{n}")).send().await.expect_status(200);
    }
    let after = metrics::costs(&broker).await;
    let look = spent("read", &before, &after) / LOOKS as f64;
    end(broker).await?;
    Ok([without, with, look])
}

/// Units of one operation between two moments.
fn spent(operation: &str, before: &Costs, after: &Costs) -> f64 {
    let units = |costs: &Costs| costs.capacity.get(operation).copied().unwrap_or_default();
    units(after) - units(before)
}
