//! Marks: the requests at some ranks of a line at its last walk, so that a place's rank can be computed without a read.
//!
//! Between two marks ranks are interpolated by the time in the request id. A rank is approximate: a walk is a minute old at most,
//! and places that were served since make the true rank a little lower.

use serde::{Deserialize, Serialize};

use crate::{RequestId, Timestamp};

/// The ranks that are kept: 1, 2, 5, 10, 20, 50 and so on.
fn is_marked(rank: u64) -> bool {
    let mut leading = rank;
    while leading >= 10 && leading.is_multiple_of(10) {
        leading /= 10;
    }
    matches!(leading, 1 | 2 | 5)
}

/// What a walk of a line found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// How many places there were.
    pub length: u64,
    /// Ranks, from 1, and who stood there.
    at: Vec<(u64, RequestId)>,
}

/// Where a place stands, about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many stand before it.
    pub ahead: u64,
    /// How many stand in the line.
    pub length: u64,
}

impl Marks {
    /// Of a line, whose places are given in their order.
    pub fn of(places: impl IntoIterator<Item = RequestId>) -> Self {
        let mut marks = Self::default();
        for id in places {
            marks.push(id);
        }
        marks
    }

    /// Counts one more place behind the others.
    pub fn push(&mut self, id: RequestId) {
        self.length += 1;
        if is_marked(self.length) {
            self.at.push((self.length, id));
        }
    }

    /// Who stood at the head of the line.
    pub fn first(&self) -> Option<RequestId> {
        self.at.first().map(|(_, id)| *id)
    }

    /// Where `id` stands in the line that was walked at `as_of`; one that asked since is behind all others.
    pub fn standing(&self, id: RequestId, as_of: Timestamp) -> Standing {
        let behind = self.at.partition_point(|(_, mark)| *mark <= id);
        let length = self.length.max(1);
        let Some((rank, mark)) = behind.checked_sub(1).map(|last| self.at[last]) else {
            return Standing { ahead: 0, length };
        };
        if mark == id {
            return Standing { ahead: rank - 1, length };
        }
        let next = self.at.get(behind).map(|(rank, mark)| (*rank, minted(*mark)));
        let (next_rank, next_at) = next.unwrap_or((self.length + 1, as_of.as_ms()));
        let (from, own) = (minted(mark), minted(id));
        let (between, passed) = (next_at.saturating_sub(from), own.saturating_sub(from));
        let steps = next_rank - rank;
        let of_them = (steps * passed).checked_div(between).map_or(steps, |of_them| of_them.min(steps));
        // It stands behind the mark, and before the next one.
        let ahead =
            (rank + of_them).saturating_sub(u64::from(of_them > 0)).max(rank).min(self.length.max(rank));
        Standing { ahead, length: length.max(ahead + 1) }
    }
}

impl Standing {
    /// After how many seconds it is worth asking again.
    pub fn ask_again_after_s(self) -> u64 {
        (2 + self.ahead / 100).min(30)
    }
}

/// When a request id was minted: its first 48 bits are milliseconds (RFC 9562, version 7).
pub fn minted_at(id: RequestId) -> Timestamp {
    Timestamp::from_ms(minted(id))
}

fn minted(id: RequestId) -> u64 {
    u64::try_from(id.as_uuid().as_u128() >> 80).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// The request that asked at that millisecond, the `nth` of it.
    fn id(at_ms: u64, nth: u64) -> RequestId {
        RequestId::from_uuid(Uuid::from_u128((u128::from(at_ms) << 80) | u128::from(nth)))
    }

    #[test]
    fn a_few_ranks_are_kept_of_any_line() {
        let marks = Marks::of((0..10_000).map(|n| id(1_000 + n, 0)));
        let ranks: Vec<_> = marks.at.iter().map(|(rank, _)| *rank).collect();
        assert_eq!(ranks, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000]);
        assert_eq!(marks.length, 10_000);
        assert!(serde_json::to_string(&marks).unwrap().len() < 1_000);
    }

    #[test]
    fn a_steady_line_is_told_right_and_who_came_since_is_told_the_end() {
        let marks = Marks::of((0..1_000).map(|n| id(10_000 + 10 * n, 0)));
        let as_of = Timestamp::from_ms(30_000);
        let ahead = |n: u64| marks.standing(id(10_000 + 10 * n, 0), as_of).ahead;
        for n in [0, 1, 4, 9, 19, 49, 99, 999] {
            assert_eq!(ahead(n), n, "a mark");
        }
        for n in [2, 3, 7, 33, 77, 333, 777] {
            assert!(ahead(n).abs_diff(n) <= 1, "{n}: {}", ahead(n));
        }
        let later = marks.standing(id(40_000, 0), as_of);
        assert_eq!((later.ahead, later.length), (1_000, 1_001));
        assert_eq!(Marks::default().standing(id(1, 0), as_of), Standing { ahead: 0, length: 1 });
    }

    #[test]
    fn who_stands_further_behind_asks_less_often() {
        let after = |ahead| Standing { ahead, length: ahead + 1 }.ask_again_after_s();
        assert_eq!([0, 99, 100, 1_000, 100_000].map(after), [2, 2, 3, 12, 30]);
    }

    proptest! {
        #[test]
        fn a_rank_lies_between_its_marks_whatever_the_times(times in prop::collection::btree_set(0..50_000_u64, 1..300), pick in any::<prop::sample::Index>()) {
            let ids: Vec<_> = times.into_iter().map(|at| id(at, 0)).collect();
            let marks = Marks::of(ids.iter().copied());
            let n = pick.index(ids.len());
            let Standing { ahead, length } = marks.standing(ids[n], Timestamp::from_ms(60_000));
            prop_assert!(ahead < length && length == ids.len() as u64);
            let before = marks.at.iter().rev().find(|(_, mark)| *mark <= ids[n]).unwrap().0;
            let after = marks.at.iter().find(|(_, mark)| *mark > ids[n]).map_or(length + 1, |(rank, _)| *rank);
            prop_assert!((before - 1..after).contains(&ahead), "{} not in {}..{}", ahead, before - 1, after);
        }
    }
}
