//! The follower of reservations: each worker reads those that are open every two seconds, and at once for a request that found nothing.
//!
//! Invariant: a worker knows each reservation within five seconds while the table answers, and nothing depends on this copy being
//! current: a claim is conditional on the sandbox's version, and a reservation's tenant never changes. Before a request is answered
//! "none", a new read is made ([`FollowedReservations::read_now`]), which concurrent callers share. Until a
//! first read succeeded nothing is claimed. Cost: one read unit for 4 KB of them, half of one if there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_domain::{NamePrefix, Reservation, ReservationId, TenantName};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{CandidateFilter, Store};

/// The pause between two reads without a request.
const EVERY: Duration = Duration::from_secs(2);
/// The least pause between two reads: it bounds the cost of an empty pool.
const LEAST: Duration = Duration::from_millis(25);
/// The pause until a first read succeeded.
const EVERY_WHILE_UNKNOWN: Duration = Duration::from_millis(250);
/// The timeout of a read.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the last reads found.
#[derive(Clone, Debug, Default)]
struct KnownReservations {
    /// The number of the last read.
    tried: u64,
    /// The number of the last one that succeeded, from 1.
    read: u64,
    open: Arc<[Reservation]>,
}

/// The open reservations that a process follows; clones share them.
#[derive(Clone, Debug)]
pub struct FollowedReservations {
    known: watch::Receiver<KnownReservations>,
    /// The number of reads that were begun.
    begun: Arc<AtomicU64>,
    wanted: Arc<Notify>,
}

/// The reservations could not be read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reservations could not be read")]
pub struct ReservationsUnknown;

impl FollowedReservations {
    /// Follows the reservations of `store` until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Self {
        let (found, known) = watch::channel(KnownReservations::default());
        let (begun, wanted) = (Arc::default(), Arc::default());
        let followed = Self { known, begun, wanted };
        let follow = follow(store, found, Arc::clone(&followed.begun), Arc::clone(&followed.wanted));
        tokio::spawn(stop.run_until_cancelled_owned(follow));
        followed
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
    ) -> Result<Vec<CandidateFilter>, ReservationsUnknown> {
        let mut known = self.known.clone();
        let known = known.wait_for(|known| known.read > 0).await.map_err(|_| ReservationsUnknown)?;
        Ok(of_use(&known.open, tenant, prefix))
    }

    /// The same by a read that began after this call.
    ///
    /// # Errors
    ///
    /// When that read failed, or the process ends before.
    pub async fn read_now(
        &self,
        tenant: &TenantName,
        prefix: Option<&NamePrefix>,
    ) -> Result<Vec<CandidateFilter>, ReservationsUnknown> {
        let before = self.begun.load(Ordering::SeqCst);
        self.wanted.notify_one();
        let mut known = self.known.clone();
        let known = known.wait_for(|known| known.tried > before).await.map_err(|_| ReservationsUnknown)?;
        if known.read > before { Ok(of_use(&known.open, tenant, prefix)) } else { Err(ReservationsUnknown) }
    }

    /// What is put aside for the reservation `id`, if that is of use to a request of `tenant` for `prefix`. The reservations
    /// are read first if this one is not known.
    ///
    /// # Errors
    ///
    /// When that read failed, or the process ends before.
    pub async fn if_of_use_to(
        &self,
        id: ReservationId,
        tenant: &TenantName,
        prefix: Option<&NamePrefix>,
    ) -> Result<Option<CandidateFilter>, ReservationsUnknown> {
        if !self.known.borrow().open.iter().any(|one| one.id == id) {
            self.read_now(tenant, prefix).await?;
        }
        let known = self.known.borrow();
        let found = known.open.iter().find(|one| one.id == id && one.terms.tenant == *tenant);
        Ok(found.and_then(|one| filter_for(one, prefix)))
    }
}

fn of_use(open: &[Reservation], tenant: &TenantName, prefix: Option<&NamePrefix>) -> Vec<CandidateFilter> {
    let of_tenant = open.iter().filter(|one| one.terms.tenant == *tenant && one.held > 0);
    of_tenant.filter_map(|one| filter_for(one, prefix)).collect()
}

fn filter_for(one: &Reservation, prefix: Option<&NamePrefix>) -> Option<CandidateFilter> {
    Some(CandidateFilter::reserved(one.id, Some(one.of_use_to(prefix)?)))
}

async fn follow(
    store: Store,
    found: watch::Sender<KnownReservations>,
    begun: Arc<AtomicU64>,
    wanted: Arc<Notify>,
) {
    let mut complained = false;
    loop {
        let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let problem = match timeout(PATIENCE, store.reservations.all()).await {
            Ok(Ok(all)) => {
                let open = all.into_iter().filter(Reservation::is_open).collect();
                found.send_replace(KnownReservations { tried: number, read: number, open });
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("the table does not answer".to_owned()),
        };
        if let Some(problem) = &problem {
            found.send_modify(|known| known.tried = number);
            if !complained {
                tracing::warn!("reservations could not be read, the last ones are used: {problem}");
            }
        }
        complained = problem.is_some();
        sleep(LEAST).await;
        let pause = if found.borrow().read > 0 { EVERY } else { EVERY_WHILE_UNKNOWN };
        // The end of the pause and a request are both reasons to read.
        let _asked = timeout(pause, wanted.notified()).await;
    }
}
