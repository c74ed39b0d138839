//! `broker-load`: users against a whole broker, and a verdict on the sandboxes that they got.
//!
//! Starts the endpoints, the APIs and the workers as processes, fills a pool, runs a profile of k6, then runs
//! `broker pool verify` and compares the counts. It asserts what must be exact (who got which sandbox), never how fast. Exit
//! codes: 0 all as promised, 1 not.

mod judge;
mod k6;
mod metrics;
mod profile;
mod report;

use std::process::ExitCode;

use broker_tests::{Broker, Setup};
use clap::Parser;

use profile::{Plan, Profile};

/// Lets users loose on a broker and checks what they were given.
#[derive(Debug, Parser)]
struct Arguments {
    /// smoke: 10 users, 200 sandboxes; load: 100 users for a minute; stress: 100 users, 100 sandboxes; staged: 100, 500,
    /// 1,000 users and down again, in two and a half minutes; spike: 1,000 within a second, among 20; multi-student:
    /// 50 students in 5 labs, 3 requests each, 200 sandboxes
    profile: Profile,
    /// Go on for this long (k6 syntax, such as 30s) instead of the profile's rounds or stages
    #[arg(long)]
    duration: Option<String>,
    /// Mean seconds that a user thinks between two requests, if not the profile's
    #[arg(long)]
    think_time: Option<f64>,
    /// API processes
    #[arg(long, default_value_t = 2)]
    apis: usize,
    /// Worker processes
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Users at a time, where they are most, if not the profile's number
    #[arg(long)]
    users: Option<u64>,
    /// Rounds of each user, if not the profile's number
    #[arg(long)]
    rounds: Option<u64>,
    /// Sandboxes, if not the profile's number
    #[arg(long)]
    pool: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(missing) = k6::is_installed() {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    let plan = Plan::new(&arguments);
    println!("{plan}");

    let setup = Setup::new().apis(arguments.apis).workers(arguments.workers).pool(plan.pool as usize);
    let broker = Broker::start(setup).await;
    let run = k6::run(&broker, &plan).await;
    let (stats, verdict) = (broker.stats().await, broker.cli(&["pool", "verify", "--json"]).await);
    report::print(&run, &metrics::costs(&broker).await, &stats, &verdict);
    let faults = judge::faults(&plan, &run, &stats, &verdict);
    if faults.is_empty() {
        broker.finish().await;
        println!("\nAll as promised: counts, verify, empty queues, clean ends.");
        return ExitCode::SUCCESS;
    }
    println!();
    for fault in &faults {
        println!("FAULT {fault}");
    }
    broker.abandon();
    ExitCode::FAILURE
}
