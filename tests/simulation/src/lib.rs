//! Simulation of a week: real workers on the embedded endpoints, against the stand-in, with a clock that is moved by hand.
//! Students come and go, the provider has faults, workers die, an operator deletes in bulk and accepts implausible lists; in
//! the end every sandbox is accounted for.
//!
//! The short one runs with all tests. The whole week takes minutes:
//! `cargo run -p broker-simulation -- week`.
//!
//! A killed worker is its runtime, shut down in the middle of its work. The crash stories of `tests/crash` kill processes;
//! this one adds time.

mod class;
mod faults;
mod final_check;
mod operator;
mod plans;
mod students;

pub use class::class_at_nine;
pub use plans::plan_every_minute;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use broker_domain::{Grant, Timestamp};
use broker_queue::{QueueKind, QueueNames, QueueUrls, Sender, topology};
use broker_runtime::aws::{self, Aws};
use broker_runtime::clock::Clock;
use broker_runtime::config::Config;
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::metrics;
use broker_runtime::process::Process;
use broker_store::{Store, schema};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::faults::{Fault, FaultOrder};
use self::students::Student;
use broker_local::endpoints;
use broker_local::provider::{Faults, StandIn, StandInOptions};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// How far the clock moves at a time.
const STEP: Duration = Duration::from_secs(10 * 60);
const ACCOUNTS: usize = 60;
const REGROWS_AFTER: Duration = Duration::from_secs(30 * 60);
const WORKERS: usize = 3;
const TOKEN: &str = "stand-in";
/// Between two looks whether everything has settled.
const BEAT: Duration = Duration::from_millis(20);
/// How far the clock goes on in a beat of the week. What has a slot waits on the clock, SQS and its timeouts do not.
const HASTE: Duration = Duration::from_millis(100);
/// Polls of any condition before the test fails: a minute at least. Polls, not seconds, because a busy or stopped machine
/// delays the workers as much as the test.
const PATIENCE: usize = 3_000;

/// A simulated stretch of time and all that lives in it.
#[derive(Debug)]
pub struct Week {
    process: Process,
    store: Store,
    requests: Sender,
    urls: QueueUrls,
    endpoints: (String, String),
    stand_in: StandIn,
    /// How far the clock moves between two polls.
    beat: Duration,
    workers: Vec<tokio::runtime::Runtime>,
    students: Vec<Student>,
    held: Vec<Grant>,
    figures: BTreeMap<&'static str, u64>,
    fault: Fault,
    fault_order: FaultOrder,
}

impl Week {
    /// Lives through `hours`, with choices drawn from `seed`, and panics if anything is left unaccounted for.
    pub async fn live(hours: u32, seed: u64) {
        Self::live_with(hours, seed, FaultOrder::Drawn).await;
    }

    /// Six hours in which the provider has each of its faults, one after the other.
    pub async fn meet_every_fault(seed: u64) {
        Self::live_with(6, seed, FaultOrder::InTurn).await;
    }

    async fn live_with(hours: u32, seed: u64, order: FaultOrder) {
        let stop = CancellationToken::new();
        let mut week = Self::begin(seed, stop.clone()).await;
        week.fault_order = order;
        for _ in 0..hours * 6 {
            week.students_come_and_go().await;
            week.the_provider_has_faults();
            week.workers_die();
            week.the_operator_acts().await;
            let before = week.blame().await;
            week.pass(STEP).await;
            week.no_sandbox_is_blamed_for_a_fault(before).await;
        }
        // Everybody leaves; the provider is itself again; a day for what was given up.
        week.stand_in.world.misbehave(Faults::default());
        week.restart_workers();
        for _ in 0..40 {
            week.pass(HOUR).await;
        }
        week.everything_is_accounted_for().await;
        week.tell(hours);
        for worker in week.workers.drain(..) {
            worker.shutdown_background();
        }
        stop.cancel();
    }

    async fn begin(seed: u64, stop: CancellationToken) -> Self {
        // Little time is to pass while a plan is carried out.
        Self::begin_with(seed, &[("BROKER_PROVIDER_RATE", "100")], (ACCOUNTS, REGROWS_AFTER), stop).await
    }

    /// One with more settings, and so many accounts, each of which is replaced so long after it was deleted.
    async fn begin_with(
        seed: u64,
        more: &[(&'static str, &str)],
        (accounts, regrows_after): (usize, Duration),
        stop: CancellationToken,
    ) -> Self {
        let options = endpoints::EndpointOptions {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            dynamodb_port: 0,
            sqs_port: 0,
            data_dir: None,
            clock: Clock::system(),
        };
        let endpoints = endpoints::start(options, stop.clone()).await.unwrap();
        let now = Clock::system().now();
        let clock = Clock::manual(now);
        // AWS's clock is not this one: it is said to be right, and never compared again.
        clock.observe(now, now, now);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = StandInOptions { accounts, page_size: 25, regrow_after: Some(regrows_after) };
        let stand_in = StandIn::new(address, TOKEN, options, clock.clone());
        tokio::spawn(stand_in.clone().serve(listener, stop));
        let settings = [
            ("BROKER_TABLE", "week"),
            ("BROKER_PREFIX", "week"),
            ("BROKER_LOCAL", "true"),
            ("BROKER_PROVIDER_URL", &stand_in.base),
            ("BROKER_PROVIDER_TOKEN", TOKEN),
            ("BROKER_PROVIDER_TIMEOUT_S", "2"),
            ("BROKER_POLL_WAIT_S", "1"),
            ("BROKER_VISIBILITY_S", "2"),
            // So that the ticks are checked soon after the clock has moved.
            ("BROKER_CENSUS_EVERY_S", "1"),
        ];
        let settings: BTreeMap<_, _> = settings
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let config = Config::read(&settings).unwrap();
        let wall = Clock::system();
        let aws = aws::connect_locally(&endpoints.dynamodb_url, &endpoints.sqs_url, &wall, config.poll_wait);
        schema::ensure(&aws.dynamodb, &config.table).await.unwrap();
        let names = QueueNames::new(&config.prefix).unwrap();
        topology::ensure(&aws, &names, config.visibility).await.unwrap();
        let urls = QueueUrls::resolve(&aws, &names).await.unwrap();
        let urls_of = (endpoints.dynamodb_url.clone(), endpoints.sqs_url.clone());
        Self::with(config, clock, Entropy::seeded(seed), aws, urls, urls_of, stand_in)
    }

    fn with(
        config: Config,
        clock: Clock,
        entropy: Entropy,
        aws: Aws,
        urls: QueueUrls,
        endpoints: (String, String),
        stand_in: StandIn,
    ) -> Self {
        // The two weeks may run in one process, which has one recorder.
        static METRICS: std::sync::OnceLock<metrics::Handle> = std::sync::OnceLock::new();
        let metrics = METRICS.get_or_init(|| metrics::install().unwrap()).clone();
        let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
        let requests = Sender::new(aws.sqs.clone(), urls.get(QueueKind::Requests), 4);
        let lifecycle = Lifecycle::new();
        let process = Process { config: Arc::new(config), clock, entropy, aws, lifecycle, metrics };
        let mut week = Self {
            process,
            store,
            requests,
            urls,
            endpoints,
            stand_in,
            beat: HASTE,
            workers: Vec::new(),
            students: Vec::new(),
            held: Vec::new(),
            figures: BTreeMap::new(),
            fault: Fault::default(),
            fault_order: FaultOrder::Drawn,
        };
        (0..WORKERS).for_each(|_| week.start_worker());
        week
    }

    fn now(&self) -> Timestamp {
        self.process.clock.now()
    }

    fn count(&mut self, figure: &'static str) {
        *self.figures.entry(figure).or_default() += 1;
    }

    fn chance(&self, percent: usize) -> bool {
        self.process.entropy.below(100) < percent
    }

    fn start_worker(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut process = self.process.clone();
        process.lifecycle = Lifecycle::new();
        let (dynamodb, sqs) = self.endpoints.clone();
        runtime.spawn(async move {
            // Connections of its own, which die with it.
            process.aws = aws::connect_locally(&dynamodb, &sqs, &Clock::system(), process.config.poll_wait);
            if let Err(error) = broker_worker::run(process, None).await {
                panic!("a worker ended: {error:#}");
            }
        });
        self.workers.push(runtime);
    }

    fn workers_die(&mut self) {
        if self.chance(10) {
            let victim = self.process.entropy.below(self.workers.len());
            self.workers.remove(victim).shutdown_background();
            self.count("workers killed");
            self.start_worker();
        }
    }

    fn restart_workers(&mut self) {
        for worker in self.workers.drain(..) {
            worker.shutdown_background();
        }
        (0..WORKERS).for_each(|_| self.start_worker());
    }

    /// Moves the clock, and waits until the jobs have seen it and nothing is under way.
    async fn pass(&mut self, time: Duration) {
        self.process.clock.set(self.now().plus(time));
        self.settle(self.now()).await;
        self.count("steps");
    }

    /// Waits until the pool was counted after `moved` and nothing is under way.
    async fn settle(&self, moved: Timestamp) {
        self.until("settled", async || {
            let census = self.store.census.get().await.unwrap();
            let depths = topology::depths(&self.process.aws, &self.urls).await.unwrap();
            let left: u64 = depths.iter().take(2).map(|d| d.visible + d.in_flight + d.delayed).sum();
            if left == 0 && census.as_ref().is_some_and(|census| census.as_of >= moved) {
                Ok(())
            } else {
                Err(format!("{census:?} {depths:?}"))
            }
        })
        .await;
    }

    /// Polls until `look` returns a value. SQS's clock goes on meanwhile, and this one with it.
    async fn until(&self, what: &str, look: impl AsyncFn() -> Result<(), String>) {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match look().await {
                Ok(()) => return,
                Err(state) => last = state,
            }
            tokio::time::sleep(BEAT).await;
            self.process.clock.set(self.now().plus(self.beat));
        }
        panic!("not {what}: {last}");
    }
}
