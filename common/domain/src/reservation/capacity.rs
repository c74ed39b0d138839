//! The most that reservations put aside at the same time, for the answer to whether one more fits.

use super::{Reservation, ReservationTerms};
use crate::{NamePrefix, ReservationId, Timestamp};

/// A time at which the most is put aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// How many, with those that are wanted.
    pub count: u64,
    /// When.
    pub at: Option<Timestamp>,
    /// The other reservations that put aside then.
    pub others: Vec<ReservationId>,
}

/// The most of the sandboxes of `scope` that is put aside at a time of the window of `wanted`, with it and with those of `all`
/// that are open. `but` is left out: it is the one that `wanted` replaces.
pub fn peak<'r>(
    all: impl IntoIterator<Item = &'r Reservation>,
    (wanted, scope): (&ReservationTerms, &NamePrefix),
    but: Option<ReservationId>,
    now: Timestamp,
) -> Peak {
    let others: Vec<&Reservation> = all
        .into_iter()
        .filter(|one| Some(one.id) != but && one.is_open() && one.end_due(now).is_none())
        .filter(|one| one.terms.is_within(scope))
        .collect();
    // The sum only rises where one begins.
    let begins = |terms: &ReservationTerms| terms.begins_at().map_or(now, |begins| begins.max(now));
    let times = others.iter().map(|one| begins(&one.terms)).chain([begins(wanted)]);
    let at_time = |at: Timestamp| {
        let then: Vec<_> = others.iter().filter(|one| one.terms.covers(at)).collect();
        let count = then.iter().map(|one| u64::from(one.terms.count)).sum::<u64>() + u64::from(wanted.count);
        Peak { count, at: Some(at), others: then.iter().map(|one| one.id).collect() }
    };
    let peaks = times.filter(|at| wanted.covers(*at)).map(at_time);
    peaks.max_by_key(|peak| peak.count).unwrap_or_default()
}
