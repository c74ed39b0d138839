//! Latency of liveness probes while AWS accepts connections and never answers, and every caller waits for it.
//!
//! The bound is that of `/healthz`: 50 ms. That a probe waits for nothing that AWS holds is a story of `tests/crash`.

use std::process::ExitCode;
use std::time::Duration;

use broker_tests::{Api, Broker, Outage, Setup, ShapedService, together};
use clap::Args;
use tokio::time::{Instant, interval};

const STUDENTS: usize = 20;
/// Between two probes of each process.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// The bound of `/healthz`. One probe in a thousand may exceed it because of the machine.
const BOUND: Duration = Duration::from_millis(50);

/// The duration of the silence.
#[derive(Debug, Args)]
pub(crate) struct Silence {
    /// Seconds of it
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

impl Silence {
    /// Measures; fails if more than one probe in a thousand takes longer than the bound.
    pub(crate) async fn run(self) -> ExitCode {
        let setup = Setup::new().alone().workers(2).pool(30).faults(1).var("BROKER_VISIBILITY_S", "2");
        let broker = Broker::start(setup).await;
        let table = broker.proxy().outage(ShapedService::DynamoDb, Outage::Silent);
        let calls = (0..STUDENTS).map(|n| broker.allocate(&format!("student-{n}")).wait(45).send());
        let calls = tokio::spawn(together(calls.collect::<Vec<_>>()));
        broker.queues().holds_requests(STUDENTS as u64).await;
        let queues = broker.proxy().outage(ShapedService::Sqs, Outage::Silent);
        let mut probes = probe(&broker, Duration::from_secs(self.seconds)).await;
        drop((table, queues));
        let answers = calls.await.expect("no call panics");
        broker.finish().await;

        probes.sort_unstable();
        let at = |part: usize| probes[(probes.len() - 1) * part / 1_000];
        let late = probes.iter().filter(|took| **took > BOUND).count();
        println!(
            "{} probes: median {:?}, 99.9 % {:?}, longest {:?}, {late} over {BOUND:?}",
            probes.len(),
            at(500),
            at(999),
            at(1_000)
        );
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        println!("callers of that time were answered {statuses:?}");
        if at(999) <= BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// How long each probe of each process took.
async fn probe(broker: &Broker, for_so_long: Duration) -> Vec<Duration> {
    let worker = |index: usize| broker.worker(index).metrics().clone();
    let processes: [Api; 4] = [broker.api(0).clone(), broker.api(1).clone(), worker(0), worker(1)];
    let (until, mut pace) = (Instant::now() + for_so_long, interval(PROBE_EVERY));
    let mut probes = Vec::new();
    while Instant::now() < until {
        pace.tick().await;
        for process in &processes {
            let asked = Instant::now();
            let status = process.probe("/healthz").await.map(|(status, _)| status);
            assert_eq!(status, Some(200), "{} is alive", process.address());
            probes.push(asked.elapsed());
        }
    }
    probes
}
