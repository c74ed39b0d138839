//! `GET /v1/admin/overview`: what is there, the last hour, what is wrong right now.
//!
//! Invariant: however many tabs look, one process reads once in two seconds at most; those that come meanwhile share it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_queue::topology;
use http::StatusCode;
use serde_json::json;
use tokio::sync::Mutex;

use super::Operator;
use crate::overview::{Caller, Overview, Seen};
use crate::request::auth::Identity;
use crate::response::Response;
use crate::response::problem::Problem;

/// How long an overview is shown again.
const IS_FRESH: Duration = Duration::from_secs(2);

/// The last overview. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastOverview(Arc<Mutex<Option<(Instant, Overview)>>>);

impl LastOverview {
    /// Drops the overview, because something in it was changed; the next request reads the table.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

impl Operator {
    pub(super) async fn overview(&self, caller: &Identity) -> Result<Response, Problem> {
        // Requests that come during a read wait for it and share its result.
        let mut last = self.last_overview.0.lock().await;
        let now = self.rpc.clock.instant();
        let fresh = last.as_ref().filter(|(at, _)| now.duration_since(*at) < IS_FRESH);
        let overview = match fresh {
            Some((_, overview)) => overview.clone(),
            None => {
                let read = self.read_overview().await?;
                last.insert((now, read)).1.clone()
            }
        };
        drop(last);
        let caller = Caller { name: caller.name.to_string(), read_only: caller.read_only };
        let overview = Overview { caller: Some(caller), ..overview };
        Ok(Response::json(StatusCode::OK, json!(overview), "shown"))
    }

    async fn read_overview(&self) -> Result<Overview, Problem> {
        let rpc = &self.rpc;
        let depth = match rpc.link.channel() {
            Some(channel) => {
                let queue = channel.requests.queue();
                topology::depth(&self.aws, queue, queue.label().to_string()).await.ok()
            }
            None => None,
        };
        // What is wrong is shown also while the policy is not known.
        let policy = self.policy.now().unwrap_or_default();
        Ok(Seen::read(&rpc.store, &policy, self.scheduler, depth, rpc.clock.now()).await?.overview())
    }
}
