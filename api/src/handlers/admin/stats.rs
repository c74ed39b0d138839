//! `GET /v1/admin/stats`: the number of sandboxes in each state, from the last census; with `?live=true`, or without a
//! census, counted now.

use broker_domain::DeadLetterCount;
use broker_store::Census;
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::request::parameters::LIVE;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::Stats;
use crate::response::problem::Problem;

impl Operator {
    pub(super) async fn stats(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[&[LIVE.parameter()]])?;
        let census = self.census(query.flag(&LIVE)?).await?;
        Ok(Response::json(StatusCode::OK, json!(Stats::new(&census)), "counted"))
    }

    /// The last census; if there is none, or `live`, one of now, without dead letters.
    pub(super) async fn census(&self, live: bool) -> Result<Census, Problem> {
        let store = &self.rpc.store;
        if !live && let Some(census) = store.census.get().await? {
            return Ok(census);
        }
        let (policy, as_of) = (self.policy.now()?, self.rpc.clock.now());
        let counted = store.sandboxes.count(&policy).await?;
        Ok(Census {
            by_status: counted.by_status(),
            by_flavour: counted.by_flavour(),
            by_cause: counted.by_cause().clone(),
            by_reservation: counted.by_reservation().clone(),
            letters: DeadLetterCount::default(),
            as_of,
        })
    }
}
