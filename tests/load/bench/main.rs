//! `broker-bench`: speed of the broker, and its cost at AWS.
//!
//! Starts endpoints, APIs and workers as processes and runs light users of its own on them (a connection each, no scripting),
//! several times. `run` prints each run of one scenario, then the median; `results` measures the rows of RESULTS.md, each
//! against its target; `jobs` measures the cost of the schedule, `sync` the memory of a
//! worker over two long lists. Every run ends with `broker pool verify`. Exact results are
//! asserted by `broker-load` and the stories.

mod arrivals;
mod beside;
mod claims;
mod figure;
mod instructions;
mod jobs;
mod memory;
mod other_build;
mod plan;
mod prices;
mod results;
mod rows;
mod scenario;
mod shape;
mod silence;
mod sync;
mod tally;
mod tenants;
mod user;

#[path = "../metrics.rs"]
mod metrics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use instructions::Instructions;
use jobs::Jobs;
use memory::Memory;
use other_build::Ratios;
use plan::Plan;
use results::Results;
use scenario::Scenario;
use shape::Shape;
use silence::Silence;
use sync::Sync;
use tally::Tally;
use tenants::Tenants;

/// Measures how fast the broker is, and what it costs.
#[derive(Debug, Parser)]
enum Command {
    /// One scenario
    Run(Run),
    /// The rows of tests/load/RESULTS.md, each against its target
    Results(Results),
    /// What a run of each job costs at AWS, in a large pool
    Jobs(Jobs),
    /// Memory of a worker over a sync of two long lists
    Sync(Sync),
    /// Probes of liveness while AWS answers nothing
    Silence(Silence),
    /// Memory of an API whose every connection asks for much and reads nothing
    Memory(Memory),
    /// What one tenant that sends thousands costs another
    Tenants(Tenants),
    /// Instructions of one allocation, counted by callgrind, against those that are written
    Instructions(Instructions),
}

#[derive(Debug, Args)]
struct Run {
    /// new: allocations, pool never empty; exhausted: as many sandboxes as users, then none; repeats: the same key again;
    /// returns: allocate beforehand, then give back; open: constant arrival at --rate; paced: one at a time, at --rate;
    /// hot: new, beside one key that is repeated at --rate
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
    /// Between the processes and the endpoints
    #[arg(long, value_enum, default_value_t)]
    shape: Shape,
    /// The `broker-bench` of another build: each run is followed by one of it with the same users, and the ratios are printed.
    /// Its other binaries lie beside it
    #[arg(long, value_name = "BROKER_BENCH")]
    pair: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Command::parse() {
        Command::Run(arguments) => run(&arguments).await,
        Command::Results(results) => results.run().await,
        Command::Jobs(jobs) => jobs.run().await,
        Command::Sync(sync) => sync.run().await,
        Command::Silence(silence) => silence.run().await,
        Command::Memory(memory) => memory.run().await,
        Command::Tenants(tenants) => tenants.run().await,
        Command::Instructions(instructions) => instructions.run().await,
    }
}

async fn run(arguments: &Run) -> ExitCode {
    let plan = Plan {
        users: arguments.users,
        seconds: arguments.seconds,
        rate: arguments.rate,
        pool: arguments.pool,
        apis: arguments.apis,
        workers: arguments.workers,
        shape: arguments.shape,
        ..Plan::of(arguments.scenario)
    };
    let (mut tallies, mut ratios) = (Vec::new(), Ratios::default());
    for run in 1..=arguments.runs {
        let Ok(tally) = plan.measure().await else { return ExitCode::FAILURE };
        println!("run {run}: {tally}");
        if let Some(other) = &arguments.pair {
            match other_build::measure(other, &plan) {
                Ok(theirs) => ratios.add(&tally, &theirs),
                Err(why) => {
                    eprintln!("{}: {why}", other.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        tallies.push(tally);
    }
    print!("{ratios}");
    if let Some(median) = Tally::median(&tallies) {
        println!("median of {}: {median}", arguments.runs);
    }
    ExitCode::SUCCESS
}
