//! Counts of this process's recent grants by flavour. Heartbeats carry them, and the APIs compute their estimates from them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::policy::{ANY_FLAVOUR, Policy};
use broker_domain::waiting::{Granted, RecentGrants};
use broker_domain::{SandboxName, Timestamp};

/// The grants. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnGrants(Arc<Mutex<RecentGrants>>);

impl OwnGrants {
    fn recent(&self) -> MutexGuard<'_, RecentGrants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a grant of a sandbox of this name.
    pub(super) fn count(&self, policy: &Policy, name: &SandboxName, now: Timestamp) {
        let flavour = policy.flavour_of(name).map_or(ANY_FLAVOUR, |flavour| flavour.as_str());
        self.recent().add(flavour, now);
    }

    /// What was granted lately.
    pub(crate) fn lately(&self, now: Timestamp) -> Granted {
        self.recent().lately(now)
    }
}
