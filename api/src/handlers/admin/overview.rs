//! `GET /v1/admin/overview`: what is there, the last hour, what is wrong right now.
//!
//! Invariant: however many tabs look, one process reads once in two seconds at most; those that come meanwhile share it.

use std::time::Duration;

use broker_queue::topology;
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::overview::{Caller, Overview, OverviewFacts};
use crate::request::auth::Identity;
use crate::response::Response;
use crate::response::problem::Problem;
use crate::shared_read::SharedRead;

/// How long an overview is shown again.
const IS_FRESH: Duration = Duration::from_secs(2);

/// The last overview.
pub(crate) type LastOverview = SharedRead<Overview>;

impl Operator {
    pub(super) async fn overview(&self, caller: &Identity) -> Result<Response, Problem> {
        let overview = self
            .last_overview
            .told_for(IS_FRESH, &self.rpc.clock, async || self.read_overview().await)
            .await?;
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
        Ok(OverviewFacts::read(&rpc.store, &policy, self.scheduler, depth, rpc.clock.now()).await?.overview())
    }
}
