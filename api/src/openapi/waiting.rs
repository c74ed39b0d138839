//! Operations of waiting, for operators.

use serde_json::Value;

use super::operation::{ADMIN, Components, Operation};
use super::parameters;
use crate::request::parameters as query;
use crate::response::bodies::{CancelledWaiting, WaitingList};
use crate::response::codes::Code;

pub(super) fn list(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "listWaiting", "Lists the requests that wait")
        .says("Line by line, each in the order of asking. A page may hold fewer than `limit` and still have a `next_cursor`.")
        .takes_query(query::WAITING_FILTERS)
        .takes_query(query::WAITING_PAGE)
        .answers::<WaitingList>(200, "A page.", &[])
        .fails(&[Code::UnknownFlavour])
        .finish()
}

pub(super) fn cancel(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "cancelWaiting", "Cancels requests that wait")
        .says("Selected by ids, by filters, or all. Exactly one of granted, cancelled and expired becomes of each. If the response has `more`, \
               the same call continues with its `next_cursor` as `cursor`; it may find none, and still have `more`. A call by filters or of all \
               ends within its caller's wait.")
        .takes_query(query::WAITING_FILTERS)
        .takes_query(query::WAITING_ACTION)
        .takes(parameters::prefer())
        .answers::<CancelledWaiting>(200, "What was done.", &[])
        .fails(&[Code::UnknownFlavour])
        .finish()
}
