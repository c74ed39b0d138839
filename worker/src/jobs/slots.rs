//! Slots of the provider's rate: when the message of a deletion comes, and when the provider is called, over all workers.
//!
//! The table gives each slot once, one interval of the rate apart (`store::rate_slots`). A plan gives each deletion a slot for
//! its message, minutes ahead. A worker takes the slot of the call when it has the message, from slots of their own: one that
//! comes late (its message piled up, its worker was stopped) takes what others did not use, instead of a turn at the end of
//! the plan, where it would be late again. A call begins while its slot is open, which is one interval long. So in any second
//! at most one more than the rate begin, and above ten a second, where a slot is open for 100 ms because a write of the table
//! may take as long, a tenth more. Deletions that wait in one worker take slots together, with one write.
//!
//! Slots cannot prevent these: clocks of two workers may differ by what [`clock`](broker_runtime::clock) allows (2 s), so
//! deletions that pass from one worker to another may fall into the same second, though not into more slots; a process that
//! is stopped between the clock check and its call is late; so is one that repeats a call because its message was received
//! twice, which happens only to a worker that was silent for a whole visibility timeout. SQS delays by whole seconds, so a
//! message comes early and waits for its slot in the worker.

use std::time::Duration;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use broker_domain::Timestamp;
use broker_store::{Pace, StoreError};
use tokio::sync::Mutex;

use super::Jobs;

/// How long before its slot a message should arrive, and how far ahead the first slot of a plan is.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How long a slot is waited for with the message in hand.
const IN_HAND: Duration = Duration::from_secs(2);
/// The least time that a slot is open.
const SHORTEST_OPEN: Duration = Duration::from_millis(100);
/// The most slots that one delivery of a deletion may miss.
const TRIES: u32 = 3;
/// How long before a slot of a call it is taken; four times as long after each that was missed.
const TAKEN_WITHIN: Duration = Duration::from_millis(100);
/// The most slots of calls that are taken together.
const TOGETHER: u32 = 25;

/// Slots of calls that this process took. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallSlots(Arc<TakenSlots>);

#[derive(Debug, Default)]
struct TakenSlots {
    /// Deletions that want one.
    wanted: AtomicU32,
    /// In their order.
    slots: Mutex<VecDeque<Timestamp>>,
}

/// The first slot for a plan made at `now`.
pub(super) fn first_after(now: Timestamp) -> Timestamp {
    now.plus(ON_THE_WAY)
}

/// The delay of the message of a deletion in `slot`.
pub(super) fn delay(slot: Timestamp, now: Timestamp) -> Duration {
    slot.since(now).saturating_sub(ON_THE_WAY)
}

/// How long a message that came now is sent back to the queue, if its slot is too far ahead to wait for.
pub(super) fn too_early(slot: Timestamp, now: Timestamp) -> Option<Duration> {
    (slot.since(now) > IN_HAND).then(|| delay(slot, now))
}

fn is_open(slot: Timestamp, interval: Duration, now: Timestamp) -> bool {
    slot <= now && now < slot.plus(interval.max(SHORTEST_OPEN))
}

/// A deletion that wants a slot, until it has one or goes away.
struct Wants<'w>(&'w AtomicU32);

impl<'w> Wants<'w> {
    fn one(wanted: &'w AtomicU32) -> Self {
        wanted.fetch_add(1, Ordering::Relaxed);
        Self(wanted)
    }
}

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many slots are taken together for so many that want one: none is waited for in hand for long.
fn together(wanted: u32, interval: Duration) -> u32 {
    let soon = IN_HAND.as_nanos() / interval.as_nanos().max(1);
    wanted.min(u32::try_from(soon).unwrap_or(u32::MAX)).clamp(1, TOGETHER)
}

impl Jobs {
    /// Waits for a call of the provider that is free at `slot`, in which its message was to come, or soon after. `false` if there
    /// is none.
    pub(super) async fn may_call(&self, slot: Timestamp) -> Result<bool, StoreError> {
        for missed in 0..TRIES {
            // Taken before it comes: a table that is slow makes a call later, and does not make it miss its slot.
            let earliest = slot.max(self.clock.now().plus(TAKEN_WITHIN.saturating_mul(4_u32.pow(missed))));
            let Some(own) = self.next_call(earliest).await? else { return Ok(false) };
            self.clock.reaches(own).await;
            if is_open(own, self.settings.deletion_interval, self.clock.now()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next slot of a call from `earliest` on, if one is free soon.
    async fn next_call(&self, earliest: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let TakenSlots { wanted, slots } = &*self.call_slots.0;
        let _wants = Wants::one(wanted);
        let mut slots = slots.lock().await;
        let (interval, now) = (self.settings.deletion_interval, self.clock.now());
        slots.retain(|slot| *slot > now);
        if let Some(position) = slots.iter().position(|slot| *slot >= earliest) {
            return Ok(slots.remove(position));
        }
        let count = together(wanted.load(Ordering::Relaxed), interval);
        let taken = self.store.rate_slots.take(Pace::Calls, count, interval, earliest, now.plus(IN_HAND));
        let Some(first) = taken.await? else { return Ok(None) };
        slots.extend((1..count).map(|position| first.plus(interval * position)));
        Ok(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_message_comes_before_its_slot_and_is_not_sent_back_for_less_than_a_second() {
        let now = at(1_000_000);
        for ahead_ms in (0..120_000).step_by(7) {
            let slot = now.plus(Duration::from_millis(ahead_ms));
            // SQS counts whole seconds.
            let comes = now.plus(Duration::from_secs(delay(slot, now).as_secs()));
            assert!(comes <= slot, "{ahead_ms} ms ahead");
            assert_eq!(too_early(slot, comes), None, "{ahead_ms} ms ahead");
            assert!(too_early(slot, now).is_none_or(|back| back > ON_THE_WAY), "{ahead_ms} ms ahead");
        }
    }

    #[test]
    fn slots_are_taken_together_as_far_as_they_are_soon() {
        let interval = |rate: u32| Duration::from_secs(1) / rate;
        assert_eq!([0, 1, 3, 80].map(|wanted| together(wanted, interval(100))), [1, 1, 3, 25]);
        assert_eq!([1, 3, 80].map(|wanted| together(wanted, interval(2))), [1, 3, 4]);
        assert_eq!(together(5, Duration::from_secs(10)), 1);
    }

    proptest! {
        #[test]
        fn at_most_one_more_than_the_rate_begins_in_a_second(
            rate in 1_u32..=10,
            late in prop::collection::vec(0_u64..1_000, 40),
        ) {
            let interval = Duration::from_secs(1) / rate;
            let begins: Vec<_> = (0_u32..).zip(late).filter_map(|(slot, late)| {
                let slot = at(1_000).plus(interval * slot);
                let begin = slot.plus(Duration::from_millis(late));
                is_open(slot, interval, begin).then_some(begin)
            }).collect();
            for from in &begins {
                let until = from.plus(Duration::from_secs(1));
                let count = begins.iter().filter(|begin| (from..&until).contains(begin)).count();
                prop_assert!(count <= rate as usize + 1, "{count} at {rate}/s");
            }
        }
    }
}
