//! The outlook of a reservation: how many of its sandboxes will be missing when it begins.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Reservation, TOLD_BEFORE};
use crate::{NamePrefix, ReservationId, Timestamp};

/// What there is of a flavour to put aside, and what is to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Available or arriving now.
    pub free: u64,
    /// When each of those that were asked for is ready.
    pub coming: Vec<Timestamp>,
    /// How many more may be asked for.
    pub more: u64,
    /// How long one takes that is asked for now.
    pub ready_after: Duration,
    /// How many are asked for in a minute.
    pub per_minute: u32,
}

/// How many of each reservation of `prefix` will be missing when it is needed, for those that are needed within half an hour, or
/// were already. Those that begin first are served first.
pub fn at_risk<'r>(
    all: impl IntoIterator<Item = &'r Reservation>,
    prefix: &NamePrefix,
    supply: &Supply,
    now: Timestamp,
) -> BTreeMap<ReservationId, u64> {
    let of_it = |one: &&Reservation| one.terms.prefix.as_str().starts_with(prefix.as_str());
    let mut wanted: Vec<_> = all.into_iter().filter(of_it).filter(|one| one.missing(now) > 0).collect();
    wanted.sort_by_key(|one| (one.terms.begins_at(), one.id));
    let Supply { mut free, mut coming, mut more, ready_after, per_minute } = supply.clone();
    let mut risks = BTreeMap::new();
    for one in wanted {
        let needed_at = one.terms.from.unwrap_or(now).max(now);
        let mut missing = u64::from(one.missing(now));
        take(&mut missing, &mut free);
        coming.retain(|ready| {
            let comes = *ready <= needed_at && missing > 0;
            missing -= u64::from(comes);
            !comes
        });
        let minutes = u32::try_from(missing).unwrap_or(u32::MAX) / per_minute.max(1);
        if now.plus(ready_after + Duration::from_secs(60) * minutes) <= needed_at {
            take(&mut missing, &mut more);
        }
        if missing > 0 && needed_at.minus(TOLD_BEFORE) <= now {
            risks.insert(one.id, missing);
        }
    }
    risks
}

fn take(missing: &mut u64, from: &mut u64) {
    let taken = (*missing).min(*from);
    *missing -= taken;
    *from -= taken;
}
