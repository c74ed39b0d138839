//! `POST /v1/sandboxes/{id}/mark-for-deletion`: the owner gives a sandbox back.
//!
//! The worker checks the owner, in the same write. `respond-async` is ignored: a return takes no longer
//! than its reply, and there is no reason to cancel one.

use std::time::Duration;

use broker_domain::{RequestId, ReturnRequest, SandboxId};
use broker_messages::Request;
use http::request::Parts;

use crate::request::auth::TrackCaller;
use crate::request::prefer::Preferences;
use crate::response::Response;
use crate::response::problem::Problem;
use crate::rpc::RequestReply;

/// The handler of returns.
pub(crate) struct ReturnSandbox {
    pub(crate) rpc: RequestReply,
    pub(crate) wait: Duration,
}

impl ReturnSandbox {
    pub(crate) async fn handle(
        &self,
        id: RequestId,
        caller: TrackCaller,
        sandbox: &str,
        head: &Parts,
    ) -> Result<Response, Problem> {
        let sandbox_id = SandboxId::new(sandbox)?;
        let preferences = Preferences::of(&head.headers);
        let times = self.rpc.times(super::wait(preferences, self.wait));
        let TrackCaller { track, tenant } = caller;
        let request = ReturnRequest { request_id: id, track, sandbox_id, times };
        let answered = self.rpc.call(&Request::Return(request), &tenant).await?;
        super::answer(&answered, id, preferences.without_async())
    }
}
