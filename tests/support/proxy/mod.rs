//! Fault proxy before the SQS and DynamoDB endpoints: it fails as networks and AWS do.
//!
//! ```text
//! broker-api, broker-worker ──▶ FaultProxy ──▶ endpoints        `broker …`, Queues, Table ──▶ endpoints (no faults)
//! ```
//! It understands `X-Amz-Target`, so that a fault can apply to one operation, or one queue. A [`Fault`] says what happens to a
//! call, a [`Rule`] to which calls; a whole service can be down ([`FaultProxy::outage`]); and every call can take as long as
//! on AWS ([`Latency`]), or behave as AWS ([`FaultProxy::behave_as_aws`]). Invariants: without rules it changes nothing; a seed repeats its choices for the same order of calls;
//! every call and every fault is counted by operation. Signatures are not checked.

mod faults;
mod latency;
mod outage;
mod rule;
mod serve;
mod tally;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use broker_local::aws_shape::Shaper;
use broker_runtime::clock::Clock;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::endpoint::Urls;

pub use broker_local::aws_shape::ShapedService;
pub use faults::Fault;
pub use latency::Latency;
pub use outage::{Away, Outage};
pub use rule::Rule;
pub use tally::{Tallies, Tally};

use outage::Outages;

/// A running proxy, controllable while it runs. Dropped, it is gone.
#[derive(Debug)]
pub struct FaultProxy {
    urls: Urls,
    control: Arc<Control>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the serving side looks at for every call.
#[derive(Debug)]
struct Control {
    state: Mutex<State>,
    outages: Outages,
    /// How AWS behaves beyond the faults, if it is to.
    shaper: OnceLock<Shaper>,
}

#[derive(Debug)]
struct State {
    rng: SmallRng,
    rules: Vec<Rule>,
    latency: Latency,
    tallies: Tallies,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something random, from the seeded source.
    fn draw<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.state().rng)
    }
}

impl FaultProxy {
    /// A proxy before the endpoints at `urls`, on a thread and ports of its own; it does nothing yet but pass on.
    ///
    /// # Panics
    ///
    /// When it cannot listen on the loopback interface.
    pub async fn start(urls: &Urls, seed: u64) -> Self {
        let control = Arc::new(Control {
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                rules: Vec::new(),
                latency: Latency::none(),
                tallies: Tallies::default(),
            }),
            outages: Outages::new(),
            shaper: OnceLock::new(),
        });
        let (listening, at) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (upstream, of_thread) = (urls.clone(), Arc::clone(&control));
        let thread = std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let (sqs, sqs_url) = listen().await;
                let (dynamodb, dynamodb_url) = listen().await;
                let _ = listening.send(Urls { dynamodb_url, sqs_url });
                tokio::select! {
                    () = serve::serve(sqs, ShapedService::Sqs, &upstream.sqs_url, Arc::clone(&of_thread)) => {}
                    () = serve::serve(dynamodb, ShapedService::DynamoDb, &upstream.dynamodb_url, of_thread) => {}
                    _ = ended => {}
                }
            });
            runtime.shutdown_background();
        });
        let urls = at.await.expect("the proxy listens");
        Self { urls, control, end: Some(end), thread: Some(thread.expect("a thread")) }
    }

    /// Where it stands in for SQS and DynamoDB.
    pub const fn urls(&self) -> &Urls {
        &self.urls
    }

    /// From now on every call is as it is on AWS ([`aws_shape`](broker_local::aws_shape)), also when it is [calm](Self::calm).
    pub fn behave_as_aws(&self, seed: u64) -> Shaper {
        self.control.shaper.get_or_init(|| Shaper::new(seed, Clock::system())).clone()
    }

    /// Adds a rule; the first that fits a call is carried out.
    pub fn add(&self, rule: Rule) {
        self.control.state().rules.push(rule);
    }

    /// Takes all rules away, and the latency; ends all outages.
    pub fn calm(&self) {
        let mut state = self.control.state();
        state.rules.clear();
        state.latency = Latency::none();
        drop(state);
        self.control.outages.end_all();
    }

    /// Every hop takes this long from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.control.state().latency = latency;
    }

    /// `service` is away until the guard is dropped.
    pub fn outage(&self, service: ShapedService, outage: Outage) -> Away {
        self.control.outages.begin(service, outage)
    }

    /// What was called and what was done to it, so far.
    pub fn tallies(&self) -> Tallies {
        self.control.state().tallies.clone()
    }

    /// How often `fault` was done to calls of `operation`.
    pub fn done(&self, operation: &str, fault: Fault) -> u64 {
        self.control.state().tallies.done(operation, fault)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// What happens to a call: the first rule that fits decides, once per call.
    fn decide(&mut self, operation: &str, body: &[u8]) -> Option<Fault> {
        let Self { rng, rules, .. } = self;
        let rule =
            rules.iter_mut().find(|rule| rule.fits(operation, body) && rng.random_bool(rule.odds()))?;
        Some(rule.spend())
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, format!("http://{address}"))
}
