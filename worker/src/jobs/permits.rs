//! Sweep of permits: those whose lease is not live are freed.
//!
//! Every end frees its own; what is found here was left by a worker of an older version. Each permit's lease is read after the
//! permit, and both once more at one instant before it is freed, on the condition that it is that allocation's still: an
//! allocation that has ended never lives again.

use broker_domain::{JobReport, PermitRecord};
use broker_store::{StoreError, permits};

use super::{JobError, Jobs, each};

pub(super) async fn sweep(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let policy = jobs.policy.now().unwrap_or_default();
    for tenant in policy.tenants().keys() {
        for limited in policy.limits_of(tenant) {
            for record in jobs.store.permits.held(&limited.limit).await? {
                let swept = one(jobs, &record, report).await;
                each::or_passed_over(swept, &record.permit, report)?;
            }
        }
    }
    Ok(())
}

async fn one(jobs: &Jobs, record: &PermitRecord, report: &mut JobReport) -> Result<(), StoreError> {
    let lease = jobs.store.leases.get(&record.lease_key).await?;
    if record.is_held_by(lease.as_ref()) {
        return Ok(());
    }
    report.found += 1;
    match permits::free_if_dead(&jobs.store, record).await {
        Ok(true) => {
            tracing::info!(permit = %record.permit, track = %record.lease_key.track, "swept a permit without a lease");
            report.changed += 1;
            report.detail("permits", 1);
            jobs.freed.notify_one();
        }
        Ok(false) | Err(StoreError::Conflict) => report.skipped += 1,
        Err(error) => return Err(error),
    }
    Ok(())
}
