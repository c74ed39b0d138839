//! `GET /v1/quota`: what the caller's tenant may hold, and holds, and what is reserved for it.
//!
//! Invariant: the use is counted from the permits in the table, now; a limit is the policy's, five seconds old at most. It says
//! nothing of other tenants.

use broker_domain::TenantName;
use broker_store::{FollowedPolicy, Store};
use http::StatusCode;
use serde_json::json;

use crate::response::Response;
use crate::response::bodies::{OwnReservation, QuotaReport};
use crate::response::problem::Problem;
use crate::tenants;

/// The handler of quotas.
pub(crate) struct Quotas {
    pub(crate) store: Store,
    pub(crate) policy: FollowedPolicy,
}

impl Quotas {
    pub(crate) async fn show(&self, tenant: &TenantName) -> Result<Response, Problem> {
        let policy = self
            .policy
            .now()
            .map_err(|unknown| Problem::unavailable("The policy is not known yet.").because(unknown))?;
        let limits = tenants::uses(&self.store, &policy, tenant).await?;
        let all = self.store.reservations.all().await?;
        let own = all.iter().filter(|one| one.is_open() && one.terms.tenant == *tenant);
        let reservations = own.map(OwnReservation::from).collect();
        let report = QuotaReport { tenant: tenant.to_string(), limits, reservations };
        Ok(Response::json(StatusCode::OK, json!(report), "shown"))
    }
}
