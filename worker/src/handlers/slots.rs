//! Slots: what is known in this process of the permits of a limit, and which claim tries which.
//!
//! Invariants: a slot is tried by one claim of the process at a time; none is given that no believed look found; a look gives no
//! slot that a claim tried while it read.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::{Limit, Permit};
use broker_runtime::entropy::Entropy;
use tokio::sync::Notify;

/// Free slots that are kept of one look, at most.
const KEPT: usize = 256;
/// How long a look at all slots is believed, and what was found free since: at first, and once the limit has settled.
const BELIEVED_FOR: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// The part of that time after which the next look is due.
const DUE_AFTER: f64 = 0.75;
/// The part of the free slots that were kept, if they were many, with which the next look begins.
const LEFT: usize = 4;
const MANY: usize = 32;

/// The limit for which slots are looked for, and the version of the policy that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LimitTerms {
    pub(super) max: u32,
    pub(super) version: u64,
}

/// A look at all slots of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookAtAll {
    /// The limit.
    pub(super) terms: LimitTerms,
    /// When the first one under these terms began.
    pub(super) first: Instant,
    /// Whether the limit had settled when this one began.
    pub(super) settled: bool,
    pub(super) ended: Instant,
    /// Whether it found no slot beyond the limit held.
    pub(super) none_beyond: bool,
}

impl LookAtAll {
    /// Whether it is believed of the limit `terms` at `now`.
    fn holds(&self, terms: LimitTerms, now: Instant) -> bool {
        self.terms == terms && now.duration_since(self.ended) < self.believed_for()
    }

    /// Whether the next one is due at `now`.
    pub(super) fn is_soon_over(&self, terms: LimitTerms, now: Instant) -> bool {
        !self.holds(terms, now) || now.duration_since(self.ended) >= self.believed_for().mul_f64(DUE_AFTER)
    }

    fn believed_for(&self) -> Duration {
        BELIEVED_FOR[usize::from(self.settled)]
    }
}

/// The slot behind `slot` in the order of their texts; `None` behind the last one below `max`.
pub(super) fn next_by_text(slot: u32, max: u32) -> Option<u32> {
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
pub(super) struct Slots {
    of: Mutex<HashMap<Limit, OfLimit>>,
    pub(super) released: Notify,
}

#[derive(Debug, Default)]
pub(super) struct OfLimit {
    /// What was found free, by the last look at all slots or since.
    ready: Vec<u32>,
    /// How many that were.
    found: usize,
    /// The last look at all slots.
    pub(super) look: Option<LookAtAll>,
    busy: HashSet<u32>,
    /// Those that claims tried since the last look began: it may have read them before.
    pub(super) gone: HashSet<u32>,
}

impl OfLimit {
    /// Keeps what was found free; whether there was something that no claim holds.
    pub(super) fn keep(&mut self, found: impl Iterator<Item = u32>, entropy: &Entropy) -> bool {
        let may_be_free = |slot: &u32| !self.busy.contains(slot) && !self.gone.contains(slot);
        self.ready = found.filter(may_be_free).take(KEPT).collect();
        entropy.shuffle(&mut self.ready);
        self.found = self.ready.len();
        !self.ready.is_empty()
    }
}

impl Slots {
    pub(super) fn with<T>(&self, limit: &Limit, change: impl FnOnce(&mut OfLimit) -> T) -> T {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = of.get_mut(limit) {
            return change(slots);
        }
        change(of.entry(limit.clone()).or_default())
    }

    /// A slot that was found for the limit `terms` and that no claim holds, with the look that is believed of it at `now`.
    pub(super) fn take(&self, limit: &Limit, terms: LimitTerms, now: Instant) -> Option<(u32, LookAtAll)> {
        self.with(limit, |slots| {
            let look = slots.look.filter(|look| look.holds(terms, now))?;
            while let Some(slot) = slots.ready.pop() {
                if slots.busy.insert(slot) {
                    return Some((slot, look));
                }
            }
            None
        })
    }

    /// Whether one claim should look again although there are slots: soon they are used up, or not believed any more.
    pub(super) fn are_soon_over(&self, limit: &Limit, terms: LimitTerms, now: Instant) -> bool {
        self.with(limit, |slots| {
            let Some(look) = slots.look.filter(|look| look.holds(terms, now)) else { return false };
            let few = slots.found >= MANY && slots.ready.len() <= slots.found / LEFT;
            !slots.ready.is_empty() && (few || look.is_soon_over(terms, now))
        })
    }

    pub(super) fn are_busy(&self, limit: &Limit) -> bool {
        self.with(limit, |slots| slots.ready.is_empty() && !slots.busy.is_empty())
    }

    fn release(&self, permit: &Permit, look: LookAtAll, then: Then) {
        self.with(&permit.limit, |slots| {
            slots.busy.remove(&permit.slot);
            match then {
                Then::TryAgain if slots.look == Some(look) => slots.ready.push(permit.slot),
                Then::TryAgain => {}
                Then::Gone => {
                    slots.gone.insert(permit.slot);
                }
                Then::LookAgain => {
                    slots.ready.clear();
                    slots.gone.insert(permit.slot);
                }
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
    /// The look that was believed of it. What a later one says of the slot is not known.
    look: LookAtAll,
    released: bool,
}

impl HeldPermit {
    /// A permit of a slot that [`Slots::take`] gave.
    pub(super) const fn new(slots: Arc<Slots>, permit: Permit, look: LookAtAll) -> Self {
        Self { slots, permit, look, released: false }
    }

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
        self.slots.release(&self.permit, self.look, then);
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        if !self.released {
            self.slots.release(&self.permit, self.look, Then::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::{NamePrefix, TenantName};
    use broker_runtime::clock::Clock;

    use super::*;

    const TWO: LimitTerms = LimitTerms { max: 2, version: 7 };

    fn limit() -> Limit {
        Limit {
            tenant: TenantName::new("acme").expect("a tenant"),
            prefix: NamePrefix::new("lab-").expect("a prefix"),
        }
    }

    /// A look that ends now, at the limit of two.
    fn look(settled: bool) -> LookAtAll {
        let now = Clock::system().instant();
        LookAtAll { terms: TWO, first: now, settled, ended: now, none_beyond: true }
    }

    fn found_by(look: LookAtAll, slots: &Slots, found: Vec<u32>) {
        slots.with(&limit(), |slots| (slots.ready, slots.look) = (found, Some(look)));
    }

    #[test]
    fn a_slot_is_held_by_one_claim_at_a_time_and_none_beyond_the_limit_is_given() {
        let (slots, look) = (Arc::new(Slots::default()), look(true));
        let hold = |slot| HeldPermit::new(Arc::clone(&slots), Permit { limit: limit(), slot }, look);
        let take = |terms| slots.take(&limit(), terms, look.ended).map(|(slot, _)| slot);
        for others in [LimitTerms { max: 1, ..TWO }, LimitTerms { version: 9, ..TWO }] {
            found_by(look, &slots, vec![1]);
            assert_eq!(take(others), None, "for another limit or policy");
        }
        found_by(look, &slots, vec![0, 1, 1]);
        assert_eq!(take(TWO), Some(1));
        assert_eq!(take(TWO), Some(0), "1 is held");
        assert!(take(TWO).is_none() && slots.are_busy(&limit()));
        let entropy = Entropy::from_system();
        assert!(!slots.with(&limit(), |slots| slots.keep([0, 1].into_iter(), &entropy)), "both are held");
        hold(1).put_back();
        assert_eq!(take(TWO), Some(1), "it was put back");
        hold(0).put_back();
        hold(1).lost();
        assert!(take(TWO).is_none() && !slots.are_busy(&limit()), "what was seen is old");
        found_by(LookAtAll { none_beyond: false, ..look }, &slots, vec![]);
        hold(1).put_back();
        assert_eq!(take(TWO), None, "a later look may have found it held, or the limit exceeded");
    }

    #[test]
    fn what_was_found_free_is_believed_for_longer_once_the_limit_has_settled() {
        let slots = Slots::default();
        for (settled, seconds) in [(false, 1), (true, 60)] {
            let look = look(settled);
            let after = |seconds| {
                found_by(look, &slots, vec![0]);
                let taken = slots.take(&limit(), TWO, look.ended + Duration::from_secs(seconds));
                slots.with(&limit(), |slots| slots.busy.clear());
                taken.is_some()
            };
            assert!(after(seconds - 1), "settled: {settled}");
            assert!(!after(seconds), "another process may have taken slots beyond since, settled: {settled}");
            assert!(!after(3_600), "settled: {settled}");
        }
    }

    #[test]
    fn the_next_look_is_due_before_what_was_found_is_used_up_or_too_old() {
        let slots = Slots::default();
        let due = |found: u32, left: u32, seconds| {
            let look = look(true);
            found_by(look, &slots, (0..left).collect());
            slots.with(&limit(), |slots| slots.found = found as usize);
            slots.are_soon_over(&limit(), TWO, look.ended + Duration::from_secs(seconds))
        };
        assert!(!due(200, 200, 0) && !due(200, 51, 0), "there are many");
        assert!(due(200, 50, 0), "soon they are used up");
        assert!(!due(20, 1, 0), "of few it would be due with every claim");
        assert!(!due(200, 200, 44) && due(200, 200, 45), "soon they are too old");
        assert!(!due(200, 0, 50) && !due(200, 200, 60), "the claim itself has to look");
    }

    #[test]
    fn what_a_claim_took_while_a_look_was_under_way_is_not_found_by_it() {
        let (slots, look) = (Arc::new(Slots::default()), look(true));
        found_by(look, &slots, vec![1]);
        let (slot, look) = slots.take(&limit(), TWO, look.ended).expect("a slot");
        let held = || HeldPermit::new(Arc::clone(&slots), Permit { limit: limit(), slot }, look);
        held().taken();
        let entropy = Entropy::from_system();
        let finds =
            |of: u32| slots.with(&limit(), |slots| slots.keep(0..of, &entropy).then(|| slots.ready.clone()));
        assert_eq!(finds(2), Some(vec![0]), "it may have read the slot before");
        slots.with(&limit(), |slots| slots.gone.clear());
        held().lost();
        assert_eq!(finds(2), Some(vec![0]), "another worker was faster");
        slots.with(&limit(), |slots| slots.gone.clear());
        assert_eq!(finds(2).map(|found| found.len()), Some(2), "the next look read it after");
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
