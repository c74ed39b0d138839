//! Turns of the workers in SERVE, computed from the clock and the list of processes, so that a look costs no write.
//!
//! Time is divided into slots of `BROKER_SERVE_EVERY_S`; slot n belongs to the worker at position n modulo their number in the list
//! of live workers. Processes may see different lists for a moment, and a dead worker keeps its slots until its heartbeat is
//! old: then two workers use a slot, or none does. Both are safe: the next look serves what is left.

use std::time::{Duration, Instant};

use broker_domain::Timestamp;
use broker_runtime::clock::Clock;
use broker_store::{Instance, Role, Store};
use uuid::Uuid;

/// A worker with an older heartbeat has no turn: a live one writes a heartbeat every 30 s, and repeats a failed one within 4 s.
const LIVES_FOR: Duration = Duration::from_secs(40);
/// How long a list of the processes is believed.
const LIST_IS_BELIEVED: Duration = Duration::from_secs(30);

/// A worker's place among those that live: it stands at `rank`, from 0, of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServeSeat {
    rank: u64,
    of: u64,
}

impl ServeSeat {
    /// The seat of a worker that knows of no other.
    const ALONE: Self = Self { rank: 0, of: 1 };

    /// The seat of `me` in a list of processes.
    fn of(instances: &[Instance], me: Uuid, now: Timestamp) -> Self {
        let looks = |instance: &&Instance| {
            let is_worker = instance.role == Role::Worker && instance.receives != Some(false);
            instance.id == me || (is_worker && now.since(instance.heartbeat) <= LIVES_FOR)
        };
        let mut ids: Vec<_> = instances.iter().filter(looks).map(|instance| instance.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let Some(rank) = ids.iter().position(|id| *id == me) else { return Self::ALONE };
        Self { rank: rank as u64, of: ids.len() as u64 }
    }

    /// Whether the slot of length `every` in which `now` is belongs to this worker.
    pub(super) fn has(self, now: Timestamp, every: Duration) -> bool {
        slot(now, every) % self.of == self.rank
    }
}

/// The number of the slot of length `every` in which `now` is.
fn slot(now: Timestamp, every: Duration) -> u64 {
    now.as_ms() / length(every)
}

fn length(every: Duration) -> u64 {
    u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The turns of one worker.
#[derive(Debug)]
pub(super) struct ServeTurns {
    me: Uuid,
    every: Duration,
    seat: ServeSeat,
    /// When the list was read from which it follows.
    listed_at: Option<Instant>,
    /// The slot in which it was asked last whether one begins.
    slot: u64,
}

impl ServeTurns {
    pub(super) const fn new(me: Uuid, every: Duration) -> Self {
        Self { me, every, seat: ServeSeat::ALONE, listed_at: None, slot: 0 }
    }

    /// Whether a slot begins: none was asked about in which `now` is.
    pub(super) fn begins(&mut self, now: Timestamp) -> bool {
        let slot = slot(now, self.every);
        std::mem::replace(&mut self.slot, slot) != slot
    }

    /// The worker's seat, from a list that is read anew when it is old. Without one it takes every turn.
    pub(super) async fn seat(&mut self, store: &Store, clock: &Clock) -> ServeSeat {
        let (now, instant) = (clock.now(), clock.instant());
        let is_old = |at| instant.duration_since(at) >= LIST_IS_BELIEVED;
        if self.listed_at.is_none_or(is_old) {
            self.seat = match store.instances.list().await {
                Ok(instances) => ServeSeat::of(&instances, self.me, now),
                Err(error) => {
                    tracing::debug!("list of processes not read: {error}");
                    ServeSeat::ALONE
                }
            };
            self.listed_at = Some(instant);
        }
        self.seat
    }

    /// How long it is until the next slot.
    pub(super) fn until_next(&self, now: Timestamp) -> Duration {
        let length = length(self.every);
        Duration::from_millis(length - now.as_ms() % length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn worker(n: u128, heartbeat: Timestamp) -> Instance {
        Instance::new(Uuid::from_u128(n), Role::Worker, heartbeat)
    }

    #[test]
    fn each_slot_is_one_workers_however_many_there_are() {
        for many in 1..=20_u128 {
            let list: Vec<_> = (0..many).map(|n| worker(many - n, NOW)).collect();
            let seats: Vec<_> = list.iter().map(|of| ServeSeat::of(&list, of.id, NOW)).collect();
            for slot in 0..60 {
                let at = NOW.plus(EVERY * slot);
                assert_eq!(seats.iter().filter(|seat| seat.has(at, EVERY)).count(), 1, "{many}, slot {slot}");
            }
        }
    }

    #[test]
    fn who_is_gone_is_no_worker_or_does_not_receive_has_no_slot() {
        let me = worker(3, NOW);
        let api = Instance::new(Uuid::from_u128(1), Role::Api, NOW);
        let gone = worker(2, Timestamp::from_secs(900_000));
        let closed = Instance { receives: Some(false), ..worker(4, NOW) };
        let list = [api, gone, me.clone(), closed];
        assert_eq!(ServeSeat::of(&list, me.id, NOW), ServeSeat::ALONE);
        assert_eq!(
            ServeSeat::of(&list, Uuid::from_u128(9), NOW),
            ServeSeat::ALONE,
            "one that is not listed looks each time"
        );
    }

    #[test]
    fn the_next_slot_begins_within_one_length() {
        let mut turns = ServeTurns::new(Uuid::nil(), EVERY);
        let begins = [0, 4, 5, 6].map(|s| turns.begins(NOW.plus(Duration::from_secs(s))));
        assert_eq!(begins, [true, false, true, false]);
        assert_eq!(turns.until_next(NOW), EVERY);
        assert_eq!(turns.until_next(NOW.plus(Duration::from_millis(4_999))), Duration::from_millis(1));
    }
}
