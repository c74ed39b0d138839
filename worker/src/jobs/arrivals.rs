//! Arrivals of a job: sandboxes that it brought, or gave back, and that are not served yet.

use std::sync::{Arc, Mutex, PoisonError};

use broker_store::Candidate;

/// Arrivals at the versions that were written. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<Mutex<Vec<Candidate>>>);

impl Arrivals {
    /// Adds one.
    pub(super) fn add(&self, arrival: Candidate) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
    }

    /// Takes all.
    pub(super) fn take(&self) -> Vec<Candidate> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
