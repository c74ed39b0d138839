//! Checks and repairs of permits over the whole table, for `pool verify`, sweep and `pool reconcile`.
//!
//! The claim and the end keep each permit consistent with its lease. Differences were left by a program that knows no permits, or by a
//! backup that has one half of a transaction: a permit whose lease is not live is freed, a missing permit of a live lease
//! is put back. Both items are read at one instant before, and the write is conditional on what was read.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{Lease, Limit, PermitRecord, Timestamp};

use crate::found::Found;
use crate::scan_all::{ScanError, scan};
use crate::{Store, StoreError, Write};

/// Every process follows a policy within five seconds, by clocks that may be two seconds off each.
const FOLLOWED_AFTER: Duration = Duration::from_secs(10);

/// Frees a permit whose lease is not live with its allocation; whether it did.
pub async fn free_if_dead(store: &Store, record: &PermitRecord) -> Result<bool, StoreError> {
    let key = std::slice::from_ref(&record.lease_key);
    let together = store.scans.together(&[], key, &[], std::slice::from_ref(&record.permit)).await?;
    let is_there = together.permits.contains(record);
    if !is_there || record.is_held_by(together.leases.first()) || !together.unreadable.is_empty() {
        return Ok(false);
    }
    Ok(store.permits.free(record).await? == Write::Applied)
}

/// Frees the permits without a live lease and puts back those that live leases lack; how many.
pub async fn mend(store: &Store) -> Result<u64, ScanError> {
    let (mut permits, mut leases) = (Vec::new(), Vec::new());
    scan(store, |page| {
        permits.extend(page.permits);
        leases.extend(page.leases.into_iter().filter(|lease| lease.end.is_none() && lease.permit.is_some()));
        true
    })
    .await?;
    let live: HashSet<_> = leases.iter().map(|lease| (lease.allocation_id, lease.permit.as_ref())).collect();
    let held: HashSet<_> =
        permits.iter().map(|record| (record.allocation_id, Some(&record.permit))).collect();
    let mut mended = 0;
    for record in &permits {
        if !live.contains(&(record.allocation_id, Some(&record.permit))) {
            mended += u64::from(free_if_dead(store, record).await?);
        }
    }
    for lease in &leases {
        if let Some(permit) = &lease.permit
            && !held.contains(&(lease.allocation_id, Some(permit)))
        {
            mended += u64::from(store.permits.restore(lease, permit).await? == Write::Applied);
        }
    }
    Ok(mended)
}

/// The leases that fall under limits, as a scan saw them.
pub(crate) struct LimitedLeases {
    policy: Policy,
    since: Timestamp,
    by_limit: BTreeMap<Limit, (u32, Vec<Lease>)>,
}

impl LimitedLeases {
    /// None yet, under the policy that stands now.
    pub(crate) async fn begin(store: &Store) -> Result<Self, StoreError> {
        let stored = store.policy.get().await?;
        // A text of a newer version is for that one to judge.
        let policy = stored.as_ref().and_then(|stored| stored.policy().ok()).unwrap_or_default();
        let since = stored.map_or(Timestamp::from_ms(0), |stored| stored.applied_at.plus(FOLLOWED_AFTER));
        Ok(Self { policy, since, by_limit: BTreeMap::new() })
    }

    /// Adds those of `leases` that are live and were made under this policy: what is older a lowered limit leaves alone.
    pub(crate) fn add(&mut self, leases: &[Lease]) {
        for lease in leases.iter().filter(|lease| lease.end.is_none()) {
            let limited =
                lease.tenant.as_ref().and_then(|tenant| self.policy.limit_of(tenant, &lease.grant.name));
            if let Some(limited) = limited.filter(|_| lease.grant.allocated_at > self.since) {
                let (_, of_limit) = self.by_limit.entry(limited.limit).or_insert((limited.max, Vec::new()));
                of_limit.push(lease.clone());
            }
        }
    }

    /// Limits with more live leases than they allow. Each lease is read again: those that are live still were live together, after
    /// the scan.
    pub(crate) async fn exceeded(self, store: &Store) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for (limit, (max, leases)) in self.by_limit {
            if leases.len() <= max as usize {
                continue;
            }
            let mut live = 0_usize;
            for lease in &leases {
                let now = store.leases.get(&lease.key).await?;
                let same = |now: &Lease| now.end.is_none() && now.allocation_id == lease.allocation_id;
                live += usize::from(now.as_ref().is_some_and(same));
            }
            if live > max as usize {
                let Limit { tenant, prefix } = limit;
                let detail =
                    format!("tenant {tenant} has {live} live leases of {prefix}, and may have {max}");
                found.push(Found { kind: "over_limit", detail });
            }
        }
        Ok(found)
    }
}
