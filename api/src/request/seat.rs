//! Seat: a connection's place among those that a process serves.
//!
//! When every place is taken, a few more connections are accepted all the same: a probe on one of them is answered at once, so
//! that a process that is merely full is not taken for dead; anything else waits a moment for a place and is told 503. Each
//! answer on such a connection ends it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are accepted although every place is taken.
const SPARE: usize = 64;
/// How long a request on one of them waits for a place.
const PATIENCE: Duration = Duration::from_secs(1);

/// The places of a process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    places: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

/// What a connection holds until it ends. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    places: Arc<Semaphore>,
    is_spare: bool,
    held: Arc<Mutex<OwnedSemaphorePermit>>,
}

impl Seats {
    pub(crate) fn new(most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { places, spare: Arc::new(Semaphore::new(SPARE)) }
    }

    /// A place for the next connection, or one of the spare ones; when all are taken, the first that is free.
    pub(crate) async fn take(&self) -> Option<Seat> {
        let (places, spare) = (Arc::clone(&self.places), Arc::clone(&self.spare));
        let (held, is_spare) = tokio::select! {
            biased;
            place = places.acquire_owned() => (place.ok()?, false),
            place = spare.acquire_owned() => (place.ok()?, true),
        };
        Some(Seat { places: Arc::clone(&self.places), is_spare, held: Arc::new(Mutex::new(held)) })
    }
}

impl Seat {
    /// Whether it is a spare one: its connection ends with its first answer.
    pub(crate) const fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// Whether a request that is no probe may be answered: on a spare seat, once there is a place.
    pub(crate) async fn admits(&self) -> bool {
        if !self.is_spare {
            return true;
        }
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => {
                *self.held.lock().unwrap_or_else(PoisonError::into_inner) = place;
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
