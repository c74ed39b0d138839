//! Runs of jobs: the report if the run ends within the wait, else 202 with a `Location` to poll.
//!
//! Invariant: nothing is sent before its audit line is written; a 202 is returned only after the run was recorded; the worker
//! stores the report before it replies.

use std::time::Duration;

use broker_domain::{Job, JobReport, Outcome, RequestId, RequestState, Task};
use broker_messages::MaintenanceMessage;
use broker_store::{Act, AuditLine, NotDone, waiting};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use tokio::time::sleep;

use super::Operator;
use crate::handlers;
use crate::metrics;
use crate::overview::ScheduledJob;
use crate::request::prefer::Preferences;
use crate::response::Response;
use crate::response::bodies::{QueuedRun, RunBody};
use crate::response::codes::Code;
use crate::response::outcome;
use crate::response::problem::Problem;
use crate::rpc::{SEND_PATIENCE, send_within};

/// `Retry-After` of a run that has not ended, in seconds.
const POLL_AGAIN_S: u64 = 2;

impl Operator {
    pub(super) async fn run(
        &self,
        id: RequestId,
        who: &str,
        task: Task,
        head: &Parts,
    ) -> Result<Response, Problem> {
        let rpc = &self.rpc;
        let times = rpc.times(handlers::wait(Preferences::of(&head.headers), self.wait));
        let waited = sleep(times.reply_by.since(times.enqueued_at));
        let channel =
            rpc.link.channel().ok_or_else(|| Problem::unavailable("The queues cannot be reached."))?;
        let mut waiter = rpc.replies.register(id, None).inspect_err(|_| metrics::shed())?;
        let line = AuditLine::new(times.enqueued_at, *id.as_uuid(), who, Act::RunJob, task.to_string());
        rpc.store.audit.record(&line).await?;
        let mut sending = channel.maintenance.sending();
        let message = MaintenanceMessage::run_for(id, task, times, channel.reply_to.as_str());
        let text = message.traced(sending.traceparent()).encode();
        let patience = times.reply_by.since(times.enqueued_at).max(SEND_PATIENCE);
        let sent = send_within(patience, &channel.maintenance, text, &mut sending, "run").await;
        if let Err(refused) = sent {
            self.not_done(&line, &NotDone::Failed("the run could not be enqueued".to_owned())).await;
            return Err(refused);
        }
        drop(sending);
        tokio::select! {
            biased;
            ended = waiter.reply() => {
                if let Outcome::Ran(report) = &ended {
                    return Ok(ran(report, id));
                }
                Ok(outcome::answer(&ended, id))
            }
            () = waited => self.later(id, &task).await,
            () = rpc.drain_is_near() => self.later(id, &task).await,
        }
    }

    async fn later(&self, id: RequestId, task: &Task) -> Result<Response, Problem> {
        self.rpc.store.runs.record(id, task.as_str(), self.rpc.clock.now()).await?;
        let answer = still_queued(StatusCode::ACCEPTED, task.as_str(), id);
        Ok(answer.located(&format!("/v1/admin/jobs/{id}")))
    }

    /// Pauses or resumes the schedule of a job. Doing it twice changes nothing.
    pub(super) async fn schedule(&self, job: &str, who: &str, act: Act) -> Result<Response, Problem> {
        let job = Job::parse(job).ok_or_else(|| Problem::new(Code::NotFound, "There is no such job."))?;
        let (store, now) = (&self.rpc.store, self.rpc.clock.now());
        let line = AuditLine::new(now, self.entropy.uuid(), who, act, job.as_str());
        let scheduled = Box::pin(async {
            let mut tick = store.schedule.tick(job, Duration::ZERO, now).await?;
            // One that is paused stays so for whom it is, and one that is not stays as it is.
            tick.paused = if act == Act::PauseJob {
                if let Some(why) = waiting::keeps_running(store, job, self.lines.on).await? {
                    return Err(Problem::new(Code::NotPausable, format!("{why}.")));
                }
                Some(self.paused(&line, store.schedule.pause(job, who, now).await?).await)
            } else {
                if !store.schedule.resume(job, now).await?.is_applied() {
                    self.not_done(&line, &NotDone::Unchanged("not paused".to_owned())).await;
                }
                None
            };
            self.last_overview.forget().await;
            let scheduled = ScheduledJob::new(job, Some(&tick), self.scheduler);
            Ok(Response::json(StatusCode::OK, json!(scheduled), "scheduled"))
        });
        self.act(&line, scheduled).await
    }

    /// The report of a run.
    pub(super) async fn report(&self, run: &str) -> Result<Response, Problem> {
        let not_found = || Problem::new(Code::RequestNotFound, "There is no such run.");
        let id = RequestId::parse(run).map_err(|_| not_found())?;
        let run = self.rpc.store.runs.get(id).await?.ok_or_else(not_found)?;
        Ok(match &run.report {
            Some(report) => ran(report, id),
            None => still_queued(StatusCode::OK, &run.job, id),
        })
    }
}

fn ran(report: &JobReport, id: RequestId) -> Response {
    let run = RunBody::new(report, id);
    let status = run.status();
    Response::json(StatusCode::OK, json!(run), status)
}

fn still_queued(status: StatusCode, job: &str, id: RequestId) -> Response {
    let run = QueuedRun { job, request_id: id.to_string(), status: RequestState::Queued.as_str() };
    Response::json(status, json!(run), RequestState::Queued.as_str()).retry_after(POLL_AGAIN_S)
}
