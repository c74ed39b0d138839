//! Broker of a story: a table and queues on the shared endpoints, APIs and workers as processes.

use std::ops::Deref;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_local::aws_shape::credentials;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::api::{ADMIN_TOKEN, Api, Call, TRACK_TOKEN};
use crate::binaries::binaries;
use crate::endpoint::{self, Endpoints};
use crate::process::Process;
use crate::proxy::FaultProxy;
use crate::setup::{Environment, Setup};
use crate::wait::wait_for_condition;
use crate::warden;

/// A worker process.
#[derive(Debug)]
pub struct Worker {
    pub(crate) process: Process,
    metrics: Api,
}

impl Worker {
    /// Stops it in the middle of whatever it does (SIGSTOP), with what it received in its hands.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// The process itself.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends it any signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The port with its probes and metrics.
    pub const fn metrics(&self) -> &Api {
        &self.metrics
    }
}

/// An API process.
#[derive(Debug)]
pub(crate) struct ApiServer {
    pub(crate) process: Process,
    pub(crate) api: Api,
}

/// A running broker. Every test ends it by [`Broker::finish`]; [`story`] does it for you.
#[derive(Debug)]
pub struct Broker {
    environment: Environment,
    pub(crate) apis: Vec<ApiServer>,
    pub(crate) workers: Vec<Worker>,
    next: AtomicUsize,
    pub(crate) proxy: Option<FaultProxy>,
    /// Where killed APIs would have found their replies; their queues are left to the sweep.
    orphans: Vec<String>,
    pub(crate) finished: bool,
    /// Of its own, if it has any; they end after everything else.
    pub(crate) endpoints: Option<Endpoints>,
}

impl Broker {
    /// Makes table and queues, fills the pool, starts the processes and waits until each is ready.
    pub async fn start(setup: Setup) -> Self {
        let endpoints = if setup.alone { Some(Endpoints::start().await) } else { None };
        let urls = match &endpoints {
            Some(own) => &own.urls,
            None => &Endpoints::shared().await.urls,
        };
        let seed = setup.faults.or_else(|| setup.aws.then_some(1));
        let proxy = match seed {
            Some(seed) => Some(FaultProxy::start(urls, seed).await),
            None => None,
        };
        let process_urls = proxy.as_ref().map_or(urls, FaultProxy::urls);
        let mut environment = Environment::new(urls, process_urls, setup.vars);
        if let (Some(proxy), true) = (&proxy, setup.aws) {
            environment = environment.shaped(proxy.behave_as_aws(1), slow_credentials().await);
        }
        let mut broker = Self {
            environment,
            apis: Vec::new(),
            workers: Vec::new(),
            next: AtomicUsize::new(0),
            proxy,
            orphans: Vec::new(),
            finished: false,
            endpoints,
        };
        broker.cli_ok(&["init"]).await;
        if setup.pool > 0 {
            broker.seed(setup.pool).await;
        }
        for _ in 0..setup.apis {
            broker.start_api().await;
        }
        for _ in 0..setup.workers {
            broker.start_worker().await;
        }
        broker
    }

    /// Adds `count` sandboxes to an empty pool.
    pub async fn seed(&self, count: usize) {
        self.cli_ok(&["pool", "seed", "--count", &count.to_string()]).await;
    }

    /// Starts one more API and waits until it is ready.
    pub async fn start_api(&mut self) {
        self.start_api_with(&[]).await;
    }

    /// [`Broker::start_api`] with more environment variables.
    pub async fn start_api_with(&mut self, vars: &[(&str, &str)]) {
        let mut process = Process::start("broker-api", self.api_command().envs(vars.iter().copied()));
        let api = Api::new(&process.listening("api listening").await);
        ready(process.name(), &api).await;
        self.apis.push(ApiServer { process, api });
    }

    /// Starts one more worker and waits until it is ready.
    pub async fn start_worker(&mut self) {
        self.launch_worker(&[]).await;
        let worker = &self.workers[self.workers.len() - 1];
        ready(worker.process.name(), &worker.metrics).await;
    }

    /// Starts one more worker, with more environment variables, that may come to its end before it is ready.
    pub async fn launch_worker(&mut self, vars: &[(&str, &str)]) {
        let mut process = Process::start("broker-worker", self.worker_command().envs(vars.iter().copied()));
        let metrics = Api::new(&process.listening("worker listening").await);
        self.workers.push(Worker { process, metrics });
    }

    /// What starts an API of this broker.
    pub fn api_command(&self) -> Command {
        let mut command = Command::new(&binaries().api);
        let defaults = endpoint::clean(&mut command);
        defaults.env("BROKER_LISTEN", "127.0.0.1:0");
        defaults.env("BROKER_TRACK_TOKENS", format!("platform={TRACK_TOKEN}"));
        defaults.env("BROKER_ADMIN_TOKENS", format!("ops={ADMIN_TOKEN}"));
        defaults.env("AWS_SDK_UA_APP_ID", "broker-api");
        // A story may say otherwise.
        command.envs(self.environment.process_vars());
        command
    }

    /// What starts a worker of this broker.
    pub fn worker_command(&self) -> Command {
        let mut command = Command::new(&binaries().worker);
        endpoint::clean(&mut command).envs(self.environment.process_vars());
        command.env("BROKER_METRICS_LISTEN", "127.0.0.1:0");
        command.env("AWS_SDK_UA_APP_ID", "broker-worker");
        command
    }

    /// The proxy between the processes and AWS.
    ///
    /// # Panics
    ///
    /// Without [`Setup::faults`].
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("Setup::faults asks for a proxy")
    }

    /// The proxy, if there is one.
    pub const fn proxied(&self) -> Option<&FaultProxy> {
        self.proxy.as_ref()
    }

    /// Each API, in the order in which they were started.
    pub fn api(&self, index: usize) -> &Api {
        &self.apis[index % self.apis.len()].api
    }

    /// The addresses of all APIs.
    pub fn addresses(&self) -> Vec<&str> {
        self.apis.iter().map(|server| server.api.address()).collect()
    }

    /// The APIs in turn, as a load balancer would choose.
    pub fn balanced(&self) -> &Api {
        self.api(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Its table's name.
    pub fn table_name(&self) -> &str {
        self.environment.name()
    }

    /// Where its table is, without faults.
    pub fn dynamodb_url(&self) -> &str {
        self.environment.dynamodb_url()
    }

    /// How many workers were started and not taken out.
    pub const fn workers_len(&self) -> usize {
        self.workers.len()
    }

    /// Each worker, in the order in which they were started.
    pub fn worker(&self, index: usize) -> &Worker {
        &self.workers[index]
    }

    /// The same, to wait for what becomes of it.
    pub fn worker_mut(&mut self, index: usize) -> &mut Worker {
        &mut self.workers[index]
    }

    /// An allocate by `track`, through one of the APIs.
    pub fn allocate(&self, track: &str) -> Call {
        self.balanced().allocate(track)
    }

    /// A return of `sandbox` by `track`, through one of the APIs.
    pub fn return_sandbox(&self, sandbox: &str, track: &str) -> Call {
        self.balanced().return_sandbox(sandbox, track)
    }

    /// A GET of `sandbox` by `track`, through one of the APIs.
    pub fn sandbox(&self, sandbox: &str, track: &str) -> Call {
        self.balanced().sandbox(sandbox, track)
    }

    /// A GET of the request at `location` by `track`, through one of the APIs.
    pub fn request(&self, location: &str, track: &str) -> Call {
        self.balanced().request(location, track)
    }

    /// A cancellation of the request at `location` by `track`, through one of the APIs.
    pub fn cancel(&self, location: &str, track: &str) -> Call {
        self.balanced().cancel(location, track)
    }

    /// Polls until the request at `location` is no longer queued.
    pub async fn outcome(&self, location: &str, track: &str) -> Answer {
        wait_for_condition(&format!("the outcome of {location}"), async || {
            let answer = self.request(location, track).send().await.expect_status(200);
            if answer.text_of("status") == "queued" { Err(answer.text) } else { Ok(answer) }
        })
        .await
    }

    /// Ends all processes without checks: the caller has found and reported a fault.
    pub fn abandon(mut self) {
        warden::keep_scratch();
        println!("logs are in {}", warden::scratch().display());
        self.finished = true;
    }

    /// Kills a worker (SIGKILL): nothing of it is drained. Others move up in its place.
    pub fn kill_worker(&mut self, index: usize) {
        drop(self.workers.remove(index));
    }

    /// Takes an API out that was killed, or kills it now (SIGKILL). Its reply queue stays behind, for the sweep.
    pub fn kill_api(&mut self, index: usize) {
        let server = self.apis.remove(index);
        self.orphans.extend(server.process.said("reply queue created", "queue"));
    }

    /// Deletes the reply queues that killed APIs left behind, as the sweep does.
    pub async fn sweep(&mut self) {
        for orphan in std::mem::take(&mut self.orphans) {
            self.queues().delete(&orphan).await;
        }
    }

    /// The process of an API, to wait for its end.
    pub fn api_process(&mut self, index: usize) -> &mut Process {
        &mut self.apis[index].process
    }

    /// The process of a worker.
    pub fn worker_process(&self, index: usize) -> &Process {
        &self.workers[index].process
    }

    /// Drains a worker (SIGTERM) and waits until it has ended with exit code 0. Others move up in its place.
    pub async fn stop_worker(&mut self, index: usize) {
        self.workers.remove(index).process.stop().await;
    }

    /// Drains all workers.
    pub async fn stop_workers(&mut self) {
        while !self.workers.is_empty() {
            self.stop_worker(0).await;
        }
    }

    /// Drains all APIs.
    pub async fn stop_apis(&mut self) {
        while !self.apis.is_empty() {
            self.terminate_api(0).0.stopped().await;
        }
    }

    /// Asks an API to drain (SIGTERM) and takes it out of the balance. [`Process::stopped`] waits for its end.
    pub fn terminate_api(&mut self, index: usize) -> (Process, Api) {
        let ApiServer { process, api } = self.apis.remove(index);
        process.signal(Signal::SIGTERM);
        (process, api)
    }
}

/// A broker is also the environment in which its commands run.
impl Deref for Broker {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.environment
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            warden::keep_scratch();
            let apis = self.apis.iter().map(|server| &server.process);
            for process in apis.chain(self.workers.iter().map(|worker| &worker.process)) {
                println!("{}", process.tail());
            }
        } else {
            assert!(self.finished, "a story must end with Broker::finish");
        }
    }
}

/// Runs a story on a broker of its own and checks what it leaves behind.
pub async fn story(setup: Setup, tell: impl AsyncFnOnce(&mut Broker)) {
    let mut broker = Broker::start(setup).await;
    tell(&mut broker).await;
    broker.finish().await;
}

async fn ready(name: &str, api: &Api) {
    wait_for_condition(&format!("{name} at {} to be ready", api.address()), async || {
        match api.probe("/readyz").await {
            Some((200, _)) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// A source of credentials that now and then takes its time, on a thread of its own until this process ends.
async fn slow_credentials() -> String {
    let (started, at) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let source = credentials::start(1, CancellationToken::new()).await.expect("a free port");
            let _ = started.send(source);
            std::future::pending::<()>().await;
        });
    });
    at.await.expect("it listens")
}
