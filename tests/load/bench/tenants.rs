//! Fairness between tenants: the latency of one while another sends thousands of requests.
//!
//! The other one allocates at a steady pace, first alone, then while the greedy one sends `respond-async`, many more than it
//! may. The bound is three times the quiet p99.

use std::process::ExitCode;
use std::time::Duration;

use broker_tests::{Broker, Call, Setup, together};
use clap::Args;
use tokio::time::{Instant, interval};

const GREEDY: &str = "tok-greedy-0123456789";
const OTHER: &str = "tok-other-01234567890";
/// Between two requests of the other tenant.
const EVERY: Duration = Duration::from_millis(25);
/// Requests of the greedy tenant at a time.
const AT_ONCE: usize = 100;
/// What the other's p99 may become.
const BOUND: f64 = 3.0;

/// How greedy, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Tenants {
    /// Requests of the greedy tenant
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Of them in a second, as far as they are answered so fast
    #[arg(long, default_value_t = 1_250)]
    rate: u64,
    /// Seconds of quiet before
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

impl Tenants {
    /// Measures; fails if the other's p99 is more than three times its quiet one.
    pub(crate) async fn run(self) -> ExitCode {
        let tokens = format!("greedy={GREEDY},other={OTHER}");
        // What the greedy one may get, and the other one needs.
        let pool = self.requests + 4_000;
        let setup = Setup::new().alone().workers(2).pool(pool).var("BROKER_TRACK_TOKENS", &tokens);
        let broker = Broker::start(setup).await;
        let for_so_long = Instant::now() + Duration::from_secs(self.seconds);
        let quiet = other(&broker, "quiet", || Instant::now() < for_so_long).await;

        let rounds = self.requests.div_ceil(AT_ONCE);
        let calls: Vec<Vec<Call>> = (0..rounds)
            .map(|round| {
                let one = |n| broker.allocate(&format!("greedy-{round}-{n}")).token(GREEDY).respond_async();
                (0..AT_ONCE).map(one).collect()
            })
            .collect();
        let between = (AT_ONCE as u64 * 1_000 / self.rate.max(1)).max(1);
        let mut pace = interval(Duration::from_millis(between));
        let greedy = tokio::spawn(async move {
            let mut statuses = Vec::new();
            for round in calls {
                pace.tick().await;
                let answers = together(round.into_iter().map(Call::send)).await;
                statuses.extend(answers.into_iter().map(|answer| answer.status));
            }
            statuses
        });
        let beside = other(&broker, "beside", || !greedy.is_finished()).await;
        let statuses = greedy.await.expect("no call panics");
        broker.finish().await;

        let count = |status| statuses.iter().filter(|told| **told == status).count();
        let sent = statuses.len();
        println!("greedy: {sent} requests, {} accepted, {} told to slow down", count(202), count(429));
        let (before, after) = (p99_ms(quiet), p99_ms(beside));
        let ratio = after / before.max(0.001);
        println!(
            "other: p99 {before:.1} ms alone, {after:.1} ms beside it: {ratio:.1} times (at most {BOUND})"
        );
        if ratio <= BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// How long each allocation of the other tenant took, which was given all of them.
async fn other(broker: &Broker, name: &str, mut goes_on: impl FnMut() -> bool) -> Vec<Duration> {
    let (mut took, mut pace) = (Vec::new(), interval(EVERY));
    while goes_on() {
        pace.tick().await;
        let asked = Instant::now();
        let call = broker.allocate(&format!("{name}-{}", took.len())).token(OTHER);
        call.send().await.expect_status(201);
        took.push(asked.elapsed());
    }
    took
}

fn p99_ms(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    let at = took.len().saturating_sub(1) * 99 / 100;
    took.get(at).copied().unwrap_or_default().as_secs_f64() * 1_000.0
}
