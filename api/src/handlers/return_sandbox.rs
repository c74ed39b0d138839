//! `POST /v1/sandboxes/{id}/mark-for-deletion`: the owner gives a sandbox back.
//!
//! What it does not do: judge whether he may; a worker does, where it can act on it in the same write. Or heed
//! `respond-async`: a return takes as long as its reply, and nobody would want to cancel it.

use std::time::Duration;

use broker_domain::{RequestId, ReturnRequest, SandboxId, TrackId};
use broker_messages::Request;
use http::request::Parts;

use crate::request::prefer::Preferences;
use crate::response::Answer;
use crate::response::problem::Problem;
use crate::rpc::RequestReply;

/// Takes sandboxes back.
pub(crate) struct ReturnSandbox {
    pub(crate) rpc: RequestReply,
    pub(crate) wait: Duration,
}

impl ReturnSandbox {
    pub(crate) async fn handle(
        &self,
        id: RequestId,
        track: TrackId,
        sandbox: &str,
        head: &Parts,
    ) -> Result<Answer, Problem> {
        let sandbox_id = SandboxId::new(sandbox)?;
        let preferences = Preferences::of(&head.headers);
        let times = self.rpc.times(super::wait(preferences, self.wait));
        let request = ReturnRequest { request_id: id, track, sandbox_id, times };
        let answered = self.rpc.call(&Request::Return(request)).await?;
        super::answer(&answered, id, preferences.without_async())
    }
}
