//! Admin routes: overview, pool, stories, counts, jobs, dead letters, audit, the policy. One match lists them.
//!
//! Jobs are run by a worker, through the maintenance queue, as for the schedule.

mod audit;
mod cursor;
mod dead_letters;
mod flavours;
mod jobs;
mod list;
mod overview;
mod policy;
mod quarantine;
mod refill;
mod reservations;
mod stats;
mod stories;
mod tenants;
mod waiting;

use std::time::Duration;

use broker_domain::{Pause, Removable, RequestId, Task};
use broker_runtime::aws::Aws;
use broker_runtime::config::Scheduler;
use broker_runtime::entropy::Entropy;
use broker_store::quarantine::QuarantineAct;
use broker_store::{Act, AuditLine, FollowedPolicy, NotDone, Write};
use http::request::Parts;

#[cfg(test)]
pub(crate) use self::cursor::Cursors;
pub(crate) use self::overview::LastOverview;
use crate::request::auth::Identity;
use crate::request::parameters::{ACCEPT_STALE, GRACE_PERIOD, REMOVABLE};
use crate::request::query::Query;
use crate::response::Response;
use crate::response::problem::Problem;
use crate::routes::Admin;
use crate::rpc::RequestReply;
use crate::waiting::CachedLines;

/// The handler of the admin routes.
pub(crate) struct Operator {
    pub(crate) rpc: RequestReply,
    pub(crate) wait: Duration,
    pub(crate) entropy: Entropy,
    pub(crate) aws: Aws,
    pub(crate) scheduler: Scheduler,
    pub(crate) last_overview: LastOverview,
    pub(crate) policy: FollowedPolicy,
    pub(crate) lines: CachedLines,
}

impl Operator {
    /// Performs an act under its audit line, which tells if it was refused, found so already, or failed. Acts are boxed: the
    /// future of all routes would be too large for a stack. An error means that it was not done, or that this is unknown: a read
    /// after its write, which only shows the result, fails neither the act nor its line.
    async fn act<T>(
        &self,
        line: &AuditLine,
        perform: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        self.rpc.store.audit.record(line).await?;
        let answer = perform.await;
        if let Err(problem) = &answer {
            let why = problem.message().to_owned();
            let refused = problem.status().is_client_error();
            let how = if refused { NotDone::Refused(why) } else { NotDone::Failed(why) };
            self.not_done(line, &how).await;
        }
        answer
    }

    /// Says in the line of an act that it was not done.
    async fn not_done(&self, line: &AuditLine, how: &NotDone) {
        if let Err(error) = self.rpc.store.audit.record_not_done(line, how).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                act = line.act.as_str(),
                "refusal or failure of an operation not written to the audit"
            );
        }
    }

    /// Says in the line of an act what it came to. The act is done: its answer does not depend on this.
    async fn done(&self, line: &AuditLine, result: &str) {
        if let Err(error) = self.rpc.store.audit.record_end(line.id, line.at, result).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, act = line.act.as_str(), "result of an operation not written to the audit");
        }
    }

    /// The pause that stands. Its line says so if that is another one.
    async fn paused(&self, line: &AuditLine, paused: Write<Pause>) -> Pause {
        match paused {
            Write::Applied => Pause::new(line.who.as_str(), line.at),
            Write::Rejected(pause) => {
                self.not_done(line, &NotDone::Unchanged(format!("already {pause}"))).await;
                pause
            }
        }
    }

    /// The response to an operator.
    pub(crate) async fn answer(
        &self,
        id: RequestId,
        caller: &Identity,
        admin: Admin,
        in_path: &str,
        head: &Parts,
        body: &[u8],
    ) -> Result<Response, Problem> {
        let who = &*caller.name;
        let query = Query::parse(head.uri.query())?;
        match admin {
            Admin::Overview => self.overview(caller).await,
            Admin::SandboxHistory => self.sandbox_history(in_path).await,
            Admin::Track => self.track(in_path, &query).await,
            Admin::Audit => self.audit(&query).await,
            Admin::PauseJob => self.schedule(in_path, who, Act::PauseJob).await,
            Admin::ResumeJob => self.schedule(in_path, who, Act::ResumeJob).await,
            Admin::Sandboxes => self.sandboxes(&query).await,
            Admin::Stats => self.stats(&query).await,
            Admin::Sync => {
                query.only(&[&[ACCEPT_STALE.parameter()]])?;
                let accept_stale = query.flag(&ACCEPT_STALE)?;
                self.run(id, who, Task::Sync { accept_stale }, head).await
            }
            Admin::Cleanup => self.run(id, who, Task::Cleanup, head).await,
            Admin::Expire => self.run(id, who, Task::Expire, head).await,
            Admin::PurgeStale => {
                query.only(&[&[GRACE_PERIOD.parameter()]])?;
                let grace_period_hours = query.number(&GRACE_PERIOD)?;
                self.run(id, who, Task::PurgeStale { grace_period_hours }, head).await
            }
            Admin::BulkDelete => {
                query.only(&[&[REMOVABLE]])?;
                let status = query.get(REMOVABLE.name).and_then(Removable::parse);
                let status =
                    status.ok_or_else(|| Problem::invalid("status must be stale or deletion_failed."))?;
                self.run(id, who, Task::BulkDelete { status }, head).await
            }
            Admin::Job => self.report(in_path).await,
            Admin::DeadLetters => self.dead_letters(&query).await,
            Admin::DeadLetter => self.dead_letter(in_path).await,
            Admin::Replay => self.replay(&query, head, who).await,
            Admin::Discard => self.discard(&query, head, who).await,
            Admin::Flavours => self.flavours(&query).await,
            Admin::Policy => self.policy().await,
            Admin::PutPolicy => self.put_policy(id, who, &query, head, body).await,
            Admin::Refill => self.refill().await,
            Admin::PauseRefill => self.change_refill(id, who, in_path, Act::PauseRefill).await,
            Admin::ResumeRefill => self.change_refill(id, who, in_path, Act::ResumeRefill).await,
            Admin::Quarantine => self.quarantined().await,
            Admin::AddToQuarantine => self.add_to_quarantine(id, who, &query, head).await,
            Admin::ReleaseFromQuarantine => {
                let act = (QuarantineAct::Release, Act::LiftQuarantine);
                self.leave_quarantine(id, who, act, &query, head).await
            }
            Admin::RetireFromQuarantine => {
                self.leave_quarantine(id, who, (QuarantineAct::Retire, Act::Retire), &query, head).await
            }
            Admin::Tenants => self.tenants(&query).await,
            Admin::Waiting => self.waiting(&query).await,
            Admin::CancelWaiting => self.cancel_waiting(id, who, &query, head).await,
            Admin::Reservations => self.reservations().await,
            Admin::Reserve => self.reserve(id, who, body).await,
            Admin::Reservation => self.reservation(in_path).await,
            Admin::ChangeReservation => self.change_reservation(id, who, in_path, body).await,
            Admin::DeleteReservation => self.delete_reservation(id, who, in_path).await,
        }
    }
}
