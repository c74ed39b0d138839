//! Slots: when a deletion may ask the provider, so that its rate holds over all workers.
//!
//! The table gives each slot once, an interval of the rate apart (`store::pace`). A deletion begins while its own slot is
//! open, which is one interval long, or it takes a slot anew: one that comes late (its message piled up, its worker
//! stood still) never runs into the slots of others. So in any second at most one more than the rate begin, and above
//! ten a second, where a slot is open for 100 ms since a write of the table may take as long, a tenth more.
//!
//! What remains, and no slot can take away: clocks of two workers may differ by what [`clock`](broker_runtime::clock)
//! allows (2 s), so deletions that go over from one worker to another may fall into the same second, though not into more
//! slots; a process that stands still between the look at its clock and its call asks late; so does one that asks again
//! because its message was received twice, which happens only to a worker that was silent for a whole visibility timeout.
//! SQS delays by whole seconds, so a message comes early and waits for its slot in its worker's hands.

use std::time::Duration;

use broker_domain::Timestamp;
use broker_store::StoreError;

use super::Jobs;

/// How long before its slot a message is meant to arrive, and how far ahead of its plan the first slot is.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How long a slot is waited for with the message in hand.
const IN_HAND: Duration = Duration::from_secs(2);
/// A slot is open for at least as long.
const SHORTEST_OPEN: Duration = Duration::from_millis(100);
/// How many slots one delivery of a deletion may miss.
const TRIES: usize = 3;

/// The first slot that a plan made at `now` can use.
pub(super) fn first_after(now: Timestamp) -> Timestamp {
    now.plus(ON_THE_WAY)
}

/// For how long the message of a deletion in `slot` is kept in the queue.
pub(super) fn delay(slot: Timestamp, now: Timestamp) -> Duration {
    slot.since(now).saturating_sub(ON_THE_WAY)
}

/// For how long a message that came now is sent back to the queue, if its slot is too far ahead to be waited for.
pub(super) fn too_early(slot: Timestamp, now: Timestamp) -> Option<Duration> {
    (slot.since(now) > IN_HAND).then(|| delay(slot, now))
}

fn is_open(slot: Timestamp, interval: Duration, now: Timestamp) -> bool {
    slot <= now && now < slot.plus(interval.max(SHORTEST_OPEN))
}

impl Jobs {
    /// Waits until `slot` is open, or another one that is free soon if that is over. `false` if none is.
    pub(super) async fn is_in_slot(&self, mut slot: Timestamp) -> Result<bool, StoreError> {
        let interval = self.settings.deletion_interval;
        for _ in 0..TRIES {
            self.clock.reaches(slot).await;
            let now = self.clock.now();
            if is_open(slot, interval, now) {
                return Ok(true);
            }
            match self.store.take_slots(1, interval, now, now.plus(IN_HAND)).await? {
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
