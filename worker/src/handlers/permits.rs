//! Permits: the free slots of limits, which claims of this worker try.
//!
//! Each claim of a limited tenant gets a free slot of its own, from one look at the limit's permits that all claims which wait
//! share. Invariants: a slot is held by one claim of the process at a time; "full" is told only to a claim that came before
//! a look which found every slot taken. Another worker may be faster; the claim's condition decides.

use std::collections::{HashMap, HashSet};
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
/// Held slots that a look reads, at most. Only where none of those between them is free, all are read.
const READ: u16 = 250;
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
#[derive(Clone, Copy, Debug)]
enum Look {
    /// There are free slots.
    Free,
    /// So many slots are held: all below the limit, and perhaps some of a time when it was higher.
    Full(u32),
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
                    Ok(look) => {
                        turn.learnt(look);
                        look
                    }
                    Err(error) => {
                        turn.learnt(Look::Failed);
                        return Err(error);
                    }
                },
                KeyTurn::Learnt(look) => *look,
            };
            match look {
                Look::Free => {}
                Look::Full(held) => return Ok(quota(held)),
                Look::Failed => {
                    let source = "the look of another claim failed".into();
                    return Err(StoreError::Unavailable { operation: "Query", source });
                }
            }
            if self.slots.are_busy(limit) {
                let _ = tokio::time::timeout(BUSY_WAIT, released).await;
            }
        }
    }

    /// The use of `limited`.
    pub(super) async fn quota(&self, limited: &TenantLimit) -> Result<Quota, StoreError> {
        let held = self.store.permits.slots(&limited.limit).await?.len();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        Ok(Quota { flavour: limited.flavour.clone(), held, max: limited.max })
    }

    /// Looks for free slots, and keeps them for the claims that wait.
    async fn look(&self, TenantLimit { limit, max, .. }: &TenantLimit) -> Result<Look, StoreError> {
        // From anywhere on and in any order, so that workers seldom try the same.
        let start = (self.entropy.unit() * f64::from(*max)) as u32;
        let page = self.store.permits.slots_after(limit, start, READ).await?;
        let is_read = |slot: &u32| page.next.is_none_or(|last| slot.to_string() <= last.to_string());
        let behind = std::iter::successors(next_by_text(start, *max), |slot| next_by_text(*slot, *max));
        let found = behind.take_while(is_read).filter(|slot| !page.items.contains(slot));
        if self.slots.keep(limit, found, &self.entropy) {
            return Ok(Look::Free);
        }
        let held = self.store.permits.slots(limit).await?;
        let found = (start..*max).chain(0..start).filter(|slot| !held.contains(slot));
        self.slots.keep(limit, found, &self.entropy);
        let below = held.range(..max).count();
        let is_full = below >= *max as usize;
        Ok(if is_full { Look::Full(u32::try_from(held.len()).unwrap_or(u32::MAX)) } else { Look::Free })
    }
}

/// The slot behind `slot` in the order of their texts; `None` behind the last one below `max`.
fn next_by_text(slot: u32, max: u32) -> Option<u32> {
    if let Some(longer) = slot.checked_mul(10).filter(|longer| *longer > 0 && *longer < max) {
        return Some(longer);
    }
    let mut slot = slot;
    while slot % 10 == 9 || slot + 1 >= max {
        slot /= 10;
        if slot == 0 {
            return None;
        }
    }
    Some(slot + 1)
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

    /// Keeps what was found free; whether there was something that no claim holds.
    fn keep(&self, limit: &Limit, found: impl Iterator<Item = u32>, entropy: &Entropy) -> bool {
        self.with(limit, |slots| {
            slots.ready = found.filter(|slot| !slots.busy.contains(slot)).take(KEPT).collect();
            entropy.shuffle(&mut slots.ready);
            !slots.ready.is_empty()
        })
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
        slots.with(&limit, |slots| slots.ready = vec![0, 1, 1, 7]);
        assert_eq!(slots.take(&limit, 2), Some(1), "7 is beyond");
        assert_eq!(slots.take(&limit, 2), Some(0), "1 is held");
        assert!(slots.take(&limit, 2).is_none() && slots.are_busy(&limit));
        let entropy = Entropy::from_system();
        assert!(!slots.keep(&limit, [0, 1].into_iter(), &entropy), "both are held");
        hold(1).put_back();
        assert_eq!(slots.take(&limit, 2), Some(1), "it was put back");
        hold(0).put_back();
        hold(1).lost();
        assert!(slots.take(&limit, 2).is_none() && !slots.are_busy(&limit), "what was seen is old");
    }

    #[test]
    fn slots_follow_each_other_as_their_texts_do() {
        for max in [1, 2, 9, 10, 11, 100, 101, 1_234] {
            let mut texts: Vec<String> = (0..max).map(|slot: u32| slot.to_string()).collect();
            texts.sort();
            for pair in texts.windows(2) {
                let [one, next] = [&pair[0], &pair[1]].map(|text| text.parse::<u32>().expect("a number"));
                assert_eq!(next_by_text(one, max), Some(next), "behind {one} of {max}");
            }
            let last = texts.last().expect("a slot").parse().expect("a number");
            assert_eq!(next_by_text(last, max), None, "behind {last} of {max}");
        }
    }
}
