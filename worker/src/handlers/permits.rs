//! Permits: the free slots of limits, which claims of this worker try.
//!
//! Each claim of a limited tenant gets a free slot of its own, from one look at the limit's permits that all claims which wait
//! share. Before what a look found is used up or too old, one claim makes the next one, and the others go on. Invariants: a slot is held by one claim of the process at a time; "full" is told only to a claim that came before
//! a look which found every slot taken; what was seen under one policy is not believed under another, since a limit that is
//! the same again may have been higher in between; and what was seen while a process may have followed an older policy is
//! believed for a moment only. Another worker may be faster; the claim's condition decides.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::policy::TenantLimit;
use broker_domain::{Limit, Permit, Quota, open_below};
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{FollowedPolicy, Store, StoreError};
use tokio::sync::Notify;

use super::key_turns::{KeyTurn, KeyTurns};

/// Free slots that are kept of one look, at most.
const KEPT: usize = 256;
/// Held slots that a look reads, at most. Only where none of those between them is free, all are read.
const READ: u16 = 250;
/// A limit that was lowered: a process that follows the older one for some seconds yet may take slots beyond the new one.
const SETTLES_IN: Duration = Duration::from_secs(10);
/// How long a look at all slots is believed, and what was found free since: at first, and once the limit has settled.
const BELIEVED_FOR: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// The part of that time after which the next look is due.
const DUE_AFTER: f64 = 0.75;
/// The part of the free slots that were kept, if they were many, with which the next look begins.
const LEFT: usize = 4;
const MANY: usize = 32;
/// The longest wait for a slot that another claim of this process holds, before the next look.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// The permits of one worker process.
#[derive(Debug)]
pub(super) struct TenantPermits {
    store: Store,
    clock: Clock,
    entropy: Entropy,
    policy: FollowedPolicy,
    looks: KeyTurns<Limit, SlotsLearnt>,
    slots: Arc<Slots>,
}

/// What a look at a limit's permits learnt.
#[derive(Clone, Copy, Debug)]
enum SlotsLearnt {
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

impl TenantPermits {
    pub(super) fn new(store: Store, clock: Clock, entropy: Entropy, policy: FollowedPolicy) -> Self {
        Self { store, clock, entropy, policy, looks: KeyTurns::default(), slots: Arc::default() }
    }

    /// A permit of `limited` to try, or what its use is when all are taken.
    pub(super) async fn next(&self, limited: &TenantLimit) -> Result<Slot, StoreError> {
        let TenantLimit { flavour, limit, max } = limited;
        let quota = |held| Slot::Full(Quota { flavour: flavour.clone(), held, max: *max });
        let mut place = self.looks.place(limit);
        let mut looked_ahead = false;
        loop {
            let terms = LimitTerms { max: *max, version: self.policy.version() };
            if !looked_ahead
                && self.slots.are_soon_over(limit, terms, self.clock.instant())
                && let Some(turn) = place.turn_if_free()
            {
                looked_ahead = true;
                // If it fails, there is what was found before.
                if let Ok(look) = self.look(limit, terms).await {
                    turn.learnt(look);
                }
                continue;
            }
            if let Some((slot, look)) = self.slots.take(limit, terms, self.clock.instant()) {
                let (slots, permit) = (Arc::clone(&self.slots), Permit { limit: limit.clone(), slot });
                return Ok(Slot::Free(HeldPermit { slots, permit, look, released: false }));
            }
            let released = self.slots.released.notified();
            let look = match place.turn().await {
                KeyTurn::Mine(turn) => match self.look(limit, terms).await {
                    Ok(look) => {
                        turn.learnt(look);
                        look
                    }
                    Err(error) => {
                        turn.learnt(SlotsLearnt::Failed);
                        return Err(error);
                    }
                },
                KeyTurn::Learnt(look) => *look,
            };
            match look {
                SlotsLearnt::Free => {}
                SlotsLearnt::Full(held) => return Ok(quota(held)),
                SlotsLearnt::Failed => {
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
    async fn look(&self, limit: &Limit, terms: LimitTerms) -> Result<SlotsLearnt, StoreError> {
        let (max, began) = (terms.max, self.clock.instant());
        self.slots.with(limit, |slots| slots.gone.clear());
        // From anywhere on and in any order, so that workers seldom try the same.
        let start = (self.entropy.unit() * f64::from(max)) as u32;
        let before = self.slots.with(limit, |slots| slots.look).filter(|before| before.terms == terms);
        if before.is_some_and(|before| before.none_beyond && !before.is_soon_over(terms, began)) {
            let page = self.store.permits.slots_after(limit, start, READ).await?;
            let is_read = |slot: &u32| page.next.is_none_or(|last| slot.to_string() <= last.to_string());
            let behind = std::iter::successors(next_by_text(start, max), |slot| next_by_text(*slot, max));
            let found = behind.take_while(is_read).filter(|slot| !page.items.contains(slot));
            if self.slots.with(limit, |slots| slots.keep(found, &self.entropy)) {
                return Ok(SlotsLearnt::Free);
            }
        }
        let held = self.store.permits.slots(limit).await?;
        let open = open_below(&held, max);
        let first = before.map_or(began, |before| before.first);
        let settled = began.duration_since(first) >= SETTLES_IN;
        let ended = self.clock.instant();
        let look = LookAtAll { terms, first, settled, ended, none_beyond: open == max };
        let from = start.min(open);
        let found = (from..open).chain(0..from).filter(|slot| !held.contains(slot));
        self.slots.with(limit, |slots| {
            slots.look = Some(look);
            slots.keep(found, &self.entropy)
        });
        let is_full = held.range(..open).count() >= open as usize;
        Ok(if is_full {
            SlotsLearnt::Full(u32::try_from(held.len()).unwrap_or(u32::MAX))
        } else {
            SlotsLearnt::Free
        })
    }
}

/// The limit for which slots are looked for, and the version of the policy that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LimitTerms {
    max: u32,
    version: u64,
}

/// A look at all slots of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LookAtAll {
    /// The limit.
    terms: LimitTerms,
    /// When the first one under these terms began.
    first: Instant,
    /// Whether the limit had settled when this one began.
    settled: bool,
    ended: Instant,
    /// Whether it found no slot beyond the limit held.
    none_beyond: bool,
}

impl LookAtAll {
    /// Whether it is believed of the limit `terms` at `now`.
    fn holds(&self, terms: LimitTerms, now: Instant) -> bool {
        self.terms == terms && now.duration_since(self.ended) < self.believed_for()
    }

    /// Whether the next one is due at `now`.
    fn is_soon_over(&self, terms: LimitTerms, now: Instant) -> bool {
        !self.holds(terms, now) || now.duration_since(self.ended) >= self.believed_for().mul_f64(DUE_AFTER)
    }

    fn believed_for(&self) -> Duration {
        BELIEVED_FOR[usize::from(self.settled)]
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
    /// What was found free, by the last look at all slots or since.
    ready: Vec<u32>,
    /// How many that were.
    found: usize,
    /// The last look at all slots.
    look: Option<LookAtAll>,
    busy: HashSet<u32>,
    /// Those that claims took since the look under way began: it may have read them before.
    gone: HashSet<u32>,
}

impl OfLimit {
    /// Keeps what was found free; whether there was something that no claim holds.
    fn keep(&mut self, found: impl Iterator<Item = u32>, entropy: &Entropy) -> bool {
        let may_be_free = |slot: &u32| !self.busy.contains(slot) && !self.gone.contains(slot);
        self.ready = found.filter(may_be_free).take(KEPT).collect();
        entropy.shuffle(&mut self.ready);
        self.found = self.ready.len();
        !self.ready.is_empty()
    }
}

impl Slots {
    fn with<T>(&self, limit: &Limit, change: impl FnOnce(&mut OfLimit) -> T) -> T {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = of.get_mut(limit) {
            return change(slots);
        }
        change(of.entry(limit.clone()).or_default())
    }

    /// A slot that was found for the limit `terms` and that no claim holds, with the look that is believed of it at `now`.
    fn take(&self, limit: &Limit, terms: LimitTerms, now: Instant) -> Option<(u32, LookAtAll)> {
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
    fn are_soon_over(&self, limit: &Limit, terms: LimitTerms, now: Instant) -> bool {
        self.with(limit, |slots| {
            let Some(look) = slots.look.filter(|look| look.holds(terms, now)) else { return false };
            let few = slots.found >= MANY && slots.ready.len() <= slots.found / LEFT;
            !slots.ready.is_empty() && (few || look.is_soon_over(terms, now))
        })
    }

    fn are_busy(&self, limit: &Limit) -> bool {
        self.with(limit, |slots| slots.ready.is_empty() && !slots.busy.is_empty())
    }

    fn release(&self, permit: &Permit, look: LookAtAll, then: Then) {
        self.with(&permit.limit, |slots| {
            slots.busy.remove(&permit.slot);
            match then {
                Then::TryAgain if slots.look == Some(look) => slots.ready.push(permit.slot),
                Then::Gone => drop(slots.gone.insert(permit.slot)),
                Then::TryAgain => {}
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
    /// The look that was believed of it. What a later one says of the slot is not known.
    look: LookAtAll,
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
        let hold = |slot| {
            let (slots, permit) = (Arc::clone(&slots), Permit { limit: limit(), slot });
            HeldPermit { slots, permit, look, released: false }
        };
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
        HeldPermit {
            slots: Arc::clone(&slots),
            permit: Permit { limit: limit(), slot },
            look,
            released: false,
        }
        .taken();
        let entropy = Entropy::from_system();
        let finds =
            |of: u32| slots.with(&limit(), |slots| slots.keep(0..of, &entropy).then(|| slots.ready.clone()));
        assert_eq!(finds(2), Some(vec![0]), "it may have read the slot before");
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
