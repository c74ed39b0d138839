//! `GET /v1/admin/audit`: a page of the acts of operators on a day, the newest first. One read of the table.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::Operator;
use super::cursor::Cursors;
use crate::request::parameters::{AUDIT, AUDIT_LIMIT, CURSOR, DAYS_AGO};
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::AuditPage;
use crate::response::problem::Problem;

const DAY: Duration = Duration::from_secs(24 * 3_600);

impl Operator {
    pub(super) async fn audit(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[AUDIT])?;
        let days_ago = query.number(&DAYS_AGO)?;
        let limit = query.number(&AUDIT_LIMIT)?;
        let at = self.rpc.clock.now().minus(DAY * days_ago);
        let store = &self.rpc.store;
        // Tomorrow "today" is another day: a cursor is of its date.
        let cursors = Cursors::of(&format!("audit {}", at.date()), store.table(), query);
        let after = query.checked(&CURSOR, |text| cursors.parse(text).ok_or(()))?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let found = store.audit.latest_of_day(at, None, limit, after).await?;
        let page = AuditPage {
            date: at.date(),
            lines: found.items.iter().map(Into::into).collect(),
            next_cursor: found.next.as_ref().map(|next| cursors.encode(next)),
        };
        Ok(Response::json(StatusCode::OK, json!(page), "listed"))
    }
}
