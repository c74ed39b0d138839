//! Admin routes: the pool, its counts, runs of the jobs, dead letters. One match lists them.
//!
//! Jobs are run by a worker, through the maintenance queue, as for the schedule.

mod cursor;
mod dead_letters;
mod jobs;
mod list;
mod query;
mod stats;

use std::time::Duration;

use broker_domain::{LONGEST_STALE_GRACE_HOURS, Removable, RequestId, STALE_GRACE_HOURS, Task};
use broker_runtime::entropy::Entropy;
use http::request::Parts;

#[cfg(test)]
pub(crate) use self::cursor::Cursors;
pub(crate) use self::query::Query;
use crate::response::Answer;
use crate::response::problem::Problem;
use crate::routes::Admin;
use crate::rpc::RequestReply;

/// The handler of the admin routes.
pub(crate) struct Operator {
    pub(crate) rpc: RequestReply,
    pub(crate) wait: Duration,
    pub(crate) entropy: Entropy,
}

impl Operator {
    /// The response to the operator whose token is called `who`.
    pub(crate) async fn answer(
        &self,
        id: RequestId,
        who: &str,
        admin: Admin,
        in_path: &str,
        head: &Parts,
    ) -> Result<Answer, Problem> {
        let query = Query::parse(head.uri.query())?;
        match admin {
            Admin::Sandboxes => list::answer(&self.rpc.store, &query).await,
            Admin::Stats => stats::answer(&self.rpc, &query).await,
            Admin::Sync => {
                query.only(&["accept_stale"])?;
                let accept_stale = query.flag("accept_stale")?;
                self.run(id, who, Task::Sync { accept_stale }, head).await
            }
            Admin::Cleanup => self.run(id, who, Task::Cleanup, head).await,
            Admin::Expire => self.run(id, who, Task::Expire, head).await,
            Admin::PurgeStale => {
                query.only(&["grace_period_hours"])?;
                let hours = query.number("grace_period_hours", 0..=LONGEST_STALE_GRACE_HOURS)?;
                let grace_period_hours = hours.unwrap_or(STALE_GRACE_HOURS);
                self.run(id, who, Task::PurgeStale { grace_period_hours }, head).await
            }
            Admin::BulkDelete => {
                query.only(&["status"])?;
                let status = query.get("status").and_then(Removable::parse);
                let status =
                    status.ok_or_else(|| Problem::invalid("status must be stale or deletion_failed."))?;
                self.run(id, who, Task::BulkDelete { status }, head).await
            }
            Admin::Job => self.report(in_path).await,
            Admin::DeadLetters => self.dead_letters(&query).await,
            Admin::DeadLetter => self.dead_letter(in_path).await,
            Admin::Replay => self.replay(&query, head, who).await,
            Admin::Discard => self.discard(&query, head, who).await,
        }
    }
}
