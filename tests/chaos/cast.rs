//! Processes of a run, and the APIs that clients know of.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, RwLock};

use broker_tests::process::Process;
use broker_tests::{Api, Broker, wait_for_condition};
use nix::sys::signal::Signal;

/// The APIs that there are, as a load balancer knows them; a client may still hold on to one that is gone.
pub(crate) type Apis = Arc<RwLock<Vec<Api>>>;

/// All processes.
#[derive(Debug)]
pub(crate) struct Cast {
    wanted_apis: usize,
    wanted_workers: usize,
    /// The `broker` of another build, whether APIs are of it, too, and how many of it were started.
    other: Option<PathBuf>,
    other_apis: bool,
    started: usize,
    pub(crate) others: usize,
    servers: Vec<(Process, Api)>,
    workers: Vec<Process>,
    frozen: Vec<Process>,
    known: Apis,
    /// Processes that ended in a way that is not ours.
    pub(crate) ended_by_themselves: usize,
    /// Logs that tell of a panic.
    pub(crate) panics: Vec<String>,
}

impl Cast {
    pub(crate) async fn start(
        broker: &Broker,
        wanted_apis: usize,
        wanted_workers: usize,
        other: Option<PathBuf>,
        other_apis: bool,
    ) -> Self {
        let mut cast = Self {
            wanted_apis,
            wanted_workers,
            other,
            other_apis,
            started: 0,
            others: 0,
            servers: Vec::new(),
            workers: Vec::new(),
            frozen: Vec::new(),
            known: Apis::default(),
            ended_by_themselves: 0,
            panics: Vec::new(),
        };
        cast.complete(broker).await;
        cast
    }

    pub(crate) fn apis(&self) -> Apis {
        Arc::clone(&self.known)
    }

    pub(crate) const fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Starts what is missing, as a supervisor does. A worker that cannot reach AWS when it starts ends by itself.
    pub(crate) async fn fill(&mut self, broker: &Broker) {
        for mut worker in std::mem::take(&mut self.workers) {
            if worker.has_ended() {
                self.ended_by_themselves += 1;
                self.look_for_panics(&worker);
            } else {
                self.workers.push(worker);
            }
        }
        while self.workers.len() < self.wanted_workers {
            let mut command = self.in_turn("worker", broker.worker_command());
            self.workers.push(Process::start("broker-worker", &mut command));
        }
        while self.servers.len() < self.wanted_apis {
            let ours = broker.api_command();
            let mut command = if self.other_apis { self.in_turn("api", ours) } else { ours };
            let mut process = Process::start("broker-api", &mut command);
            let api = Api::new(&process.listening("api listening").await);
            self.servers.push((process, api));
        }
        *self.known.write().expect("no client panicked") =
            self.servers.iter().map(|(_, api)| api.clone()).collect();
    }

    /// `ours`, or the same of the other build: every second process is one of it.
    fn in_turn(&mut self, part: &str, ours: Command) -> Command {
        self.started += 1;
        let Some(other) = self.other.as_ref().filter(|_| self.started.is_multiple_of(2)) else { return ours };
        self.others += 1;
        let mut theirs = Command::new(other);
        theirs.arg(part);
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => theirs.env(name, value),
                None => theirs.env_remove(name),
            };
        }
        theirs
    }

    /// Starts what is missing and waits until all of it is ready.
    pub(crate) async fn complete(&mut self, broker: &Broker) {
        self.thaw_all();
        self.fill(broker).await;
        for (_, api) in &self.servers {
            wait_for_condition(&format!("the API at {} to be ready", api.address()), async || {
                match api.probe("/readyz").await {
                    Some((200, _)) => Ok(()),
                    other => Err(other),
                }
            })
            .await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill_worker(&mut self, index: usize) {
        let worker = self.workers.swap_remove(index);
        self.look_for_panics(&worker);
    }

    /// SIGSTOP, with what it has in its hands; another one takes its place.
    pub(crate) fn freeze_worker(&mut self, index: usize) {
        let mut worker = self.workers.swap_remove(index);
        if !worker.has_ended() {
            worker.signal(Signal::SIGSTOP);
            self.frozen.push(worker);
        }
    }

    /// SIGCONT: they go on beside the others, until they are killed in turn.
    pub(crate) fn thaw_all(&mut self) {
        for worker in self.frozen.drain(..) {
            worker.signal(Signal::SIGCONT);
            self.workers.push(worker);
        }
    }

    /// The reply queues of the APIs that live.
    pub(crate) fn reply_queues(&self) -> BTreeSet<String> {
        self.servers.iter().flat_map(|(server, _)| server.said("reply queue created", "queue")).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill_api(&mut self, index: usize) {
        let (server, _) = self.servers.swap_remove(index);
        self.look_for_panics(&server);
    }

    fn look_for_panics(&mut self, process: &Process) {
        self.panics.extend(process.panic());
    }

    /// Ends everybody in order.
    pub(crate) async fn stop(self) {
        for process in self.servers.into_iter().map(|(server, _)| server).chain(self.workers) {
            process.stop().await;
        }
    }
}
