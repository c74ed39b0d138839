//! Operations of tenants: their limits and what is reserved for them.

use serde_json::Value;

use super::operation::{ADMIN, Components, Operation, TRACK};
use crate::request::parameters as query;
use crate::response::bodies::{QuotaReport, TenantList};

pub(super) fn quota(parts: &mut Components) -> Value {
    Operation::by_platform(parts, TRACK, "getQuota", "Shows what the caller's tenant may hold, and holds")
        .says(
            "Of the tenant that the token speaks for, counted now. A flavour that is not named has no limit.",
        )
        .answers::<QuotaReport>(200, "Its limits.", &[])
        .finish()
}

pub(super) fn list(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "listTenants", "Lists what tenants may hold and hold")
        .says(
            "Those that the policy names, that wait, or for which something is reserved, by name. One read of the reservations, \
             one of the lines in two seconds at most, and one of the permits of each limit of the page, which ends with the \
             tenant that brings it to a hundred limits: a page may be short and still have a `next_cursor`.",
        )
        .takes_query(query::TENANTS)
        .answers::<TenantList>(200, "A page.", &[])
        .finish()
}
