//! Free sandboxes, and the free permits of each waiting tenant's limits.
//!
//! Invariant: permits are read after the sandboxes were listed, as the lines are. A tenant without a free permit is skipped: what it
//! may not take goes to others, or is offered. The condition of a grant decides which permit it takes.

use std::collections::BTreeMap;

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::Line;
use broker_domain::{Limit, Permit, SandboxName, Status, TenantName, open_below};
use broker_store::{Candidate, StoreError};

use crate::jobs::Jobs;

/// Free permits of a limit that one dealing may use, at most: more than sandboxes that are served together.
const KEPT: usize = super::TOGETHER as usize;

/// A sandbox that is free, as it was listed.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    pub(crate) candidate: Candidate,
    pub(crate) listed: Status,
    /// The tenant that it is put aside for.
    pub(crate) only_for: Option<TenantName>,
}

impl Free {
    /// A sandbox that every tenant may have.
    pub(crate) const fn for_all(candidate: Candidate, listed: Status) -> Self {
        Self { candidate, listed, only_for: None }
    }

    /// Whether a place of `line` may have it.
    pub(crate) fn fits(&self, line: &Line) -> bool {
        line.fits(&self.candidate.name) && self.only_for.as_ref().is_none_or(|tenant| *tenant == line.tenant)
    }
}

/// The limits of tenants that wait, each with its free slots.
#[derive(Debug, Default)]
pub(super) struct Rooms(BTreeMap<TenantName, Vec<(Limit, Vec<u32>)>>);

impl Rooms {
    /// The rooms of the tenants of `lines`, as far as `free` falls under their limits.
    pub(super) async fn of(
        jobs: &Jobs,
        policy: &Policy,
        lines: &[Line],
        free: &[Free],
    ) -> Result<Self, StoreError> {
        let mut rooms = Self::default();
        for line in lines {
            if rooms.0.contains_key(&line.tenant) {
                continue;
            }
            let mut of_tenant = Vec::new();
            for limited in policy.limits_of(&line.tenant) {
                if free.iter().any(|free| limited.limit.covers(&free.candidate.name)) {
                    let slots = free_slots(jobs, &limited).await?;
                    of_tenant.push((limited.limit, slots));
                }
            }
            rooms.0.insert(line.tenant.clone(), of_tenant);
        }
        Ok(rooms)
    }

    /// Whether `tenant` may take a sandbox of this name.
    pub(super) fn has_room(&self, tenant: &TenantName, name: &SandboxName) -> bool {
        let mut of_tenant = self.0.get(tenant).into_iter().flatten();
        !of_tenant.any(|(limit, slots)| slots.is_empty() && limit.covers(name))
    }

    /// How many permits of each of its limits are free.
    pub(super) fn room_of(&self, tenant: &TenantName) -> Vec<(Limit, usize)> {
        let of_tenant = self.0.get(tenant).into_iter().flatten();
        of_tenant.map(|(limit, slots)| (limit.clone(), slots.len())).collect()
    }

    /// A permit for a sandbox of this name: `Ok(None)` where there is no limit, `Err` where none is free any more.
    pub(super) fn take(
        &mut self,
        tenant: &TenantName,
        name: &SandboxName,
    ) -> Result<Option<Permit>, NoPermit> {
        let mut of_tenant = self.0.get_mut(tenant).into_iter().flatten();
        let Some((limit, slots)) = of_tenant.find(|(limit, _)| limit.covers(name)) else { return Ok(None) };
        let slot = slots.pop().ok_or(NoPermit)?;
        Ok(Some(Permit { limit: limit.clone(), slot }))
    }
}

/// No permit of a limit is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPermit;

/// Some of the free slots of a limit, in random order.
async fn free_slots(jobs: &Jobs, limited: &TenantLimit) -> Result<Vec<u32>, StoreError> {
    if limited.max == 0 {
        return Ok(Vec::new());
    }
    let held = jobs.store.permits.slots(&limited.limit).await?;
    let open = 0..open_below(&held, limited.max);
    let mut free: Vec<u32> = open.filter(|slot| !held.contains(slot)).take(KEPT).collect();
    jobs.entropy.shuffle(&mut free);
    Ok(free)
}
