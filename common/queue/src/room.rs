//! Room for the messages of a poll: permits taken before the poll is sent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sender::BATCH;

/// Room for the messages of a poll.
pub(super) enum Room {
    Unbounded,
    Permits(OwnedSemaphorePermit),
}

impl Room {
    /// The room of `first` and the other free permits, up to a full batch.
    pub(super) fn beyond(permits: &Arc<Semaphore>, mut first: OwnedSemaphorePermit) -> Self {
        while first.num_permits() < BATCH {
            match Arc::clone(permits).try_acquire_owned() {
                Ok(another) => first.merge(another),
                Err(_none_free) => break,
            }
        }
        Self::Permits(first)
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Unbounded => BATCH,
            Self::Permits(permits) => permits.num_permits(),
        }
    }

    pub(super) fn take_one(&mut self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Unbounded => None,
            Self::Permits(permits) => permits.split(1),
        }
    }
}
