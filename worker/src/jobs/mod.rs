//! Maintenance jobs, one file each; [`Jobs::run`] lists them.
//!
//! Invariants: a job finds its own work and pages through all of it; it is idempotent and changes only what it read, at the
//! version it read, so two workers on one job, a run after a crash, or a claim at the same moment are all outcomes; it
//! reports what it did. When a job runs is decided by `schedule`.

mod arrivals;
mod before_delete;
mod bulk_delete;
mod census;
pub(crate) mod cleanup;
pub(crate) mod deletion;
mod each;
mod expire;
mod permits;
mod purge;
mod quarantine;
pub(crate) mod refill;
mod reservations;
pub(crate) mod serve;
mod slots;
mod sweep;
pub(crate) mod sync;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_domain::{JobReport, Task, Timestamp};
use broker_provider::hooks::Hooks;
use broker_provider::{Provider, ProviderError};
use broker_queue::{QueueError, QueueUrls, Sender};
use broker_runtime::aws::Aws;
use broker_runtime::backoff::Backoff;
use broker_runtime::clock::Clock;
use broker_runtime::config::{Config, Scheduler};
use broker_runtime::entropy::Entropy;
use broker_runtime::errors;
use broker_store::scan_all::ScanError;
use broker_store::{FollowedPolicy, Store, StoreError, Trouble};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::reply::ReplySender;
use serve::{Gates, NextWalk, OwnGrants, SoonOver};
pub(crate) use slots::CallSlots;
pub(crate) use sync::OwnSync;

/// For how long a job that AWS interrupts is begun anew; then its report says so, and the next run does the rest.
const BEGUN_ANEW_FOR: Duration = Duration::from_secs(60);

/// Why a job ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the table holds could not be read whole.
    #[error("the accounts of the table cannot be recorded: {0}")]
    Accounts(#[source] ScanError),
    /// The provider failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The queues failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The lists of a sync could not be kept.
    #[error(transparent)]
    Spool(#[from] sync::SpoolError),
    /// No provider is configured.
    #[error("no provider is configured: set BROKER_PROVIDER_URL")]
    NoProvider,
    /// What it found is implausible: nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// This process ends, or its pool is closed: another one does the rest, or a later run.
    #[error("the worker is ending, or its pool is closed")]
    Stopping,
}

impl JobError {
    /// Whether the same job may get further in a moment: AWS was away, or did not accept this process.
    const fn passes(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Queue(_) => true,
            Self::Accounts(_)
            | Self::Provider(_)
            | Self::Spool(_)
            | Self::NoProvider
            | Self::Refused(_)
            | Self::Stopping => false,
        }
    }

    /// The word for it in metrics.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Store(_)
            | Self::Accounts(_)
            | Self::Provider(_)
            | Self::Queue(_)
            | Self::Spool(_)
            | Self::NoProvider
            | Self::Stopping => "failed",
        }
    }
}

/// What operators are told of a run's trouble: an error may quote what others wrote.
const TOLD_CHARS: usize = 400;

/// What all jobs work with. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    pub(crate) store: Store,
    pub(crate) provider: Option<Provider>,
    pub(crate) hooks: Hooks,
    /// The sender to the maintenance queue.
    pub(crate) maintenance: Sender,
    pub(crate) aws: Aws,
    pub(crate) urls: QueueUrls,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) stop: CancellationToken,
    pub(crate) policy: FollowedPolicy,
    pub(crate) gates: Gates,
    /// Tells those who waited in a line.
    pub(crate) replies: Arc<ReplySender>,
    pub(crate) next_walk: NextWalk,
    /// Where the lists of a sync are kept.
    pub(crate) spool_dir: Arc<Path>,
    /// Notified when a permit is freed, which a waiting request may take.
    pub(crate) freed: Arc<Notify>,
    pub(crate) soon: SoonOver,
    pub(crate) own_grants: OwnGrants,
    pub(crate) call_slots: CallSlots,
    pub(crate) own_sync: OwnSync,
    pub(crate) settings: JobSettings,
}

/// The settings of the jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobSettings {
    /// How long after its expiry a sandbox is left to its owner.
    pub(crate) expiry_grace: Duration,
    /// Between two deletions at the provider.
    pub(crate) deletion_interval: Duration,
    /// The pause after the first failed deletion of a sandbox.
    pub(crate) deletion_backoff: Duration,
    /// Between two runs of refill; `None` if an external scheduler decides that.
    pub(crate) refill_every: Option<Duration>,
    /// Whether attributes of the provider are kept.
    pub(crate) keeps_attributes: bool,
}

impl JobSettings {
    pub(crate) fn new(config: &Config) -> Self {
        let rate = config.provider.as_ref().map_or(1, |provider| provider.rate.max(1));
        Self {
            expiry_grace: config.expiry_grace,
            deletion_interval: Duration::from_secs(1) / rate,
            deletion_backoff: config.deletion_backoff,
            refill_every: (config.scheduler == Scheduler::Workers).then_some(config.every.refill),
            keeps_attributes: !config.provider_attributes.is_empty(),
        }
    }
}

impl Jobs {
    /// Runs a job and tells what it did; one that AWS interrupts begins anew, for a minute and not after `until`. `Err`
    /// only if it is to be run again at once, by another worker.
    pub(crate) async fn run(&self, task: &Task, until: Timestamp) -> Result<JobReport, Stopping> {
        let first = self.clock.instant();
        let may_begin = |after: Duration| {
            let began_after = self.clock.instant().duration_since(first).saturating_add(after);
            began_after < BEGUN_ANEW_FOR && self.clock.now().plus(after) < until
        };
        for attempt in 0_u32.. {
            let (began, began_at) = (self.clock.instant(), self.clock.now());
            let mut report = JobReport::new(task);
            let ended = Box::pin(self.run_once(task, &mut report)).await;
            let pause = Backoff::OUTAGE.jittered(attempt, &self.entropy);
            match &ended {
                Err(JobError::Stopping) => return Err(Stopping),
                Err(error) if error.passes() && may_begin(pause) => {
                    tracing::warn!(job = report.job, attempt, "begun anew soon: {}", errors::chain(error));
                    let slept = self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    slept.ok_or(Stopping)?;
                    continue;
                }
                Ok(()) | Err(_) => {}
            }
            let took = self.clock.instant().duration_since(began);
            report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let outcome = match &ended {
                Ok(()) if report.failed == 0 => "ok",
                Ok(()) => "partial",
                Err(error) => error.outcome(),
            };
            report.aborted = ended.err().map(|error| errors::chain(&error));
            measure(task, &report, outcome, took);
            self.note_trouble(task, &report, began_at).await;
            return Ok(report);
        }
        Err(Stopping)
    }

    /// Tells operators by the job's tick what is wrong with its last run, if that is the one that began at `began`.
    async fn note_trouble(&self, task: &Task, report: &JobReport, began: Timestamp) {
        let Some(job) = task.job() else { return };
        let short = |why: String| why.chars().take(TOLD_CHARS).collect();
        let now = self.clock.now();
        let trouble = report.trouble().map(|why| Trouble { at: now, why: short(why) });
        if let Err(error) = self.store.schedule.note_trouble(job, trouble.as_ref(), (began, now)).await {
            tracing::warn!(
                job = report.job,
                "failure of this run not written to its tick: {}",
                errors::chain(&error)
            );
        }
    }

    async fn run_once(&self, task: &Task, report: &mut JobReport) -> Result<(), JobError> {
        match task {
            Task::Sync { accept_stale } => sync::run(self, *accept_stale, report).await,
            Task::Expire => expire::run(self, report).await,
            Task::Cleanup => cleanup::run(self, report).await,
            Task::PurgeStale { grace_period_hours } => purge::run(self, *grace_period_hours, report).await,
            Task::Census => census::run(self, report).await,
            Task::Sweep => sweep::run(self, report).await,
            Task::Refill => refill::run(self, report).await,
            Task::Serve => serve::run(self, report).await,
            Task::BulkDelete { status } => bulk_delete::run(self, *status, report).await,
        }
    }

    /// The provider, if one is configured.
    fn provider(&self) -> Result<&Provider, JobError> {
        self.provider.as_ref().ok_or(JobError::NoProvider)
    }
}

/// The process ended before the job did, or the pool was closed.
#[derive(Debug)]
pub(crate) struct Stopping;

/// The label in metrics; the names are those that dashboards of such brokers already use.
const fn metric_word(task: &Task) -> &'static str {
    match task {
        Task::Sync { .. } => "sync",
        Task::Expire => "expiry",
        Task::Cleanup => "cleanup",
        Task::PurgeStale { .. } => "purge",
        Task::Census => "census",
        Task::Sweep => "sweep",
        Task::Refill => "refill",
        Task::Serve => "serve",
        Task::BulkDelete { .. } => "bulk_delete",
    }
}

/// Creates the counters with 0: a counter that begins at 1 has not increased, for Prometheus.
pub(crate) fn begin_counting() {
    metrics::counter!("broker_allocate_conflicts_total").absolute(0);
    metrics::counter!("broker_permit_conflicts_total").absolute(0);
    metrics::counter!("broker_serve_admitted_total").absolute(0);
    metrics::counter!("broker_serve_left_behind_total").absolute(0);
    metrics::counter!("broker_serve_put_aside_total").absolute(0);
    metrics::counter!("broker_waiting_parked_total").absolute(0);
    metrics::counter!("broker_waiting_refused_total", "reason" => "too_many").absolute(0);
    for by in ["arrival", "sweep"] {
        metrics::counter!("broker_waiting_granted_total", "by" => by).absolute(0);
    }
    for word in ["sync", "expiry", "cleanup", "purge", "census", "sweep", "refill", "serve"] {
        for outcome in ["ok", "partial", "refused", "failed"] {
            metrics::counter!(format!("broker_{word}_total"), "outcome" => outcome).absolute(0);
        }
    }
}

fn measure(task: &Task, report: &JobReport, outcome: &'static str, took: Duration) {
    let word = metric_word(task);
    metrics::counter!(format!("broker_{word}_total"), "outcome" => outcome).increment(1);
    metrics::histogram!(format!("broker_{word}_duration_seconds")).record(took);
    let counters = [
        ("found", report.found),
        ("changed", report.changed),
        ("skipped", report.skipped),
        ("failed", report.failed),
    ];
    for (counter, count) in counters {
        metrics::counter!(format!("broker_{word}_{counter}_total")).increment(count);
    }
    let JobReport { job, found, changed, skipped, failed, duration_ms, details, aborted, postponed } = report;
    if let Some(reason) = aborted {
        tracing::warn!(job, outcome, reason, found, changed, skipped, failed, duration_ms, "job ended early");
    } else if matches!(task, Task::Refill | Task::Serve) && *changed == 0 && *failed == 0 {
        // Every few seconds, and mostly nothing.
        tracing::debug!(job, outcome, found, duration_ms, "job done");
    } else {
        tracing::info!(
            job,
            outcome,
            found,
            changed,
            skipped,
            failed,
            duration_ms,
            ?details,
            postponed,
            "job done"
        );
    }
}
