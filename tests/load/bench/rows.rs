//! Definitions of the rows of RESULTS.md: measurement and target.

use std::path::Path;

use clap::ValueEnum;

use crate::claims::raw_rate;
use crate::figure::Figure;
use crate::figure::Target::{AtLeast, AtMost, Stated};
use crate::other_build::{self, Ratios};
use crate::plan::{Plan, Violation};
use crate::scenario::Scenario;
use crate::shape::Shape;
use crate::tally::Tally;
use crate::{arrivals, beside, prices};

/// The operations on the table.
const TABLE: [&str; 10] = [
    "BatchGetItem",
    "BatchWriteItem",
    "DeleteItem",
    "ExecuteStatement",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "TransactWriteItems",
    "UpdateItem",
];

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// 50 users in a closed loop, the pool never empty; and what the broker's own work costs
    New,
    /// The same users on this build and on that of 819abd4, in turns
    Pair,
    /// 50 users that k6 plays, on both builds in turns
    K6,
    /// 1,000 allocations a second at constant arrival for a minute
    Open,
    /// Half of what a closed loop reaches, at constant arrival for a minute
    Half,
    /// 100 users on 100 sandboxes, then none
    Exhausted,
    /// Idempotent repeats and returns, beside new allocations
    Others,
    /// 500 users: AWS calls per allocation
    Saturated,
    /// One user: AWS calls and capacity per allocation
    Single,
    /// 500 paced claims from 1,000 and from 1,000,000 sandboxes
    Pool,
    /// One worker and three, each bounded, with slow calls
    Workers,
    /// Eight workers that begin at once
    Races,
    /// One user, with the hops of a network
    Hops,
    /// Ten users beside one key that is repeated 300 times a second, with the hops of a network
    Hot,
    /// 50 users of a tenant without and with a limit, in turns
    Limited,
    /// Ten users without and with 10,000 owners that beat every 60 s, in turns
    Heartbeats,
    /// Ten users without and with ten flavours that each ask for a sandbox a second, in turns
    Refill,
    /// 50 users while each worker is replaced
    Rollout,
    /// 1,000 requests that wait, 1,000 arrivals
    Arrivals,
    /// Ten users without and beside 10,000 requests that wait
    Waiting,
    /// What a million allocations and their returns cost at AWS
    Cost,
}

impl Row {
    /// Its heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::New => "50 users, closed loop, pool never empty",
            Self::Pair => "50 users, closed loop, in turns with the build at 819abd4",
            Self::K6 => "50 users played by k6, in turns with the build at 819abd4",
            Self::Open => "1,000 allocations/s at constant arrival for 60 s, pool of 70,000",
            Self::Half => "Half of a closed loop's rate at constant arrival for 60 s",
            Self::Exhausted => "100 users on 100 sandboxes, then an empty pool",
            Self::Others => "Repeats and returns beside new allocations, 50 users",
            Self::Saturated => "500 users, saturated",
            Self::Single => "One user at a time",
            Self::Hot => "Ten users beside a key that is repeated 300 times a second, hops of 8 and 5 ms",
            Self::Pool => "A pool of 1,000,000 beside one of 1,000: 500 paced claims",
            Self::Workers => {
                "Three workers beside one: 4 messages at a time each, 5 ms injected into every AWS call"
            }
            Self::Races => "Eight workers that begin at once, 50 users",
            Self::Hops => "One user, 8 ms injected into SQS calls and 5 ms into DynamoDB calls",
            Self::Limited => "A tenant with a limit beside the same without, 50 users",
            Self::Heartbeats => "Ten users beside 10,000 owners that beat every 60 s",
            Self::Refill => "Ten users beside a storm of refill: ten flavours, 60 a minute each",
            Self::Rollout => "50 users while each worker is replaced (SIGTERM)",
            Self::Arrivals => "1,000 requests that wait, 1,000 arrivals",
            Self::Waiting => "Ten users beside 10,000 requests that wait",
            Self::Cost => "A million allocations and returns at AWS's list prices, ten users in AWS's shape",
        }
    }

    /// Whether another build is measured, too.
    pub(crate) const fn needs_pair(self) -> bool {
        matches!(self, Self::Pair | Self::K6)
    }

    /// Its figures, of so many runs; `other` is the other build's `broker-bench`.
    pub(crate) async fn measure(self, runs: usize, other: &Path) -> Result<Vec<Figure>, Violation> {
        match self {
            Self::New => new(runs).await,
            Self::Pair => pair(runs, other).await,
            Self::K6 => {
                let figure = other_build::by_k6(other, runs).map_err(failed)?;
                Ok(vec![figure])
            }
            Self::Open => open(runs).await,
            Self::Half => half(runs).await,
            Self::Exhausted => exhausted(runs).await,
            Self::Others => others(runs).await,
            Self::Saturated => {
                let runs = repeat(runs, &Plan { users: 500, ..Plan::of(Scenario::New) }).await?;
                Ok(vec![figure("AWS calls per allocation", AtMost(0.8), &runs, |run| run.calls_of(&[]))])
            }
            Self::Single => single(runs).await,
            Self::Pool => pool(runs).await,
            Self::Workers => workers(runs).await,
            Self::Races => {
                let runs = repeat(runs, &Plan { workers: 8, seconds: 5, ..Plan::of(Scenario::New) }).await?;
                Ok(vec![figure("lost claims per allocation", AtMost(0.05), &runs, |run| run.lost_races)])
            }
            Self::Hops => hops(runs).await,
            Self::Hot => hot(runs).await,
            Self::Limited => beside::limited(runs).await,
            Self::Heartbeats => beside::heartbeats(runs).await,
            Self::Refill => beside::refill(runs).await,
            Self::Rollout => beside::rollout(runs).await,
            Self::Arrivals => arrivals::served(runs).await,
            Self::Waiting => arrivals::many(runs).await,
            Self::Cost => cost(runs).await,
        }
    }
}

fn failed(why: String) -> Violation {
    eprintln!("{why}");
    Violation
}

async fn pair(runs: usize, other: &Path) -> Result<Vec<Figure>, Violation> {
    let plan = Plan::of(Scenario::New);
    let mut ratios = Ratios::default();
    for run in 1..=runs {
        let ours = plan.measure().await?;
        println!("  run {run}: {ours}");
        ratios.add(&ours, &other_build::measure(other, &plan).map_err(failed)?);
    }
    Ok(ratios.figures().to_vec())
}

async fn repeat(runs: usize, plan: &Plan) -> Result<Vec<Tally>, Violation> {
    let mut tallies = Vec::new();
    for run in 1..=runs {
        let tally = plan.measure().await?;
        println!("  run {run}: {tally}");
        tallies.push(tally);
    }
    Ok(tallies)
}

fn figure(
    what: &'static str,
    target: crate::figure::Target,
    runs: &[Tally],
    value: impl Fn(&Tally) -> f64,
) -> Figure {
    Figure::new(what, target, runs.iter().map(value).collect())
}

const fn p50(run: &Tally) -> f64 {
    run.latency[0]
}

const fn p99(run: &Tally) -> f64 {
    run.latency[2]
}

async fn new(runs: usize) -> Result<Vec<Figure>, Violation> {
    let plan = Plan::of(Scenario::New);
    let runs = repeat(runs, &plan).await?;
    let rate = figure("allocations/s", AtLeast(1_500.0), &runs, |run| run.per_second);
    // A claim is a call's share: the batch size is what one TransactWriteItems carried.
    let batch = Tally::median(&runs).map_or(1.0, |run| 1.0 / run.calls_of(&["TransactWriteItems"]));
    let mut shares = Vec::new();
    for run in &runs {
        let raw = raw_rate(plan.workers, batch.round().max(1.0) as usize, 20_000).await;
        println!("  raw: {raw:.0} claims/s by {} clients with {batch:.1} a call", plan.workers);
        shares.push(run.per_second / raw);
    }
    let share = Figure::new("part of the raw rate of the same claim transactions", AtLeast(0.5), shares);
    let shaped = Plan { shape: Shape::Aws, pool: Some(20_000), ..plan };
    let most = shaped.users as f64 * 1_000.0 / Shape::HOPS_MS;
    let aws = repeat(runs.len(), &shaped).await?;
    Ok(vec![
        rate,
        figure("p99, ms", AtMost(80.0), &runs, p99),
        share,
        figure("in AWS's shape: allocations/s, part of users ÷ hops", AtLeast(0.9), &aws, |run| {
            run.per_second / most
        }),
        figure("in AWS's shape: p99, times the hops", AtMost(3.0), &aws, |run| p99(run) / Shape::HOPS_MS),
    ])
}

/// At half of the rate that a closed loop reaches, in each shape.
async fn half(runs: usize) -> Result<Vec<Figure>, Violation> {
    let mut figures = Vec::new();
    let names = [
        ["part that was allocated", "p99, times the closed loop's"],
        ["in AWS's shape: part that was allocated", "in AWS's shape: p99, times the hops"],
    ];
    for (shape, [allocated, late]) in Shape::BOTH.into_iter().zip(names) {
        let closed = repeat(runs, &Plan { shape, pool: Some(60_000), ..Plan::of(Scenario::New) }).await?;
        let Some(closed) = Tally::median(&closed) else { continue };
        let rate = (closed.per_second / 2.0) as u64;
        let plan = Plan { rate, seconds: 60, shape, ..Plan::of(Scenario::Open) };
        let open = repeat(runs, &plan).await?;
        let (beside, most) = match shape {
            Shape::Loopback => (p99(closed), 1.2),
            Shape::Aws => (Shape::HOPS_MS, 3.0),
        };
        figures.push(figure(allocated, AtLeast(1.0), &open, |run| run.share_of(201)));
        figures.push(figure(late, AtMost(most), &open, |run| p99(run) / beside));
    }
    Ok(figures)
}

/// What a million allocations and their returns cost at AWS, of its list prices: SQS and DynamoDB.
async fn cost(runs: usize) -> Result<Vec<Figure>, Violation> {
    let mut figures = Vec::new();
    let names = ["allocations, $ a million", "returns, $ a million"];
    for (scenario, name) in [Scenario::New, Scenario::Returns].into_iter().zip(names) {
        let plan = Plan { users: 10, shape: Shape::Aws, pool: Some(20_000), ..Plan::of(scenario) };
        let runs = repeat(runs, &plan).await?;
        figures.push(figure(name, Stated, &runs, |run| prices::of(run) * 1e6));
    }
    Ok(figures)
}

async fn open(runs: usize) -> Result<Vec<Figure>, Violation> {
    let plan = Plan { rate: 1_000, seconds: 60, pool: Some(70_000), ..Plan::of(Scenario::Open) };
    let runs = repeat(runs, &plan).await?;
    let most = |run: &Tally, mib: fn(&crate::tally::Process) -> f64| {
        let own = run.processes.split_last().map_or(&[][..], |(_endpoints, own)| own);
        own.iter().map(mib).fold(0.0, f64::max)
    };
    Ok(vec![
        figure("part that was allocated", AtLeast(1.0), &runs, |run| run.share_of(201)),
        figure("p99, ms", AtMost(100.0), &runs, p99),
        figure("resident MiB of the largest process, after", AtMost(40.0), &runs, |run| {
            most(run, |process| process.mib)
        }),
        figure("resident MiB of the largest process, idle", AtMost(20.0), &runs, |run| {
            most(run, |process| process.idle_mib)
        }),
    ])
}

async fn exhausted(runs: usize) -> Result<Vec<Figure>, Violation> {
    let runs = repeat(runs, &Plan { users: 100, ..Plan::of(Scenario::Exhausted) }).await?;
    Ok(vec![
        figure("answers/s", AtLeast(3_000.0), &runs, |run| run.per_second),
        figure("p99, ms", AtMost(60.0), &runs, p99),
        figure("table calls per answer", AtMost(0.1), &runs, |run| run.calls_of(&TABLE)),
    ])
}

async fn others(runs: usize) -> Result<Vec<Figure>, Violation> {
    let beside = async |what, scenario, of| {
        let of = repeat(runs, &Plan::of(of)).await?;
        let of = Tally::median(&of).map_or(f64::NAN, |run| run.per_second);
        let these = repeat(runs, &Plan::of(scenario)).await?;
        Ok(figure(what, AtLeast(1.0), &these, |run| run.per_second / of))
    };
    Ok(vec![
        beside("repeats/s beside new allocations/s", Scenario::Repeats, Scenario::New).await?,
        // Returns come after as many allocations; what they are compared with, too.
        beside("returns/s beside new allocations/s after as many", Scenario::Returns, Scenario::Later)
            .await?,
    ])
}

async fn single(runs: usize) -> Result<Vec<Figure>, Violation> {
    let runs = repeat(runs, &Plan { users: 1, ..Plan::of(Scenario::New) }).await?;
    Ok(vec![
        figure("AWS calls per allocation", AtMost(7.0), &runs, |run| run.calls_of(&[])),
        figure("write units per allocation", AtMost(7.0), &runs, |run| run.units().1),
        figure("read units per allocation", AtMost(0.5), &runs, |run| run.units().0),
    ])
}

async fn pool(runs: usize) -> Result<Vec<Figure>, Violation> {
    let of = |pool| Plan { rate: 50, seconds: 10, pool: Some(pool), ..Plan::of(Scenario::Paced) };
    let small = repeat(runs, &of(1_000)).await?;
    let large = repeat(runs, &of(1_000_000)).await?;
    let beside = |what, value: fn(&Tally) -> f64| {
        let small = figure(what, Stated, &small, value).median();
        figure(what, AtMost(1.2), &large, |run| value(run) / small)
    };
    Ok(vec![
        beside("AWS calls, times as many", |run| run.calls_of(&[])),
        beside("capacity, times as much", |run| run.units().0 + run.units().1),
        beside("p99, times as long", p99),
    ])
}

async fn workers(runs: usize) -> Result<Vec<Figure>, Violation> {
    let of = |workers| Plan {
        workers,
        users: 100,
        vars: vec![("BROKER_WORKER_CONCURRENCY", "4")],
        hops: Some((5, 5)),
        pool: Some(20_000),
        ..Plan::of(Scenario::New)
    };
    let one = repeat(runs, &of(1)).await?;
    let one = figure("allocations/s of one worker", AtMost(300.0), &one, |run| run.per_second);
    let three = repeat(runs, &of(3)).await?;
    let scale =
        figure("three workers, times as many", AtLeast(2.5), &three, |run| run.per_second / one.median());
    Ok(vec![one, scale])
}

async fn hops(runs: usize) -> Result<Vec<Figure>, Violation> {
    // Send, receive, claim, send, receive.
    const HOPS_MS: f64 = 8.0 + 8.0 + 5.0 + 8.0 + 8.0;
    let runs = repeat(runs, &Plan { users: 1, hops: Some((8, 5)), ..Plan::of(Scenario::New) }).await?;
    Ok(vec![figure("p50, times the hops' 37 ms", AtMost(1.15), &runs, |run| p50(run) / HOPS_MS)])
}

async fn hot(runs: usize) -> Result<Vec<Figure>, Violation> {
    let of = |scenario| Plan {
        users: 10,
        rate: 300,
        hops: Some((8, 5)),
        pool: Some(20_000),
        ..Plan::of(scenario)
    };
    let without = repeat(runs, &of(Scenario::New)).await?;
    let without = figure("p50, ms, without it", Stated, &without, p50).median();
    let beside = repeat(runs, &of(Scenario::Hot)).await?;
    Ok(vec![
        figure("p50, times as long as without it", AtMost(1.5), &beside, |run| p50(run) / without),
        figure("p99, ms", AtMost(500.0), &beside, p99),
    ])
}
