//! Workers as child processes, as many as the backlog asks for: on one machine what autoscaling does on AWS and KEDA in a
//! cluster, by the same rule ([`Scaling`]).
//!
//! Invariants: a worker is only ever asked to end (SIGTERM) and drains; it drains also when this process dies, since its
//! standard input closes then. One that ends by itself is replaced at the next look. While the queue cannot be measured
//! the number stays as it is. What it does not do: decide; that is the rule's.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use broker_domain::{Backlog, Scaling};
use broker_queue::{Queue, QueueKind, QueueNames, QueueUrls, topology};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::config::{Config, SETTINGS};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use broker_local::endpoints::Endpoints;

/// The pause between two looks at the queue.
const EVERY: Duration = Duration::from_millis(500);
/// How much longer than its drain time a worker may take to end before it is killed.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// What a fleet needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many.
    rule: Scaling,
    /// What each worker is told, beside this process's own environment.
    environment: Vec<(String, String)>,
    /// What no worker is told.
    without: Vec<String>,
    /// How long a worker may take to drain.
    drain: Duration,
    /// Whose backlog is followed.
    requests: Queue,
}

impl Plan {
    /// Workers for these endpoints, with the settings `told` to this process, its provider, and no token of the API.
    pub(super) async fn new(
        rule: Scaling,
        config: &Config,
        mut told: Vec<(String, String)>,
        endpoints: &Endpoints,
        aws: &Aws,
    ) -> anyhow::Result<Self> {
        let local = [
            ("AWS_ENDPOINT_URL_DYNAMODB", endpoints.dynamodb_url.as_str()),
            ("AWS_ENDPOINT_URL_SQS", &endpoints.sqs_url),
            ("AWS_REGION", "local"),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            // They share an address, so each takes a free port.
            ("BROKER_METRICS_LISTEN", "127.0.0.1:0"),
        ];
        told.extend(local.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(provider) = &config.provider {
            told.push(("BROKER_PROVIDER_URL".to_owned(), provider.url.to_string()));
            told.push(("BROKER_PROVIDER_TOKEN".to_owned(), provider.token.expose_secret().to_owned()));
        }
        let secrets = SETTINGS.iter().filter(|setting| setting.secret);
        let secrets = secrets.flat_map(|setting| [setting.name.to_owned(), format!("{}_FILE", setting.name)]);
        let without = secrets.chain(["AWS_PROFILE", "AWS_SESSION_TOKEN"].map(str::to_owned)).collect();
        let urls = QueueUrls::resolve(aws, &QueueNames::new(&config.prefix)?).await?;
        let requests = urls.get(QueueKind::Requests);
        Ok(Self { rule, environment: told, without, drain: config.drain, requests })
    }
}

/// Runs workers until `stop`, then drains them all.
pub(super) async fn run(plan: Plan, aws: Aws, clock: Clock, stop: CancellationToken) -> anyhow::Result<()> {
    let mut fleet = Fleet { plan, workers: Vec::new(), draining: Vec::new(), busy: clock.instant() };
    loop {
        fleet.reap();
        let requests = &fleet.plan.requests;
        match topology::depth(&aws, requests, requests.label().to_string()).await {
            Ok(depth) => {
                let backlog = Backlog { visible: depth.visible, in_flight: depth.in_flight };
                fleet.follow(backlog, clock.instant())?;
            }
            Err(error) => tracing::warn!("the backlog is not known, the workers stay as they are: {error}"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return fleet.end().await;
        }
    }
}

#[derive(Debug)]
struct Fleet {
    plan: Plan,
    /// At work, oldest first.
    workers: Vec<Child>,
    /// Asked to end.
    draining: Vec<Child>,
    /// When as many workers as there are were last wanted.
    busy: Instant,
}

impl Fleet {
    /// Starts or drains workers until there are as many as the rule says.
    fn follow(&mut self, backlog: Backlog, now: Instant) -> anyhow::Result<()> {
        let rule = self.plan.rule;
        let before = self.workers.len();
        let workers = u32::try_from(before).unwrap_or(u32::MAX);
        if rule.wanted(backlog) >= workers {
            self.busy = now;
        }
        let desired = rule.desired(backlog, workers, now.saturating_duration_since(self.busy));
        let desired = usize::try_from(desired).unwrap_or(usize::MAX);
        while self.workers.len() < desired {
            self.workers.push(self.start()?);
        }
        while self.workers.len() > desired {
            // The youngest: its buffers are the coldest.
            let Some(worker) = self.workers.pop() else { break };
            terminate(&worker);
            self.draining.push(worker);
        }
        if before != desired {
            let Backlog { visible, in_flight } = backlog;
            tracing::info!(before, workers = desired, visible, in_flight, "workers scaled");
        }
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("where this program lies is not known")?;
        let mut command = Command::new(program);
        for name in &self.plan.without {
            command.env_remove(name);
        }
        command
            .args(["worker", "--until-stdin-closes"])
            .envs(self.plan.environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C goes to a whole process group: workers end after the API, not with it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("a worker does not start")
    }

    /// Takes out who has ended.
    fn reap(&mut self) {
        self.workers.retain_mut(|worker| match ended(worker) {
            Some(status) => {
                tracing::error!(%status, "a worker ended by itself, another takes its place");
                false
            }
            None => true,
        });
        self.draining.retain_mut(|worker| match ended(worker) {
            Some(status) => {
                tell_of_bad_end(status);
                false
            }
            None => true,
        });
    }

    /// Drains everybody.
    async fn end(self) -> anyhow::Result<()> {
        self.workers.iter().for_each(terminate);
        for mut worker in self.workers.into_iter().chain(self.draining) {
            let patience = self.plan.drain + AFTER_DRAIN;
            match tokio::time::timeout(patience, worker.wait()).await {
                Ok(status) => tell_of_bad_end(status.context("a worker cannot be waited for")?),
                Err(_elapsed) => {
                    tracing::error!("a worker did not drain in time and is killed; its messages come back");
                    worker.kill().await.context("a worker cannot be killed")?;
                }
            }
        }
        Ok(())
    }
}

/// How it ended, if it did.
fn ended(worker: &mut Child) -> Option<ExitStatus> {
    // Who cannot be asked (it is our child) is taken for running; the end will tell.
    worker.try_wait().ok().flatten()
}

fn tell_of_bad_end(status: ExitStatus) {
    if !status.success() {
        tracing::error!(%status, "a worker ended badly after SIGTERM");
    }
}

fn terminate(worker: &Child) {
    let pid = worker.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    // One that has just ended has no pid any more, or cannot be signalled: as wanted.
    let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
}
