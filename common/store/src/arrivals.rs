//! Offering of what arrived, by programs that do not serve the pool: `broker pool seed`, `adopt`.
//!
//! The workers ask the gates: here nothing is offered that a gate guards.

use broker_domain::Timestamp;
use broker_domain::policy::Policy;
use tokio::task::JoinSet;

use crate::{Candidate, Store, StoreError};

/// Sandboxes that are offered at the same time.
const AT_ONCE: usize = 50;

/// Offers `arrivals`; what cannot be offered now, or by this program, is left to the workers. Returns how many were offered.
///
/// # Errors
///
/// When the table refuses.
pub async fn offer(store: &Store, arrivals: Vec<Candidate>, now: Timestamp) -> Result<u64, StoreError> {
    let policy = match store.policy.get().await?.map(|stored| stored.policy()) {
        None => Policy::default(),
        Some(Ok(policy)) => policy,
        // Only a newer program can tell what it guards.
        Some(Err(_)) => return Ok(0),
    };
    // What arrives goes to those who wait first, and the workers know how.
    if !store.waiting.lines(now).await?.is_empty() {
        return Ok(0);
    }
    // So it does to reservations that are short.
    if store.reservations.all().await?.iter().any(|one| one.short(now) > 0) {
        return Ok(0);
    }
    let mut open = arrivals.into_iter().filter(|arrival| policy.gate_of(&arrival.name).is_none());
    let (mut running, mut offered) = (JoinSet::new(), 0);
    loop {
        while running.len() < AT_ONCE
            && let Some(arrival) = open.next()
        {
            let store = store.clone();
            running.spawn(async move { store.sandboxes.admit(&arrival, now).await });
        }
        let Some(ended) = running.join_next().await else { return Ok(offered) };
        match ended {
            Ok(Ok(admitted)) => offered += u64::from(admitted.is_applied()),
            Ok(Err(error)) if error.is_retryable() => {}
            Ok(Err(error)) => return Err(error),
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}
