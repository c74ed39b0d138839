//! The follower of reservations: each worker reads those that are open every two seconds.
//!
//! Invariant: a worker knows each reservation within five seconds while the table answers, and none of it is decided by what it
//! knows: whether a sandbox that is put aside is claimed, its version decides, and a reservation's tenant never changes. Until
//! a first read succeeded nothing is claimed. Cost: one read unit for 4 KB of them, half of one if there are none.

use std::sync::Arc;
use std::time::Duration;

use broker_domain::{NamePrefix, Reservation, TenantName};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{CandidateFilter, Store};

/// The pause between two reads.
const EVERY: Duration = Duration::from_secs(2);
/// The pause until a first read succeeded.
const EVERY_WHILE_UNKNOWN: Duration = Duration::from_millis(250);
/// The timeout of a read.
const PATIENCE: Duration = Duration::from_secs(2);

/// The open reservations that a process follows; clones share them.
#[derive(Clone, Debug)]
pub struct FollowedReservations {
    known: watch::Receiver<Option<Arc<[Reservation]>>>,
}

impl FollowedReservations {
    /// Follows the reservations of `store` until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Self {
        let (found, known) = watch::channel(None);
        tokio::spawn(stop.run_until_cancelled_owned(follow(store, found)));
        Self { known }
    }

    /// Once they are known, what is put aside for `tenant` and of use to a request for `prefix`.
    ///
    /// # Errors
    ///
    /// When the process ends before.
    pub async fn of_use_to(
        &self,
        tenant: &TenantName,
        prefix: Option<&NamePrefix>,
    ) -> Result<Vec<CandidateFilter>, watch::error::RecvError> {
        let mut known = self.known.clone();
        let known = known.wait_for(Option::is_some).await?;
        let of_tenant = known.iter().flat_map(|all| all.iter()).filter(|one| one.terms.tenant == *tenant);
        let of_use =
            |one: &Reservation| Some(CandidateFilter::reserved(one.id, Some(one.of_use_to(prefix)?)));
        Ok(of_tenant.filter(|one| one.held > 0).filter_map(of_use).collect())
    }
}

async fn follow(store: Store, found: watch::Sender<Option<Arc<[Reservation]>>>) {
    let mut complained = false;
    loop {
        let problem = match timeout(PATIENCE, store.reservations.all()).await {
            Ok(Ok(all)) => {
                found.send_replace(Some(all.into_iter().filter(Reservation::is_open).collect()));
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("the table does not answer".to_owned()),
        };
        if let Some(problem) = problem.as_ref().filter(|_| !complained) {
            tracing::warn!("reservations could not be read, the last ones stand: {problem}");
        }
        complained = problem.is_some();
        let pause = if found.borrow().is_some() { EVERY } else { EVERY_WHILE_UNKNOWN };
        sleep(pause).await;
    }
}
