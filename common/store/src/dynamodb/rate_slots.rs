//! Slots of the provider's rate, shared by all workers. A slot that was taken and not used is lost, never used twice.

use std::time::Duration;

use super::attributes as a;
use super::change::ItemChange;
use super::keys;
use super::{RateSlotStore, n, records};
use crate::{StoreError, Write};
use broker_domain::{CLOCKS_DIFFER, Timestamp};

/// The slot is still the next one.
const SLOT_IS_NEXT: &str = "next_slot_ms = :seen";
/// The next slot is earlier than that time, or later than any time until which slots are held.
const SLOT_IS_EARLIER: &str = "next_slot_ms < :until or next_slot_ms > :beyond";
/// The longest for which slots are held, and more than plans are ahead. A slot further ahead was written by a clock that was wrong.
const LONGEST_HELD: Duration = Duration::from_secs(60 * 60);
/// Attempts to take a slot while other workers take slots.
const TRIES: usize = 20;

/// Which slots: each row of them is one interval apart, and knows nothing of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When the messages of deletions come: minutes ahead.
    Plan,
    /// When the provider is called: seconds ahead at most, so what came late finds what was not used.
    Calls,
}

impl RateSlotStore {
    /// Takes `count` slots of `pace`, `interval` apart, none before `earliest`, and returns the first. `None` if that would be later
    /// than `latest`.
    pub async fn take(
        &self,
        pace: Pace,
        count: u32,
        interval: Duration,
        earliest: Timestamp,
        latest: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        for _ in 0..TRIES {
            let next = self.next_slot(pace, earliest).await?;
            let first = if next.is_beyond(latest, LONGEST_HELD) { earliest } else { next.max(earliest) };
            if first > latest {
                return Ok(None);
            }
            let changed = self
                .table
                .change(ItemChange {
                    operation: "take_slots",
                    key: keys::pace(pace).into_map(),
                    condition: SLOT_IS_NEXT,
                    update: "SET next_slot_ms = :next",
                    values: vec![
                        (":seen", n(next.as_ms())),
                        (":next", n(first.plus(interval * count).as_ms())),
                    ],
                })
                .await?;
            if changed.is_applied() {
                return Ok(Some(first));
            }
        }
        Err(StoreError::Conflict)
    }

    /// Holds all slots of `pace` until `until`: the provider answered 429.
    pub async fn hold(&self, pace: Pace, until: Timestamp, now: Timestamp) -> Result<Write, StoreError> {
        self.next_slot(pace, now).await?;
        self.table
            .change(ItemChange {
                operation: "hold_slots",
                key: keys::pace(pace).into_map(),
                condition: SLOT_IS_EARLIER,
                update: "SET next_slot_ms = :until",
                values: vec![
                    (":until", n(until.as_ms())),
                    (":beyond", n(until.max(now.plus(LONGEST_HELD)).plus(CLOCKS_DIFFER).as_ms())),
                ],
            })
            .await
    }

    async fn next_slot(&self, pace: Pace, now: Timestamp) -> Result<Timestamp, StoreError> {
        if let Some(item) = self.table.get(keys::pace(pace)).await? {
            return records::read_next_slot(&item);
        }
        let mut item = keys::pace(pace).into_map();
        item.insert(a::NEXT_SLOT_MS.to_owned(), n(now.as_ms()));
        self.table.put_if_new("pace", item).await?;
        let item = self.table.get(keys::pace(pace)).await?;
        item.map_or(Err(StoreError::Conflict), |item| records::read_next_slot(&item))
    }
}
