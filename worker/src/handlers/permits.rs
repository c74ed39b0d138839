//! Permits: looks at the free slots of limits, which claims of this worker try.
//!
//! Each claim of a limited tenant gets a free slot of its own, from one look at the limit's permits that all claims which wait
//! share. Before what a look found is used up or too old, one claim makes the next one, and the others go on. Invariants: "full"
//! is told only to a claim that came before a look which found every slot taken; what was seen under one policy is not believed
//! under another, since a limit that is the same again may have been higher in between; and what was seen while a process may have
//! followed an older policy is believed for a moment only. Another worker may be faster; the claim's condition decides.

use std::sync::Arc;
use std::time::Duration;

use broker_domain::policy::TenantLimit;
use broker_domain::{Limit, Permit, Quota, open_below};
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{FollowedPolicy, Store, StoreError};

use super::key_turns::{KeyTurn, KeyTurns};
use super::slots::{HeldPermit, LimitTerms, LookAtAll, Slots, next_by_text};

/// Held slots that a look reads, at most. Only where none of those between them is free, all are read.
const READ: u16 = 250;
/// A limit that was lowered: a process that follows the older one for some seconds yet may take slots beyond the new one.
const SETTLES_IN: Duration = Duration::from_secs(10);
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
                return Ok(Slot::Free(HeldPermit::new(slots, permit, look)));
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
