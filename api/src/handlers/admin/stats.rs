//! `GET /v1/admin/stats`: the number of sandboxes in each state, from the last census; with `?live=true`, or without a
//! census, counted now.

use broker_domain::DeadLetterCount;
use broker_store::Census;
use http::StatusCode;
use serde_json::json;

use super::query::Query;
use crate::response::Answer;
use crate::response::bodies::Stats;
use crate::response::problem::Problem;
use crate::rpc::RequestReply;

pub(super) async fn answer(rpc: &RequestReply, query: &Query) -> Result<Answer, Problem> {
    query.only(&["live"])?;
    let known = if query.flag("live")? { None } else { rpc.store.census.get().await? };
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
    Ok(Answer::json(StatusCode::OK, json!(Stats::new(&census)), "counted"))
}
