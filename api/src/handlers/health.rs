//! `GET /healthz`, `/readyz`, `/metrics`: for probes and scrapers. None of them waits.

use std::collections::BTreeMap;

use broker_runtime::clock::Clock;
use broker_runtime::metrics::Handle;
use http::StatusCode;
use serde_json::json;

use crate::metrics;
use crate::readiness::Readiness;
use crate::response::bodies::{self, Alive};
use crate::response::{Answer, Content};
use crate::rpc::reply_router::ReplyRouter;

/// `Retry-After` of a process that is not ready, in seconds.
const ASK_AGAIN_S: u64 = 1;

/// The handler of probes and metrics.
pub(crate) struct Health {
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Handle,
    pub(crate) replies: ReplyRouter,
    pub(crate) clock: Clock,
}

impl Health {
    /// Liveness: the response itself is the proof.
    pub(crate) fn alive(&self) -> Answer {
        Answer::json(StatusCode::OK, json!(Alive { status: "alive" }), "alive")
    }

    pub(crate) fn ready(&self) -> Answer {
        let parts = BTreeMap::from(self.readiness.parts());
        if parts.values().all(|fine| *fine) {
            let body = bodies::Readiness { status: "ready", parts };
            Answer::json(StatusCode::OK, json!(body), "ready")
        } else {
            let body = bodies::Readiness { status: "not_ready", parts };
            Answer::json(StatusCode::SERVICE_UNAVAILABLE, json!(body), "not_ready").retry_after(ASK_AGAIN_S)
        }
    }

    pub(crate) fn metrics(&self) -> Answer {
        metrics::gauges(self.replies.pending(), self.clock.correction_s(), self.readiness.is_ready());
        Answer::new(StatusCode::OK, Content::Metrics(self.metrics.render()), "metrics")
    }
}
