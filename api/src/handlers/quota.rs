//! `GET /v1/quota`: what the caller's tenant may hold, and holds, and what is reserved for it.
//!
//! Invariant: the use is counted from the permits in the table, by a read that began after the call; a limit is the policy's, five
//! seconds old at most. It shows nothing of other tenants. Concurrent calls of a tenant share one read, which begins after each of
//! them, so a tenant that calls often does not slow claims of others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use broker_domain::TenantName;
use broker_runtime::clock::Clock;
use broker_store::{FollowedPolicy, Store};
use http::StatusCode;
use serde_json::json;

use crate::response::Response;
use crate::response::bodies::{OwnReservation, QuotaReport};
use crate::response::problem::Problem;
use crate::tenants;

/// The last read for a tenant: when it began, and what it found, if it succeeded.
type LastRead = Arc<tokio::sync::Mutex<Option<(Instant, Option<QuotaReport>)>>>;

/// The handler of quotas.
pub(crate) struct Quotas {
    store: Store,
    policy: FollowedPolicy,
    clock: Clock,
    /// By tenant: there are no more than tokens.
    reads: Mutex<HashMap<TenantName, LastRead>>,
}

impl Quotas {
    pub(crate) fn new(store: Store, policy: FollowedPolicy, clock: Clock) -> Self {
        Self { store, policy, clock, reads: Mutex::default() }
    }

    pub(crate) async fn show(&self, tenant: &TenantName) -> Result<Response, Problem> {
        let asked = self.clock.instant();
        let last = {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(reads.entry(tenant.clone()).or_default())
        };
        let mut last = last.lock().await;
        let report = match &*last {
            Some((began, found)) if *began >= asked => {
                found.clone().ok_or_else(|| Problem::unavailable("The table does not answer."))
            }
            _ => {
                let began = self.clock.instant();
                let report = self.read(tenant).await;
                *last = Some((began, report.as_ref().ok().cloned()));
                report
            }
        };
        drop(last);
        Ok(Response::json(StatusCode::OK, json!(report?), "shown"))
    }

    async fn read(&self, tenant: &TenantName) -> Result<QuotaReport, Problem> {
        let policy = self.policy.now()?;
        let limits = tenants::uses(&self.store, &policy, tenant).await?;
        let all = self.store.reservations.all().await?;
        let own = all.iter().filter(|one| one.is_open() && one.terms.tenant == *tenant);
        let reservations = own.map(OwnReservation::from).collect();
        Ok(QuotaReport { tenant: tenant.to_string(), limits, reservations })
    }
}
