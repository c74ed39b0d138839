//! `GET /v1/admin/tenants`: what each tenant may hold and holds, who of it waits, what is reserved for it.

use broker_domain::TenantName;
use http::StatusCode;
use serde_json::json;

use super::Operator;
use super::cursor::Cursors;
use crate::request::parameters::{CURSOR, TENANT, TENANTS, TENANTS_LIMIT};
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::TenantList;
use crate::response::problem::Problem;
use crate::tenants::KnownTenants;

impl Operator {
    pub(super) async fn tenants(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[TENANTS])?;
        let store = &self.rpc.store;
        let cursors = Cursors::of("tenants", store.table(), query);
        let named = |text: &str| cursors.parse_text(text).and_then(|name| TenantName::new(name).ok());
        let after = query.checked(&CURSOR, |text| named(text).ok_or(()))?;
        let only = query.checked(&TENANT, |text| TenantName::new(text))?;
        let most = usize::try_from(query.number(&TENANTS_LIMIT)?).unwrap_or(usize::MAX);
        let (policy, lines) = (self.policy.now()?, self.lines.now().await?);
        let reservations = store.reservations.all().await?;
        let known = KnownTenants {
            policy: &policy,
            lines: &lines.listed,
            reservations: &reservations,
            now: self.rpc.clock.now(),
        };
        let page = known.page(store, only.as_ref(), after.as_ref(), most).await?;
        let next_cursor = page.after.map(|name| cursors.encode_text(name.as_str()));
        Ok(Response::json(StatusCode::OK, json!(TenantList { tenants: page.tenants, next_cursor }), "listed"))
    }
}
