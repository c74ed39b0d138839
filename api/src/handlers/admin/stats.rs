//! `GET /v1/admin/stats`: the number of sandboxes in each state, from the last census; with `?live=true`, or without a
//! census, counted now.

use broker_domain::DeadLetterCount;
use broker_store::Census;
use http::StatusCode;
use serde_json::json;

use crate::request::parameters::LIVE;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::Stats;
use crate::response::problem::Problem;
use crate::rpc::RequestReply;

pub(super) async fn answer(rpc: &RequestReply, query: &Query) -> Result<Response, Problem> {
    query.only(&[&[LIVE.parameter()]])?;
    let known = if query.flag(&LIVE)? { None } else { rpc.store.census.get().await? };
    let census = match known {
        Some(census) => census,
        None => {
            let as_of = rpc.clock.now();
            Census {
                by_status: rpc.store.sandboxes.count().await?,
                letters: DeadLetterCount::default(),
                as_of,
            }
        }
    };
    Ok(Response::json(StatusCode::OK, json!(Stats::new(&census)), "counted"))
}
