//! Cost of each job at AWS in a pool of some size, beside a provider that lists as many.
//!
//! The first sync fills the pool; after it every job runs once and finds nothing to change: that is the cost of the schedule,
//! day and night. Capacity does not depend on the machine or the profile; the seconds do. The most memory that the worker had
//! so far tells whether it grows with the pool.

use std::collections::BTreeMap;
use std::process::ExitCode;

use broker_tests::cli::JobReport;
use broker_tests::{Broker, Provider};
use clap::Args;

use crate::metrics::{self, Costs};

/// Every job of the schedule.
const JOBS: [&str; 6] = ["sync", "expire", "cleanup", "purge-stale", "census", "sweep"];

/// How large the pool is.
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Sandboxes
    #[arg(long, default_value_t = 100_000)]
    pool: usize,
}

impl Jobs {
    /// Measures; fails if the pool is not as the provider says, or a promise is broken.
    pub(crate) async fn run(self) -> ExitCode {
        let provider = Provider::start_with(self.pool, &["--page-size", "1000"]).await;
        let broker = Broker::start(provider.setup().apis(1).workers(1)).await;
        println!(
            "| job, {} sandboxes | changed | capacity units | AWS calls | s | worker so far, MiB |",
            self.pool
        );
        println!("|---|---|---|---|---|---|");
        measure(&broker, "sync").await;
        for job in JOBS {
            measure(&broker, job).await;
        }
        let available = broker.stats().await.available;
        let verdict = broker.cli(&["pool", "verify"]).await;
        broker.finish().await;
        if verdict.code == 0 && available == self.pool as u64 {
            ExitCode::SUCCESS
        } else {
            println!("{available} available; pool verify: {}{}", verdict.stdout, verdict.stderr);
            ExitCode::FAILURE
        }
    }
}

/// Runs `job` once.
async fn measure(broker: &Broker, job: &str) {
    let before = metrics::costs(broker).await;
    let ran: JobReport = broker.cli_ok(&["job", "run", job, "--timeout-s", "1800", "--json"]).await.json();
    let after = metrics::costs(broker).await;
    let units = sum(&after, |costs| &costs.capacity) - sum(&before, |costs| &costs.capacity);
    let calls = sum(&after, |costs| &costs.calls) - sum(&before, |costs| &costs.calls);
    let seconds = ran.duration_ms as f64 / 1_000.0;
    let peak = broker.worker_process(0).peak_mib();
    println!("| {job} | {} | {units:.0} | {calls:.0} | {seconds:.1} | {peak:.1} |", ran.changed);
}

fn sum(costs: &Costs, of: impl Fn(&Costs) -> &BTreeMap<String, f64>) -> f64 {
    of(costs).values().sum()
}
