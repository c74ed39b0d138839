//! What to try to claim next.
//!
//! Purpose: hand each claim of this process a different available sandbox, from pages of the index that all waiting
//! claims share. Invariants: a candidate is in the hands of one claim at a time; "there is none" is only said to a claim
//! that began waiting before the look that found nothing began, and only if nothing it found is still being tried. What
//! it does not do: claim. The index is eventually consistent, so a candidate may be gone; the claim's condition tells.

mod buffer;
mod held_candidates;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use broker_domain::NamePrefix;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, Store, StoreError};

use buffer::Buffer;
use held_candidates::HeldCandidates;

/// How many name prefixes have a buffer of their own at a time; the least recently used goes first.
const MAX_BUFFERS: usize = 64;

/// All candidates of one worker process.
#[derive(Debug)]
pub(crate) struct Candidates {
    store: Store,
    clock: Clock,
    entropy: Entropy,
    held_candidates: Arc<HeldCandidates>,
    /// Most recently used last.
    buffers: Mutex<VecDeque<(Option<NamePrefix>, Arc<Buffer>)>>,
}

impl Candidates {
    pub(crate) fn new(store: Store, clock: Clock, entropy: Entropy) -> Self {
        let held_candidates = Arc::new(HeldCandidates::new(clock.clone()));
        Self { store, clock, entropy, held_candidates, buffers: Mutex::default() }
    }

    /// A sandbox to try, or `None` when the pool has nothing suitable.
    pub(crate) async fn next(
        &self,
        prefix: Option<&NamePrefix>,
    ) -> Result<Option<HeldCandidate>, StoreError> {
        let buffer = self.buffer(prefix);
        let next = buffer.next().await?;
        Ok(next.map(|(candidate, look)| HeldCandidate {
            candidate,
            look,
            buffer,
            held_candidates: Arc::clone(&self.held_candidates),
            settled: false,
        }))
    }

    fn buffer(&self, prefix: Option<&NamePrefix>) -> Arc<Buffer> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = buffers
            .iter()
            .position(|(of, _)| of.as_ref() == prefix)
            .and_then(|position| buffers.remove(position));
        let (of, buffer) = found.unwrap_or_else(|| {
            let buffer = Buffer::new(
                self.store.clone(),
                self.clock.clone(),
                self.entropy.clone(),
                Arc::clone(&self.held_candidates),
                prefix.cloned(),
            );
            (prefix.cloned(), Arc::new(buffer))
        });
        buffers.push_back((of, Arc::clone(&buffer)));
        if buffers.len() > MAX_BUFFERS {
            buffers.pop_front();
        }
        buffer
    }
}

/// A candidate in the hands of one claim. Dropped unsettled (the outcome is unknown), it may be listed again at once.
#[derive(Debug)]
pub(crate) struct HeldCandidate {
    candidate: Candidate,
    /// The look that listed it.
    look: u64,
    buffer: Arc<Buffer>,
    held_candidates: Arc<HeldCandidates>,
    settled: bool,
}

impl HeldCandidate {
    pub(crate) const fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// This claim has it: this version of it will not be handed out again.
    pub(crate) fn claimed(mut self) {
        self.settled = true;
        self.held_candidates.gone(&self.candidate);
    }

    /// Somebody else has it, or it changed: likewise, and the page that it came from is left.
    pub(crate) fn lost(mut self) {
        self.settled = true;
        self.held_candidates.gone(&self.candidate);
        self.buffer.leave(self.look);
    }

    /// It was not needed: the next claim may have it.
    pub(crate) fn put_back(mut self) {
        self.settled = true;
        // Free first: whoever takes it out of the buffer must find it free.
        self.held_candidates.free(&self.candidate);
        self.buffer.put_back(self.candidate.clone());
    }
}

impl Drop for HeldCandidate {
    fn drop(&mut self) {
        if !self.settled {
            self.held_candidates.free(&self.candidate);
        }
    }
}
