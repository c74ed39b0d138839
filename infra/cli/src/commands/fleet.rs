//! Fleet of worker child processes, scaled on the backlog: autoscaling on one machine, by the same rule ([`Scaling`]) as on
//! AWS and as KEDA in a cluster.
//!
//! Invariants: a worker is ended only with SIGTERM and drains; it drains also when this process dies, since its standard
//! input closes then. A worker that ends by itself is replaced at the next check. While the queue cannot be measured the
//! number stays as it is.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use broker_domain::{Backlog, Scaling};
use broker_queue::{Queue, QueueKind, QueueNames, QueueUrls, topology};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::config::{Config, HookSecret, SETTINGS, UnknownName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use broker_local::endpoints::Endpoints;

/// The pause between two checks of the queue.
const EVERY: Duration = Duration::from_millis(500);
/// How much longer than its drain time a worker may take before it is killed.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// The parameters of a fleet.
#[derive(Debug)]
pub(super) struct FleetPlan {
    /// The scaling rule.
    rule: Scaling,
    /// The environment of each worker, besides this process's own.
    environment: Vec<(String, String)>,
    /// Variables that no worker gets.
    without: Vec<String>,
    /// The drain time of a worker.
    drain: Duration,
    /// The queue whose backlog counts.
    requests: Queue,
}

impl FleetPlan {
    /// Workers for these endpoints, with the settings `flags` of this process, its provider, and no token of the API. Names
    /// that are `unknown` were told once, and no worker gets them.
    pub(super) async fn new(
        rule: Scaling,
        config: &Config,
        mut flags: Vec<(String, String)>,
        unknown: Vec<UnknownName>,
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
        flags.extend(local.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(provider) = &config.provider {
            flags.push(("BROKER_PROVIDER_URL".to_owned(), provider.url.to_string()));
            flags.push(("BROKER_PROVIDER_TOKEN".to_owned(), provider.token.expose_secret().to_owned()));
            flags.push(("BROKER_PROVIDER_RATE".to_owned(), provider.rate.to_string()));
            flags.push(("BROKER_PROVIDER_TIMEOUT_S".to_owned(), provider.timeout.as_secs().to_string()));
        }
        let hook_secrets: Vec<_> = config.hooks.secrets.iter().map(HookSecret::expose).collect();
        flags.push(("BROKER_HOOK_SECRETS".to_owned(), hook_secrets.join(",")));
        let secrets = SETTINGS.iter().filter(|setting| setting.secret);
        let secrets = secrets.flat_map(|setting| [setting.name.to_owned(), format!("{}_FILE", setting.name)]);
        let others = ["AWS_PROFILE", "AWS_SESSION_TOKEN"].map(str::to_owned);
        let unknown = unknown.into_iter().map(|unknown| unknown.name);
        let without = secrets.chain(others).chain(unknown).collect();
        let urls = QueueUrls::resolve(aws, &QueueNames::new(&config.prefix)?).await?;
        let requests = urls.get(QueueKind::Requests);
        Ok(Self { rule, environment: flags, without, drain: config.drain, requests })
    }
}

/// Runs workers until `stop`, then drains them all.
pub(super) async fn run(
    plan: FleetPlan,
    aws: Aws,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut fleet = Fleet { plan, workers: Vec::new(), draining: Vec::new(), busy: clock.instant() };
    loop {
        fleet.reap();
        let requests = &fleet.plan.requests;
        match topology::depth(&aws, requests, requests.label().to_string()).await {
            Ok(depth) => fleet.follow(depth.backlog(), clock.instant())?,
            Err(error) => tracing::warn!("backlog unknown, the number of workers stays as it is: {error}"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return fleet.end().await;
        }
    }
}

#[derive(Debug)]
struct Fleet {
    plan: FleetPlan,
    /// Running, oldest first.
    workers: Vec<Child>,
    /// Draining.
    draining: Vec<Child>,
    /// When the current number was last wanted.
    busy: Instant,
}

impl Fleet {
    /// Starts or drains workers until their number is what the rule says.
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
        let program = std::env::current_exe().context("the path of this program is not known")?;
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
            .context("a worker did not start")
    }

    /// Removes workers that have ended.
    fn reap(&mut self) {
        self.workers.retain_mut(|worker| match ended(worker) {
            Some(status) => {
                tracing::error!(%status, "a worker ended by itself and is replaced");
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

    /// Drains all workers.
    async fn end(self) -> anyhow::Result<()> {
        self.workers.iter().for_each(terminate);
        for mut worker in self.workers.into_iter().chain(self.draining) {
            let patience = self.plan.drain + AFTER_DRAIN;
            match tokio::time::timeout(patience, worker.wait()).await {
                Ok(status) => tell_of_bad_end(status.context("waiting for a worker failed")?),
                Err(_elapsed) => {
                    tracing::error!(
                        "a worker did not drain in time and is killed; its messages become visible again"
                    );
                    worker.kill().await.context("killing a worker failed")?;
                }
            }
        }
        Ok(())
    }
}

/// The status of a worker that has ended.
fn ended(worker: &mut Child) -> Option<ExitStatus> {
    // A status that cannot be read (it is our child) counts as running; the end will show.
    worker.try_wait().ok().flatten()
}

fn tell_of_bad_end(status: ExitStatus) {
    if !status.success() {
        tracing::error!(%status, "a worker ended badly after SIGTERM");
    }
}

fn terminate(worker: &Child) {
    let pid = worker.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    // A worker that has just ended has no pid, or cannot be signalled: as wanted.
    let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
}
