//! Permits: the free slots of limits, which claims of this worker try.
//!
//! Each claim of a limited tenant gets a free slot of its own, from one look at the limit's permits that all claims which wait
//! share. Invariants: a slot is held by one claim of the process at a time; "full" is told only to a claim that came before
//! a look which found every slot taken. Another worker may be faster; the claim's condition decides.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_domain::policy::TenantLimit;
use broker_domain::{Limit, Permit, Quota};
use broker_runtime::entropy::Entropy;
use broker_store::{Store, StoreError};
use tokio::sync::Notify;

use super::key_turns::{KeyTurn, KeyTurns};

/// Free slots that are kept of one look, at most.
const KEPT: usize = 256;
/// The longest wait for a slot that another claim of this process holds, before the next look.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// The permits of one worker process.
#[derive(Debug)]
pub(super) struct Permits {
    store: Store,
    entropy: Entropy,
    looks: KeyTurns<Limit, Look>,
    slots: Arc<Slots>,
}

/// What a look at a limit's permits learnt.
#[derive(Debug)]
enum Look {
    /// These slots are held.
    Held(BTreeSet<u32>),
    /// The table did not answer.
    Failed,
}

/// What a claim gets.
#[derive(Debug)]
pub(super) enum Slot {
    /// This permit to try.
    Free(HeldPermit),
    /// Every slot is taken.
    Full(Quota),
}

impl Permits {
    pub(super) fn new(store: Store, entropy: Entropy) -> Self {
        Self { store, entropy, looks: KeyTurns::default(), slots: Arc::default() }
    }

    /// A permit of `limited` to try, or what its use is when all are taken.
    pub(super) async fn next(&self, limited: &TenantLimit) -> Result<Slot, StoreError> {
        let TenantLimit { flavour, limit, max } = limited;
        let quota = |held| Slot::Full(Quota { flavour: flavour.clone(), held, max: *max });
        if *max == 0 {
            return Ok(quota(0));
        }
        let mut place = self.looks.place(limit);
        loop {
            if let Some(slot) = self.slots.take(limit, *max) {
                let (slots, permit) = (Arc::clone(&self.slots), Permit { limit: limit.clone(), slot });
                return Ok(Slot::Free(HeldPermit { slots, permit, released: false }));
            }
            let released = self.slots.released.notified();
            let look = match place.turn().await {
                KeyTurn::Mine(turn) => match self.look(limited).await {
                    Ok(held) => {
                        turn.learnt(Look::Held(held.clone()));
                        Arc::new(Look::Held(held))
                    }
                    Err(error) => {
                        turn.learnt(Look::Failed);
                        return Err(error);
                    }
                },
                KeyTurn::Learnt(look) => look,
            };
            let Look::Held(held) = &*look else {
                let source = "the look of another claim failed".into();
                return Err(StoreError::Unavailable { operation: "Query", source });
            };
            if held.iter().filter(|slot| *slot < max).count() >= *max as usize {
                return Ok(quota(u32::try_from(held.len()).unwrap_or(u32::MAX)));
            }
            if self.slots.are_busy(limit) {
                let _ = tokio::time::timeout(BUSY_WAIT, released).await;
            }
        }
    }

    /// The use of `limited`, as the last look saw it.
    pub(super) fn last_seen(&self, limited: &TenantLimit) -> Quota {
        let held = self.slots.with(&limited.limit, |slots| slots.held);
        Quota { flavour: limited.flavour.clone(), held, max: limited.max }
    }

    /// Reads which slots are held, and keeps the free ones for the claims that wait.
    async fn look(&self, limited: &TenantLimit) -> Result<BTreeSet<u32>, StoreError> {
        let held = self.store.permits.slots(&limited.limit).await?;
        // From anywhere on and in any order, so that workers seldom try the same.
        let start = (self.entropy.unit() * f64::from(limited.max)) as u32;
        let slots = (start..limited.max).chain(0..start);
        let mut free: Vec<u32> = slots.filter(|slot| !held.contains(slot)).take(KEPT).collect();
        self.entropy.shuffle(&mut free);
        self.slots.keep(&limited.limit, free, u32::try_from(held.len()).unwrap_or(u32::MAX));
        Ok(held)
    }
}

/// The slots that claims of this process may try, or try.
#[derive(Debug, Default)]
struct Slots {
    of: Mutex<HashMap<Limit, OfLimit>>,
    released: Notify,
}

#[derive(Debug, Default)]
struct OfLimit {
    ready: Vec<u32>,
    busy: HashSet<u32>,
    /// How many were held at the last look.
    held: u32,
}

impl Slots {
    fn with<T>(&self, limit: &Limit, change: impl FnOnce(&mut OfLimit) -> T) -> T {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = of.get_mut(limit) {
            return change(slots);
        }
        change(of.entry(limit.clone()).or_default())
    }

    /// A slot below `max` that no claim holds.
    fn take(&self, limit: &Limit, max: u32) -> Option<u32> {
        self.with(limit, |slots| {
            while let Some(slot) = slots.ready.pop() {
                if slot < max && slots.busy.insert(slot) {
                    return Some(slot);
                }
            }
            None
        })
    }

    fn keep(&self, limit: &Limit, free: Vec<u32>, held: u32) {
        self.with(limit, |slots| (slots.ready, slots.held) = (free, held));
    }

    fn are_busy(&self, limit: &Limit) -> bool {
        self.with(limit, |slots| slots.ready.is_empty() && !slots.busy.is_empty())
    }

    fn release(&self, permit: &Permit, then: Then) {
        self.with(&permit.limit, |slots| {
            slots.busy.remove(&permit.slot);
            match then {
                Then::Gone => {}
                Then::TryAgain => slots.ready.push(permit.slot),
                Then::LookAgain => slots.ready.clear(),
            }
        });
        self.released.notify_waiters();
    }
}

/// What is known of a slot that a claim releases.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It is taken now, or nothing is known.
    Gone,
    /// It was not used.
    TryAgain,
    /// Another worker has it: what else was seen is old.
    LookAgain,
}

/// A permit that one claim of this process tries. If it is dropped unreleased (the outcome is unknown), a look tells.
#[derive(Debug)]
pub(super) struct HeldPermit {
    slots: Arc<Slots>,
    permit: Permit,
    released: bool,
}

impl HeldPermit {
    pub(super) const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// This claim took it.
    pub(super) fn taken(self) {
        self.release(Then::Gone);
    }

    /// Another claim took it.
    pub(super) fn lost(self) {
        self.release(Then::LookAgain);
    }

    /// It was not needed: the next claim may have it.
    pub(super) fn put_back(self) {
        self.release(Then::TryAgain);
    }

    fn release(mut self, then: Then) {
        self.released = true;
        self.slots.release(&self.permit, then);
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        if !self.released {
            self.slots.release(&self.permit, Then::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::{NamePrefix, TenantName};

    use super::*;

    #[test]
    fn a_slot_is_held_by_one_claim_at_a_time_and_none_beyond_the_limit_is_given() {
        let limit = Limit {
            tenant: TenantName::new("acme").expect("a tenant"),
            prefix: NamePrefix::new("lab-").expect("a prefix"),
        };
        let slots = Arc::new(Slots::default());
        let hold = |slot| HeldPermit {
            slots: Arc::clone(&slots),
            permit: Permit { limit: limit.clone(), slot },
            released: false,
        };
        slots.keep(&limit, vec![0, 1, 1, 7], 3);
        assert_eq!(slots.take(&limit, 2), Some(1), "7 is beyond");
        assert_eq!(slots.take(&limit, 2), Some(0), "1 is held");
        assert!(slots.take(&limit, 2).is_none() && slots.are_busy(&limit));
        hold(1).put_back();
        assert_eq!(slots.take(&limit, 2), Some(1), "it was put back");
        hold(0).put_back();
        hold(1).lost();
        assert!(slots.take(&limit, 2).is_none() && !slots.are_busy(&limit), "what was seen is old");
    }
}
