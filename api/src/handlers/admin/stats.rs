//! `GET /v1/admin/stats`: how many sandboxes there are in each state, as the last census counted them; `?live=true`, or
//! without a census, counted now.

use broker_domain::LetterCount;
use broker_store::Census;
use http::StatusCode;
use serde_json::json;

use super::query::Query;
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::problem::Problem;
use crate::shapes::Stats;

pub(super) async fn answer(exchange: &Exchange, query: &Query) -> Result<Answer, Problem> {
    query.only(&["live"])?;
    let known = if query.flag("live")? { None } else { exchange.store.census().await? };
    let census = match known {
        Some(census) => census,
        None => {
            let as_of = exchange.clock.now();
            Census { by_status: exchange.store.count_all().await?, letters: LetterCount::default(), as_of }
        }
    };
    Ok(Answer::json(StatusCode::OK, json!(Stats::new(&census)), "counted"))
}
