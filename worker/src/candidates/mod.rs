//! Candidates: the available sandboxes that claims of this worker try.
//!
//! Each claim of this process gets a different available sandbox, or one that is put aside for its tenant, from pages of the index that all waiting claims share.
//! Invariants: a candidate is held by one claim at a time; "none" is returned only to a claim that began waiting before a
//! refill that found nothing, and only if no candidate of that refill is still held. The index is eventually consistent, so a
//! candidate may be gone; the claim's condition decides.

mod buffer;
mod held_candidates;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use broker_domain::{SandboxName, Status};
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, CandidateFilter, Pages, Store, StoreError};
use tokio::sync::Semaphore;

use buffer::{Buffer, PAGE};
use held_candidates::HeldCandidates;

/// The most name prefixes and reservations with a buffer; the least recently used is dropped first.
const MAX_BUFFERS: usize = 64;

/// How many name prefixes are looked for at a time: a client that sends made-up ones waits for itself.
const PREFIX_LOOKS: usize = 2;

/// Pages of what is offered that are looked through behind candidates that a claim may not have, as in SERVE.
const PAGES_BEHIND: usize = 10;
/// Stands for the refill of a candidate that none listed.
const OF_NO_REFILL: u64 = u64::MAX;

/// The candidates of one worker process.
#[derive(Debug)]
pub(crate) struct Candidates {
    store: Store,
    clock: Clock,
    entropy: Entropy,
    held_candidates: Arc<HeldCandidates>,
    prefix_looks: Arc<Semaphore>,
    /// Whether candidates are listed with the provider's attributes.
    keeps_attributes: bool,
    /// The most recently used last.
    buffers: Mutex<VecDeque<(CandidateFilter, Arc<Buffer>)>>,
}

impl Candidates {
    pub(crate) fn new(store: Store, clock: Clock, entropy: Entropy, keeps_attributes: bool) -> Self {
        let held_candidates = Arc::new(HeldCandidates::new(clock.clone()));
        let prefix_looks = Arc::new(Semaphore::new(PREFIX_LOOKS));
        Self {
            store,
            clock,
            entropy,
            held_candidates,
            prefix_looks,
            keeps_attributes,
            buffers: Mutex::default(),
        }
    }

    /// A candidate to claim, or `None` when the pool has nothing suitable.
    pub(crate) async fn next(&self, of: &CandidateFilter) -> Result<Option<HeldCandidate>, StoreError> {
        let buffer = self.buffer(of);
        let next = buffer.next().await?;
        Ok(self.held(next, buffer))
    }

    /// The same, but what was found empty a moment ago is not looked at.
    pub(crate) async fn next_if_any(
        &self,
        of: &CandidateFilter,
    ) -> Result<Option<HeldCandidate>, StoreError> {
        let buffer = self.buffer(of);
        let next = buffer.next_if_any().await?;
        Ok(self.held(next, buffer))
    }

    /// A candidate whose name `fits`, for a claim that may not have the next one: looked for page by page, as far as
    /// [`PAGES_BEHIND`] pages.
    pub(crate) async fn next_that(
        &self,
        of: &CandidateFilter,
        fits: impl Fn(&SandboxName) -> bool,
    ) -> Result<Option<HeldCandidate>, StoreError> {
        let buffer = self.buffer(of);
        let mut pages = Pages::new(|after| self.store.sandboxes.sweep_candidates(of, after, PAGE));
        for _ in 0..PAGES_BEHIND {
            let Some(mut page) = pages.next().await? else { break };
            page.retain(|candidate| fits(&candidate.name));
            if self.keeps_attributes && !page.is_empty() {
                page = buffer.with_attributes(page).await?;
            }
            self.entropy.shuffle(&mut page);
            if let Some(free) = page.into_iter().find(|candidate| self.held_candidates.take(candidate)) {
                return Ok(self.held(Some((free, OF_NO_REFILL)), buffer));
            }
        }
        Ok(None)
    }

    /// Keeps a sandbox, as a claim has just seen it, for the next claim.
    pub(crate) async fn learn(&self, of: &CandidateFilter, candidate: Candidate) -> Result<(), StoreError> {
        let buffer = self.buffer(of);
        let seen = vec![candidate];
        let seen = if self.keeps_attributes { buffer.with_attributes(seen).await? } else { seen };
        seen.into_iter().for_each(|candidate| buffer.learn(candidate));
        Ok(())
    }

    fn held(&self, next: Option<(Candidate, u64)>, buffer: Arc<Buffer>) -> Option<HeldCandidate> {
        next.map(|(candidate, refill)| HeldCandidate {
            candidate,
            refill,
            buffer,
            held_candidates: Arc::clone(&self.held_candidates),
            released: false,
        })
    }

    fn buffer(&self, wanted: &CandidateFilter) -> Arc<Buffer> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            buffers.iter().position(|(of, _)| of == wanted).and_then(|position| buffers.remove(position));
        let (of, buffer) = found.unwrap_or_else(|| {
            let buffer = Buffer::new(self, wanted.clone());
            (wanted.clone(), Arc::new(buffer))
        });
        buffers.push_back((of, Arc::clone(&buffer)));
        if buffers.len() > MAX_BUFFERS {
            buffers.pop_front();
        }
        buffer
    }
}

/// A candidate held by one claim. If it is dropped unreleased (the outcome is unknown), it may be listed again at once.
#[derive(Debug)]
pub(crate) struct HeldCandidate {
    candidate: Candidate,
    /// The refill that listed it.
    refill: u64,
    buffer: Arc<Buffer>,
    held_candidates: Arc<HeldCandidates>,
    released: bool,
}

impl HeldCandidate {
    pub(crate) const fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// The state in which it was listed.
    pub(crate) fn listed(&self) -> Status {
        self.buffer.status()
    }

    /// This claim got it: this version is gone.
    pub(crate) fn claimed(mut self) {
        self.released = true;
        self.held_candidates.gone(&self.candidate);
    }

    /// Another claim got it, or it changed: this version is gone, and the rest of its page is left.
    pub(crate) fn lost(mut self) {
        self.released = true;
        self.held_candidates.gone(&self.candidate);
        self.buffer.leave(self.refill);
    }

    /// It was not needed: the next claim may have it.
    pub(crate) fn put_back(mut self) {
        self.released = true;
        // Free first: the claim that takes it out of the buffer must find it free.
        self.held_candidates.free(&self.candidate);
        self.buffer.put_back(self.candidate.clone());
    }
}

impl Drop for HeldCandidate {
    fn drop(&mut self) {
        if !self.released {
            self.held_candidates.free(&self.candidate);
        }
    }
}
