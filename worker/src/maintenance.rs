//! Consumer of the maintenance queue: runs of jobs, and deletions at the provider.
//!
//! Invariants: it takes only its own kinds; a message stays hidden while it is processed; the report of a requested run is
//! stored before the reply.
//!
//! A run by an external trigger has no record and no deadline: a job finds its own work, also late. Instead, the tick keeps
//! **up to when**, by SQS's clock, all triggers have had their run (run → note → delete). So a redelivery runs nothing again,
//! and triggers that piled up without a worker are satisfied by one run that began after them. Two copies at the same moment
//! may both run, as two workers may at any time.

use std::sync::Arc;
use std::time::Duration;

use broker_domain::MAX_SKEW_MS;
use broker_domain::{Job, JobReport, Outcome, RequestId, Task, Timestamp};
use broker_messages::{Incoming, MaintenanceMessage, MaintenanceTask, Reply, ScheduledTrigger};
use broker_queue::{
    Delivery, OldestAge, PollOptions, QueueKind, Receiver, ReplyQueueName, ReplySenders, SendError,
};
use broker_runtime::config::Config;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::trace;
use broker_store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::consuming;
use crate::disposition::{Disposition, QueueAcks};
use crate::finality::{Finality, Next, Refusals};
use crate::health::Health;
use crate::jobs::deletion::{self, Planned};
use crate::jobs::{Jobs, Stopping};
use crate::schedule;

/// Messages that are processed at a time: a job is mostly one, a deletion waits for the provider.
const AT_ONCE: usize = 16;
/// How long a message of a newer version waits for a newer worker at first.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(60);
/// Reply queues whose senders are kept.
const REPLY_QUEUES: usize = 64;

/// The most that a worker's clock and SQS's differ: otherwise the worker receives nothing.
const CLOCKS_DIFFER: Duration = Duration::from_millis(MAX_SKEW_MS.unsigned_abs());

/// The report of a run that came too late.
const TOO_LATE: &str = "no worker began it before its deadline";

/// Consumes the maintenance queue.
#[derive(Debug)]
pub(crate) struct Maintenance {
    receiver: Receiver,
    acks: QueueAcks,
    replies: ReplySenders,
    jobs: Jobs,
    health: Health,
    visibility: Duration,
}

impl Maintenance {
    pub(crate) fn new(jobs: Jobs, health: Health, config: &Config) -> Self {
        let queue = jobs.urls.get(QueueKind::Maintenance);
        let options =
            PollOptions { wait: config.poll_wait, visibility: Some(config.visibility), max_polls: 2 };
        let (clock, entropy) = (jobs.clock.clone(), jobs.entropy.clone());
        let receiver = Receiver::new(jobs.aws.sqs_receive.clone(), queue, clock, entropy, options)
            .with_permits(Arc::new(Semaphore::new(AT_ONCE)))
            .with_gate(health.gate());
        Self {
            receiver,
            acks: QueueAcks::new(&jobs.aws, &jobs.urls, QueueKind::Maintenance, QueueKind::MaintenanceDlq),
            replies: ReplySenders::new(jobs.aws.sqs.clone(), jobs.urls.clone(), 1, REPLY_QUEUES),
            jobs,
            health,
            visibility: config.visibility,
        }
    }

    /// The age of the oldest message received recently.
    pub(crate) fn oldest_age(&self) -> OldestAge {
        self.receiver.oldest_age()
    }

    /// Consumes until the lifecycle's soft end. Messages received by then are finished, or made visible again.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        let (receiver, entropy) = (self.receiver.clone(), self.jobs.entropy.clone());
        let work = move |delivery, permit| {
            let consumer = Arc::clone(&self);
            async move { consumer.consume(&delivery, permit).await }
        };
        consuming::consume(receiver, "maintenance", entropy, lifecycle, work).await;
    }

    async fn consume(&self, delivery: &Delivery, permit: Option<OwnedSemaphorePermit>) {
        let hidden = self.acks.keep_hidden(delivery, self.visibility);
        let disposition = self.process(delivery).await;
        drop(hidden);
        drop(permit);
        self.acks.apply(delivery, &disposition).await;
    }

    async fn process(&self, delivery: &Delivery) -> Disposition {
        let now = self.jobs.clock.now();
        match Incoming::decode_taken(&delivery.body, delivery.sent_at.max(now)) {
            Ok(Incoming::Ours(message)) => self.work(delivery, &message).await,
            Ok(Incoming::Trigger(trigger)) => {
                let mut span = delivery.processing(None);
                span.set("broker.kind", ScheduledTrigger::KIND);
                let start = || self.start(trigger.job(), delivery.sent_at);
                let done = self.retry_until_done(delivery, ScheduledTrigger::KIND, None, start);
                trace::within(span.context(), done).await
            }
            Err(error) => Disposition::of_unreadable(&error, delivery, NEWER_VERSION_WAITS, now),
        }
    }

    async fn work(&self, delivery: &Delivery, message: &MaintenanceMessage) -> Disposition {
        let reply_to = message.reply_to.as_deref().map(|name| self.jobs.urls.names().parse_reply(name));
        let reply_to = match reply_to.transpose() {
            Ok(reply_to) => reply_to,
            Err(error) => return Disposition::of_foreign(&error),
        };
        let mut span = delivery.processing(message.traceparent.as_deref());
        span.set("broker.kind", message.body.kind());
        span.set("broker.request_id", message.request_id.to_string());
        let decide = || self.decide(message, reply_to.as_ref());
        let done = self.retry_until_done(delivery, message.body.kind(), Some(message.request_id), decide);
        trace::within(span.context(), done).await
    }

    /// Processes a message, again and again while AWS is down: an outage costs a message no receive, so that redrive moves only
    /// messages that crash workers.
    async fn retry_until_done<D>(
        &self,
        delivery: &Delivery,
        kind: &'static str,
        request_id: Option<RequestId>,
        decide: impl Fn() -> D,
    ) -> Disposition
    where
        D: Future<Output = Result<Disposition, MaintenanceError>>,
    {
        let mut refusals = Refusals::default();
        for attempt in 0_u32.. {
            let error = match decide().await {
                Ok(disposition) => return disposition,
                Err(error) => error,
            };
            match refusals.judge(error.finality(), &self.jobs.store).await {
                Next::End(code) => return Disposition::DeadLetter { code, reason: consuming::chain(&error) },
                Next::AtOnce => continue,
                Next::Later => {}
            }
            self.health.suspect();
            let (message_id, request_id) = (&delivery.message_id, request_id.map(tracing::field::display));
            tracing::warn!(message_id, request_id, kind, attempt, "not done, tried again soon: {error}");
            let pause = consuming::backoff(attempt, &self.jobs.entropy);
            if self.jobs.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        Disposition::MakeVisible(Duration::ZERO)
    }

    async fn decide(
        &self,
        message: &MaintenanceMessage,
        reply_to: Option<&ReplyQueueName>,
    ) -> Result<Disposition, MaintenanceError> {
        match &message.body {
            MaintenanceTask::RunJob { task } => self.run_job(message, task, reply_to).await,
            MaintenanceTask::Delete { sandbox_id, external_id, version, slot_ms } => {
                let planned = Planned {
                    sandbox_id: sandbox_id.clone(),
                    external_id: external_id.clone(),
                    version: *version,
                    slot: Timestamp::from_ms(*slot_ms),
                };
                self.delete(&planned).await
            }
        }
    }

    async fn delete(&self, planned: &Planned) -> Result<Disposition, MaintenanceError> {
        Ok(match self.jobs.delete(planned).await? {
            deletion::Ended::NotYet(wait) => Disposition::Resend(wait),
            deletion::Ended::Deleted
            | deletion::Ended::Void
            | deletion::Ended::Postponed
            | deletion::Ended::Failed
            | deletion::Ended::GivenUp => Disposition::Done,
        })
    }

    async fn run_job(
        &self,
        message: &MaintenanceMessage,
        task: &Task,
        reply_to: Option<&ReplyQueueName>,
    ) -> Result<Disposition, MaintenanceError> {
        let report = if self.jobs.clock.now() > message.times().deadline {
            tracing::info!(job = task.as_str(), "not begun before its deadline: left to the next run");
            JobReport { aborted: Some(TOO_LATE.to_owned()), ..JobReport::new(task) }
        } else {
            match self.jobs.run(task, message.times().deadline).await {
                Ok(report) => report,
                Err(Stopping) => return Ok(Disposition::MakeVisible(Duration::ZERO)),
            }
        };
        crash_points::point(Point::Ran);
        // A run of the schedule has no record.
        let only_if_asked = message.asynchronous;
        let now = self.jobs.clock.now();
        self.jobs.store.runs.complete(message.request_id, &report, only_if_asked, now).await?;
        self.reply(message, reply_to, Outcome::Ran(report)).await?;
        Ok(Disposition::Done)
    }

    /// Runs `job` for an external trigger sent at `fired_at`, unless it had its run or must not run.
    async fn start(&self, job: Job, fired_at: Timestamp) -> Result<Disposition, MaintenanceError> {
        let (store, began) = (&self.jobs.store, self.jobs.clock.now());
        let tick = store.schedule.tick(job, Duration::ZERO, began).await?;
        let not_run = if tick.paused_at.is_some() {
            Some("it is paused")
        } else if tick.has_run_for(fired_at) {
            Some("it ran for that already")
        } else if !schedule::starts(job, self.jobs.provider.is_some()) {
            Some("it needs a provider")
        } else {
            None
        };
        if let Some(reason) = not_run {
            tracing::info!(%job, reason, "trigger received, job not started");
            return Ok(Disposition::Done);
        }
        if let Err(Stopping) = self.jobs.run(&Task::from(job), Timestamp::from_ms(u64::MAX)).await {
            return Ok(Disposition::MakeVisible(Duration::ZERO));
        }
        crash_points::point(Point::Ran);
        // A trigger from before the run began had its run, by whatever clock.
        store.schedule.note_ran_for(job, fired_at.max(began.minus(CLOCKS_DIFFER))).await?;
        Ok(Disposition::Done)
    }

    async fn reply(
        &self,
        message: &MaintenanceMessage,
        reply_to: Option<&ReplyQueueName>,
        outcome: Outcome,
    ) -> Result<(), MaintenanceError> {
        let Some(reply_to) = reply_to else { return Ok(()) };
        let sending = self.replies.sending();
        let reply = Reply::new(message.request_id, outcome).traced(sending.traceparent());
        match self.replies.send(reply_to, reply.encode()).await {
            Ok(()) | Err(SendError::Gone { .. }) => Ok(()),
            // The report is stored; a wake-up that nobody waits for any more is not worth a message's time.
            Err(SendError::Unavailable { .. }) if self.jobs.clock.now() > message.times().reply_by => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why a message is not done.
#[derive(Debug, thiserror::Error)]
enum MaintenanceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl MaintenanceError {
    const fn finality(&self) -> Finality {
        match self {
            Self::Store(error) => Finality::of(error, "refused", "refused"),
            Self::Send(error) => Finality::of_send(error),
        }
    }
}
