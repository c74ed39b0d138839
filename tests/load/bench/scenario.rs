//! Scenarios: what the users do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_tests::Broker;
use clap::ValueEnum;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::user::{Sample, User};

/// Allocations per second that no run of a scenario is expected to pass: it sizes the pool.
const MOST_PER_SECOND: usize = 6_000;

/// Sandboxes that stay free while keys are repeated: the pool is not empty.
const REPEATS_LEAVE: usize = 1_000;

/// The measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Allocations, each for a new track, from a pool that never gets empty.
    New,
    /// As many sandboxes as users, then none: the answers of an empty pool.
    Exhausted,
    /// Each user asks for its own key again.
    Repeats,
    /// Each user gives back what it holds, one sandbox after the other.
    Returns,
    /// New allocations, after as many as returns need before them: on a table with the same past.
    Later,
    /// New allocations at a constant rate, however many wait.
    Open,
    /// New allocations at a constant rate, one at a time.
    Paced,
    /// New allocations, beside one key that is repeated at a constant rate, of which no answer is counted.
    Hot,
}

impl Scenario {
    /// The sandboxes that it needs.
    pub(crate) fn pool(self, users: usize, rate: u64, seconds: u64) -> usize {
        let seconds = seconds as usize;
        match self {
            Self::New | Self::Returns | Self::Hot => MOST_PER_SECOND * seconds,
            Self::Later => 2 * MOST_PER_SECOND * seconds,
            Self::Exhausted => users,
            Self::Repeats => users + REPEATS_LEAVE,
            Self::Open | Self::Paced => (rate as usize * seconds) * 7 / 6,
        }
    }
}

/// The users of one run, and what they hold.
pub(crate) struct Play {
    scenario: Scenario,
    addresses: Vec<String>,
    users: usize,
    next: Arc<AtomicU64>,
    /// Path and track of each return to come.
    held: Vec<(String, String)>,
}

impl Play {
    /// Does what comes before the measurement.
    pub(crate) async fn prepare(
        broker: &Broker,
        scenario: Scenario,
        users: usize,
        duration: Duration,
    ) -> Self {
        let addresses: Vec<String> = broker.addresses().into_iter().map(str::to_owned).collect();
        let mut play = Self { scenario, addresses, users, next: Arc::default(), held: Vec::new() };
        match scenario {
            Scenario::New | Scenario::Open | Scenario::Paced | Scenario::Hot => {}
            Scenario::Exhausted | Scenario::Repeats => {
                closed(&play.addresses, users, Duration::ZERO, |user| allocation(format!("holder-{user}")))
                    .await;
            }
            Scenario::Returns | Scenario::Later => {
                play.held = hold(&play.addresses, users, &play.next, duration).await
            }
        }
        play
    }

    /// What is measured: every answer in its time window.
    pub(crate) async fn run(self, rate: u64, duration: Duration) -> Vec<Sample> {
        let Self { scenario, addresses, users, next, held } = self;
        match scenario {
            Scenario::Open => open(&addresses, rate, duration, |number| format!("track-{number}")).await,
            Scenario::Hot => {
                let flood = open(&addresses, rate, duration, |_| "hot".to_owned());
                let users = closed(&addresses, users, duration, move |_| allocation(fresh(&next)));
                tokio::join!(flood, users).1
            }
            Scenario::Paced => paced(&addresses[0], rate, duration).await,
            Scenario::New | Scenario::Later | Scenario::Exhausted => {
                closed(&addresses, users, duration, move |_| allocation(fresh(&next))).await
            }
            Scenario::Repeats => {
                closed(&addresses, users, duration, |user| allocation(format!("holder-{user}"))).await
            }
            Scenario::Returns => {
                let held = Arc::new(std::sync::Mutex::new(held));
                closed(&addresses, users, duration, move |_| held.lock().expect("no user panics").pop()).await
            }
        }
    }
}

/// New allocations by `users` in a loop.
pub(crate) async fn claims(
    addresses: &[String],
    users: usize,
    duration: Duration,
    next: &Arc<AtomicU64>,
) -> Vec<Sample> {
    let next = Arc::clone(next);
    closed(addresses, users, duration, move |_| allocation(fresh(&next))).await
}

fn fresh(next: &AtomicU64) -> String {
    format!("track-{}", next.fetch_add(1, Ordering::Relaxed))
}

/// Path and track of an allocate.
#[expect(clippy::unnecessary_wraps, reason = "what a user does next may be nothing")]
fn allocation(track: String) -> Option<(String, String)> {
    Some(("/v1/allocate".to_owned(), track))
}

/// Every user in a loop: the next request follows the answer. At least one request each.
async fn closed<F>(addresses: &[String], users: usize, duration: Duration, next: F) -> Vec<Sample>
where
    F: Fn(usize) -> Option<(String, String)> + Clone + Send + 'static,
{
    let mut running = JoinSet::new();
    for number in 0..users {
        let (address, next) = (addresses[number % addresses.len()].clone(), next.clone());
        running.spawn(async move {
            let mut user = User::connect(&address).await;
            let until = Instant::now() + duration;
            let mut samples = Vec::new();
            while let Some((path, track)) = next(number) {
                samples.push(user.post(&path, &track, Instant::now()).await);
                if Instant::now() >= until {
                    break;
                }
            }
            samples
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

/// Allocates for a while; path and track of each return.
async fn hold(
    addresses: &[String],
    users: usize,
    next: &Arc<AtomicU64>,
    duration: Duration,
) -> Vec<(String, String)> {
    let asked = Arc::clone(next);
    let samples = closed(addresses, users, duration, move |_| allocation(fresh(&asked))).await;
    let answers = samples.iter().filter(|sample| sample.status == 201);
    let held = answers.filter_map(|sample| {
        let body: serde_json::Value = serde_json::from_slice(&sample.body).ok()?;
        let sandbox = body["sandbox_id"].as_str()?;
        Some((format!("/v1/sandboxes/{sandbox}/mark-for-deletion"), sample.track.clone()))
    });
    held.collect()
}

/// A request every 1/rate s, on whichever connection is free; a late response delays no other request.
async fn open(
    addresses: &[String],
    rate: u64,
    duration: Duration,
    track: impl Fn(u64) -> String,
) -> Vec<Sample> {
    let (free, mut idle) = mpsc::unbounded_channel();
    let mut running = JoinSet::new();
    let began = Instant::now();
    let total = rate * duration.as_secs();
    for number in 0..total {
        let due = began + Duration::from_nanos(1_000_000_000 * number / rate);
        sleep_until(due).await;
        let address = addresses[number as usize % addresses.len()].clone();
        let user = idle.try_recv().ok();
        let (free, track) = (free.clone(), track(number));
        running.spawn(async move {
            let mut user = match user {
                Some(user) => user,
                None => User::connect(&address).await,
            };
            let sample = user.post("/v1/allocate", &track, due).await;
            let _ = free.send(user);
            sample
        });
    }
    running.join_all().await
}

/// A request every 1/rate s on one connection, which waits for a late answer.
async fn paced(address: &str, rate: u64, duration: Duration) -> Vec<Sample> {
    let mut user = User::connect(address).await;
    let began = Instant::now();
    let mut samples = Vec::new();
    for number in 0..rate * duration.as_secs() {
        sleep_until(began + Duration::from_nanos(1_000_000_000 * number / rate)).await;
        samples.push(user.post("/v1/allocate", &format!("track-{number}"), Instant::now()).await);
    }
    samples
}
