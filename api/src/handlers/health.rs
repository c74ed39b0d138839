//! `GET /healthz`, `/readyz`, `/metrics`: for probes and scrapers. None of them waits.

use std::collections::BTreeMap;

use broker_runtime::clock::Clock;
use broker_runtime::metrics::Handle;
use http::StatusCode;
use serde_json::json;

use crate::metrics;
use crate::readiness::ReadinessChecks;
use crate::response::bodies::{self, Alive};
use crate::response::{Content, Response};
use crate::rpc::reply_router::ReplyRouter;

/// `Retry-After` of a process that is not ready, in seconds.
const ASK_AGAIN_S: u64 = 1;

/// The handler of probes and metrics.
pub(crate) struct HealthChecks {
    pub(crate) readiness: ReadinessChecks,
    pub(crate) metrics: Handle,
    pub(crate) replies: ReplyRouter,
    pub(crate) clock: Clock,
}

impl HealthChecks {
    /// Liveness: the response itself is the proof.
    pub(crate) fn alive(&self) -> Response {
        Response::json(StatusCode::OK, json!(Alive { status: "alive" }), "alive")
    }

    pub(crate) fn ready(&self) -> Response {
        let parts = BTreeMap::from(self.readiness.parts());
        if parts.values().all(|fine| *fine) {
            let body = bodies::Readiness { status: "ready", parts };
            Response::json(StatusCode::OK, json!(body), "ready")
        } else {
            let body = bodies::Readiness { status: "not_ready", parts };
            Response::json(StatusCode::SERVICE_UNAVAILABLE, json!(body), "not_ready").retry_after(ASK_AGAIN_S)
        }
    }

    pub(crate) fn metrics(&self) -> Response {
        metrics::gauges(self.replies.pending(), self.clock.correction_s(), self.readiness.is_ready());
        Response::new(StatusCode::OK, Content::Metrics(self.metrics.render()), "metrics")
    }
}
