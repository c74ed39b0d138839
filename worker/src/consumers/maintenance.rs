//! Handler of the maintenance queue: runs of jobs, and deletions at the provider.
//!
//! Invariants: it takes only its own kinds; a message stays hidden while it is processed; the report of a requested run is
//! stored before the reply. A paused job is run only for who asked for this run: its message waited, or was sent before the pause.
//!
//! A run by an external trigger has no record and no deadline: a job finds its own work, also late. Instead, the tick keeps
//! **up to when**, by SQS's clock, all triggers have had their run (run → note → delete). So a redelivery runs nothing again,
//! and triggers that piled up without a worker are satisfied by one run that began after them. Two copies at the same moment
//! may both run, as two workers may at any time.

use std::time::Duration;

use broker_domain::{Job, JobReport, MAX_SKEW_MS, Outcome, Task, Timestamp};
use broker_messages::{Incoming, MaintenanceMessage, MaintenanceTask, Reply, ScheduledTrigger};
use broker_queue::{Delivery, QueueKind, ReplyQueueName, ReplySenders, SendError};
use broker_runtime::crash_points::{self, Point};
use broker_store::StoreError;
use tokio::sync::{OnceCell, Semaphore};

use super::disposition::Disposition;
use super::{Consumer, Description, Handler, Intake, Services};
use crate::finality::{Finality, HandlerError, ReplyError};
use crate::jobs::deletion::{self, PlannedDeletion};
use crate::jobs::{Jobs, Stopping};
use crate::schedule;

/// Messages that are processed at a time: a job is mostly one, a deletion waits for the provider.
const AT_ONCE: usize = 32;
/// How many of them are deletions, at most. Thousands that are late do not hold up a job that stands behind them in the queue:
/// what finds no place comes again within so many seconds, spread over them.
const DELETIONS_AT_ONCE: usize = 24;
const COMES_AGAIN_WITHIN_S: usize = 15;
/// The most concurrent polls.
const MAX_POLLS: usize = 2;
/// How long a message of a newer version waits for a newer worker at first.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(60);
/// Reply queues whose senders are kept.
const REPLY_QUEUES: usize = 64;

/// The most that a worker's clock and SQS's differ: otherwise the worker receives nothing.
const CLOCKS_DIFFER: Duration = Duration::from_millis(MAX_SKEW_MS.unsigned_abs());

/// The report of a run that came too late.
const TOO_LATE: &str = "no worker began it before its deadline";
/// The report of a run that was received before and comes again too late.
const INTERRUPTED: &str = "a worker that had received it was interrupted, perhaps in the middle of the run, and its deadline \
    has passed: what was done is not counted; ask for it again";

/// Runs jobs and deletes sandboxes at the provider.
#[derive(Debug)]
pub(crate) struct MaintenanceHandler {
    replies: ReplySenders,
    jobs: Jobs,
    deletions: Semaphore,
}

/// A decoded message.
#[derive(Debug)]
pub(crate) enum IncomingTask {
    /// One of this broker, the reply queue of the process that waits for its report, and the report once there is one: a run
    /// whose report could not be stored is not repeated for that.
    Ours(Box<MaintenanceMessage>, Option<ReplyQueueName>, OnceCell<JobReport>),
    /// One of an external scheduler.
    Trigger(ScheduledTrigger, OnceCell<Timestamp>),
}

impl Handler for MaintenanceHandler {
    type Message = IncomingTask;

    fn decode(&self, delivery: &Delivery, now: Timestamp) -> Result<IncomingTask, Disposition> {
        match Incoming::decode_taken(&delivery.body, delivery.sent_at.max(now)) {
            Ok(Incoming::Ours(message)) => {
                let reply_to =
                    message.reply_to.as_deref().map(|name| self.jobs.urls.names().parse_reply(name));
                let reply_to = reply_to.transpose().map_err(|error| Disposition::of_foreign(&error))?;
                Ok(IncomingTask::Ours(message, reply_to, OnceCell::new()))
            }
            Ok(Incoming::Trigger(trigger)) => Ok(IncomingTask::Trigger(trigger, OnceCell::new())),
            Err(error) => Err(Disposition::of_unreadable(&error, delivery, NEWER_VERSION_WAITS, now)),
        }
    }

    fn describe<'m>(&self, message: &'m IncomingTask) -> Option<Description<'m>> {
        Some(match message {
            IncomingTask::Ours(message, ..) => Description {
                kind: message.body.kind(),
                request_id: Some(message.request_id),
                traceparent: message.traceparent.as_deref(),
            },
            IncomingTask::Trigger(..) => {
                Description { kind: ScheduledTrigger::KIND, request_id: None, traceparent: None }
            }
        })
    }

    async fn handle(&self, delivery: &Delivery, message: &IncomingTask) -> Result<Disposition, HandlerError> {
        let (message, reply_to, report) = match message {
            IncomingTask::Ours(message, reply_to, report) => (message, reply_to.as_ref(), report),
            IncomingTask::Trigger(trigger, ran) => {
                return self.start(trigger.job(), delivery.sent_at, ran).await;
            }
        };
        match &message.body {
            MaintenanceTask::RunJob { task } => {
                self.run_job(message, task, reply_to, (report, delivery.receive_count)).await
            }
            MaintenanceTask::Delete { sandbox_id, external_id, version, slot_ms } => {
                let planned = PlannedDeletion {
                    sandbox_id: sandbox_id.clone(),
                    external_id: external_id.clone(),
                    version: *version,
                    slot: Timestamp::from_ms(*slot_ms),
                };
                self.delete(&planned).await
            }
        }
    }

    fn finality(&self, error: &HandlerError) -> Finality {
        match error {
            HandlerError::Store(error) => Finality::of(error, "refused", "refused"),
            HandlerError::Inconsistent { .. } | HandlerError::Newer { .. } | HandlerError::Reply(_) => {
                error.finality()
            }
        }
    }
}

impl MaintenanceHandler {
    /// The consumer of the maintenance queue.
    pub(crate) fn consumer(services: &Services, jobs: Jobs) -> Consumer<Self> {
        let replies = ReplySenders::new(jobs.aws.sqs.clone(), jobs.urls.clone(), 1, REPLY_QUEUES);
        let bounds = Intake { queue: QueueKind::Maintenance, at_once: AT_ONCE, max_polls: MAX_POLLS };
        let deletions = Semaphore::new(DELETIONS_AT_ONCE);
        Consumer::new(services, bounds, Self { replies, jobs, deletions })
    }

    async fn delete(&self, planned: &PlannedDeletion) -> Result<Disposition, HandlerError> {
        let Ok(_place) = self.deletions.try_acquire() else {
            let after = 1 + self.jobs.entropy.below(COMES_AGAIN_WITHIN_S);
            return Ok(Disposition::Resend(Duration::from_secs(after as u64)));
        };
        let ended = match self.jobs.delete(planned).await {
            // The table is the queue of deletions: it is due again, and a letter would bring nothing that is not there.
            Err(ref error @ StoreError::Malformed { ref item, .. })
                if item.strip_prefix("SBX#") == Some(planned.sandbox_id.as_str()) =>
            {
                tracing::error!(sandbox = %planned.sandbox_id, "not deleted, and planned again: {error}");
                return Ok(Disposition::Done);
            }
            ended => ended?,
        };
        Ok(match ended {
            deletion::DeletionEnd::NotYet(wait) => Disposition::Resend(wait),
            deletion::DeletionEnd::Deleted
            | deletion::DeletionEnd::Void
            | deletion::DeletionEnd::Postponed
            | deletion::DeletionEnd::Failed
            | deletion::DeletionEnd::Quarantined
            | deletion::DeletionEnd::GivenUp => Disposition::Done,
        })
    }

    async fn run_job(
        &self,
        message: &MaintenanceMessage,
        task: &Task,
        reply_to: Option<&ReplyQueueName>,
        (report, receives): (&OnceCell<JobReport>, u32),
    ) -> Result<Disposition, HandlerError> {
        if reply_to.is_none() && self.is_left_out(message, task).await? {
            tracing::info!(job = task.as_str(), "not run: it is paused");
            return Ok(Disposition::Done);
        }
        let report = report.get_or_try_init(|| async {
            if self.jobs.clock.now() <= message.times().deadline {
                return self.jobs.run(task, message.times().deadline).await;
            }
            let why = too_late(receives);
            tracing::info!(job = task.as_str(), why, "not begun after its deadline: left to the next run");
            Ok(JobReport { aborted: Some(why.to_owned()), ..JobReport::new(task) })
        });
        let report = match report.await {
            Ok(report) => report,
            Err(Stopping) => return Ok(Disposition::GiveBack),
        };
        crash_points::point(Point::Ran);
        // A run of the schedule has no record.
        let only_if_asked = message.asynchronous;
        let now = self.jobs.clock.now();
        self.jobs.store.runs.complete(message.request_id, report, only_if_asked, now).await?;
        self.reply(message, reply_to, Outcome::Ran(report.clone())).await?;
        Ok(Disposition::Done)
    }

    /// Whether a run without a reply queue is left out: its job is paused, and it is the schedule's. A run for an operator has a record.
    async fn is_left_out(&self, message: &MaintenanceMessage, task: &Task) -> Result<bool, HandlerError> {
        let (store, now) = (&self.jobs.store, self.jobs.clock.now());
        let Some(job) = task.job() else { return Ok(false) };
        Ok(store.runs.get(message.request_id).await?.is_none()
            && store.schedule.tick(job, Duration::ZERO, now).await?.paused.is_some())
    }

    /// Runs `job` for an external trigger sent at `fired_at`, unless it had its run or must not run.
    async fn start(
        &self,
        job: Job,
        fired_at: Timestamp,
        ran: &OnceCell<Timestamp>,
    ) -> Result<Disposition, HandlerError> {
        if let Some(began) = ran.get() {
            return self.ran_for(job, fired_at, *began).await;
        }
        let (store, began) = (&self.jobs.store, self.jobs.clock.now());
        let tick = store.schedule.tick(job, Duration::ZERO, began).await?;
        let not_run = if tick.paused.is_some() {
            Some("it is paused")
        } else if tick.has_run_for(fired_at, began) {
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
            return Ok(Disposition::GiveBack);
        }
        crash_points::point(Point::Ran);
        // Set once: a delivery is handled by one task.
        ran.set(began).ok();
        self.ran_for(job, fired_at, began).await
    }

    /// Notes that `job` had its run for a trigger sent at `fired_at`, a run that began at `began`.
    async fn ran_for(
        &self,
        job: Job,
        fired_at: Timestamp,
        began: Timestamp,
    ) -> Result<Disposition, HandlerError> {
        // A trigger from before the run began had its run, by whatever clock.
        let ran_for = fired_at.max(began.minus(CLOCKS_DIFFER));
        self.jobs.store.schedule.note_ran_for(job, ran_for, self.jobs.clock.now()).await?;
        Ok(Disposition::Done)
    }

    async fn reply(
        &self,
        message: &MaintenanceMessage,
        reply_to: Option<&ReplyQueueName>,
        outcome: Outcome,
    ) -> Result<(), HandlerError> {
        let Some(reply_to) = reply_to else { return Ok(()) };
        let sending = self.replies.sending();
        let reply = Reply::to(message, outcome).traced(sending.traceparent());
        match self.replies.send(reply_to, reply.encode()).await {
            Ok(()) | Err(SendError::Gone { .. }) => Ok(()),
            // The report is stored; a wake-up that comes after the wait is not worth a retry.
            Err(SendError::Unavailable { .. }) if self.jobs.clock.now() > message.times().reply_by => Ok(()),
            Err(error) => Err(ReplyError::Send(error).into()),
        }
    }
}

/// Why a run that comes after its deadline for the `receives`-th time is not begun.
const fn too_late(receives: u32) -> &'static str {
    if receives > 1 { INTERRUPTED } else { TOO_LATE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_a_worker_had_received_is_not_said_to_have_begun_nowhere() {
        assert_eq!(too_late(1), TOO_LATE);
        assert_eq!([2, 9].map(too_late), [INTERRUPTED; 2]);
    }
}
