//! Slots of the provider's rate: when a deletion may call the provider, so that the rate holds over all workers.
//!
//! The table gives each slot once, one interval of the rate apart (`store::rate_slots`). A deletion begins while its own slot
//! is open, which is one interval long, or it takes a new slot: one that comes late (its message piled up, its worker was
//! stopped) never runs into the slots of others. So in any second at most one more than the rate begin, and above ten a
//! second, where a slot is open for 100 ms because a write of the table may take as long, a tenth more.
//!
//! Slots cannot prevent these: clocks of two workers may differ by what [`clock`](broker_runtime::clock) allows (2 s), so
//! deletions that pass from one worker to another may fall into the same second, though not into more slots; a process that
//! is stopped between the clock check and its call is late; so is one that repeats a call because its message was received
//! twice, which happens only to a worker that was silent for a whole visibility timeout. SQS delays by whole seconds, so a
//! message comes early and waits for its slot in the worker.

use std::time::Duration;

use broker_domain::Timestamp;
use broker_store::StoreError;

use super::Jobs;

/// How long before its slot a message should arrive, and how far ahead the first slot of a plan is.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How long a slot is waited for with the message in hand.
const IN_HAND: Duration = Duration::from_secs(2);
/// The least time that a slot is open.
const SHORTEST_OPEN: Duration = Duration::from_millis(100);
/// The most slots that one delivery of a deletion may miss.
const TRIES: usize = 3;

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

impl Jobs {
    /// Waits until `slot` is open; if it is over, takes another one that is free soon. `false` if there is none.
    pub(super) async fn is_in_slot(&self, mut slot: Timestamp) -> Result<bool, StoreError> {
        let interval = self.settings.deletion_interval;
        for _ in 0..TRIES {
            self.clock.reaches(slot).await;
            let now = self.clock.now();
            if is_open(slot, interval, now) {
                return Ok(true);
            }
            match self.store.rate_slots.take(1, interval, now, now.plus(IN_HAND)).await? {
                Some(another) => slot = another,
                None => return Ok(false),
            }
        }
        Ok(false)
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
