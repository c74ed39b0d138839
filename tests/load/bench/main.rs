//! `broker-bench`: how fast the broker is, and what it costs at AWS.
//!
//! Starts endpoints, APIs and workers as processes and lets light users of its own loose on them (a connection each, no
//! scripting), several times. Prints each run, then the medians; ends with `broker pool verify`. It measures; what must
//! be exact is `broker-load`'s and the stories' affair.

mod scenario;
mod tally;
mod user;

#[path = "../metrics.rs"]
mod metrics;

use std::process::ExitCode;
use std::time::Duration;

use broker_tests::{Broker, Setup};
use clap::Parser;

use scenario::Scenario;
use tally::Tally;

/// Measures one scenario.
#[derive(Debug, Parser)]
struct Arguments {
    /// new: allocations, pool never empty; exhausted: as many sandboxes as users, then none; repeats: the same key again;
    /// returns: allocate beforehand, then give back; open: constant arrival at --rate
    scenario: Scenario,
    /// Users at a time, each waiting for its answer before it asks again
    #[arg(long, default_value_t = 50)]
    users: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests per second of `open`
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Sandboxes; by default enough for the scenario
    #[arg(long)]
    pool: Option<usize>,
    /// API processes
    #[arg(long, default_value_t = 1)]
    apis: usize,
    /// Worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Runs, each on a broker of its own
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut tallies = Vec::new();
    for run in 1..=arguments.runs {
        let Some(tally) = measure(&arguments).await else { return ExitCode::FAILURE };
        println!("run {run}: {tally}");
        tallies.push(tally);
    }
    println!("median of {}: {}", arguments.runs, Tally::median(&tallies));
    ExitCode::SUCCESS
}

/// One run on a broker of its own; `None` when `pool verify` found something.
async fn measure(arguments: &Arguments) -> Option<Tally> {
    let pool = arguments
        .pool
        .unwrap_or_else(|| arguments.scenario.pool(arguments.users, arguments.rate, arguments.seconds));
    let setup = Setup::new().apis(arguments.apis).workers(arguments.workers).pool(pool);
    let broker = Broker::start(setup).await;
    let before = (metrics::costs(&broker).await, broker.resources().await);
    let duration = Duration::from_secs(arguments.seconds);
    let samples = scenario::run(&broker, arguments.scenario, arguments.users, arguments.rate, duration).await;
    let after = (metrics::costs(&broker).await, broker.resources().await);
    let tally = Tally::new(&samples, &before, &after);
    let verdict = broker.cli(&["pool", "verify"]).await;
    broker.finish().await;
    if verdict.code != 0 {
        println!("pool verify: {}{}", verdict.stdout, verdict.stderr);
        return None;
    }
    Some(tally)
}
