//! `GET /v1/admin/sandboxes/{id}/history` and `GET /v1/admin/tracks/{track}`: one sandbox's story, one track's.

use broker_domain::{IdempotencyKey, LeaseKey, SandboxId, TrackId};
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::request::parameters::KEY_OF_TRACK;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::story;

impl Operator {
    pub(super) async fn sandbox_history(&self, id: &str) -> Result<Response, Problem> {
        let not_found = || Problem::new(Code::SandboxNotFound, "There is no such sandbox.");
        let id = SandboxId::new(id).map_err(|_| not_found())?;
        // A sandbox is shown also while the policy is not known.
        let policy = self.policy.now().unwrap_or_default();
        let story = story::of_sandbox(&self.rpc.store, &policy, &id, self.rpc.clock.now()).await?;
        Ok(Response::json(StatusCode::OK, json!(story.ok_or_else(not_found)?), "shown"))
    }

    pub(super) async fn track(&self, track: &str, query: &Query) -> Result<Response, Problem> {
        query.only(&[&[KEY_OF_TRACK]])?;
        let track = TrackId::new(track).map_err(|error| Problem::invalid(format!("track: {error}.")))?;
        let key = query.checked(&KEY_OF_TRACK, |text| IdempotencyKey::new(text))?;
        let key = LeaseKey { key: key.unwrap_or_else(|| IdempotencyKey::from(&track)), track };
        let policy = self.policy.now()?;
        let story = story::of_track(&self.rpc.store, &policy, &key, self.rpc.clock.now()).await?;
        Ok(Response::json(StatusCode::OK, json!(story), "shown"))
    }
}
