//! Operations on reservations: the same code for `broker reservation` and `/v1/admin/reservations`.
//!
//! Invariant: a reservation is made or changed only if, at each moment of its window, it fits beside the others into what the
//! policy lets there be of its flavour; the others are those that stand when it is written. What is put aside, and when, is the
//! workers' to do.

mod follow;
mod judge;
mod outlook;

use broker_domain::policy::Policy;
use broker_domain::reservation::{Closed, InvalidTerms, MOST_OPEN, Peak, peak};
use broker_domain::{FlavourName, Reservation, ReservationEnd, ReservationId, ReservationTerms, Timestamp};

use crate::{Store, StoreError, Write};

pub(crate) use judge::judge;

pub use follow::{FollowedReservations, ReservationsUnknown};
pub use outlook::{outlook, ready_after, wanted};

/// How often an act is decided on anew when another one is made at the same moment.
const TRIES: usize = 20;

/// What became of a reservation that is made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationWrite {
    /// It stands so, by this call or by an earlier one.
    Stands(Box<Reservation>),
    /// There is another one of that id.
    Exists(Box<Reservation>),
    /// There is none of that id.
    NotFound,
    /// It has ended.
    Ended(Box<Reservation>),
    /// The terms are wrong.
    Invalid(InvalidTerms),
    /// It does not fit.
    Conflict(ReservationConflict),
}

impl ReservationWrite {
    /// Why it was not written, for the audit; `None` if it stands so.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Stands(_) => None,
            Self::Exists(_) => Some("there is another reservation of this id".to_owned()),
            Self::NotFound => Some("there is no such reservation".to_owned()),
            Self::Ended(_) => Some("it has ended".to_owned()),
            Self::Invalid(invalid) => Some(invalid.to_string()),
            Self::Conflict(why) => Some(why.to_string()),
        }
    }
}

/// Why a reservation does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationConflict {
    /// The policy lets fewer of the flavour be there than would be reserved at a time.
    #[error(
        "{} would be reserved of {flavour}, and there may be {max}; in the way: {}",
        peak.count,
        others(peak)
    )]
    Capacity {
        /// The flavour.
        flavour: FlavourName,
        /// Its `max`.
        max: u32,
        /// When it would be too many, with whom.
        peak: Peak,
    },
    /// The tenant may not hold as many.
    #[error(
        "{} would be reserved, and the limit of tenant {tenant} is {max} of {flavour}: it could not claim what is reserved; in the \
         way: {}",
        peak.count,
        others(peak)
    )]
    Limit {
        /// The tenant.
        tenant: String,
        /// The flavour.
        flavour: FlavourName,
        /// Its limit.
        max: u32,
        /// When it would be too many, with which others of the tenant.
        peak: Peak,
    },
    /// There are as many reservations as there may be.
    #[error("{MOST_OPEN} reservations are open, and no more are taken")]
    TooMany,
    /// Others were made at the same moment each time.
    #[error("other reservations are being made at the same moment: try again")]
    Busy,
}

fn others(peak: &Peak) -> String {
    if peak.others.is_empty() {
        return "its own count".to_owned();
    }
    peak.others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes a reservation. The same id with the same terms again is the same reservation.
///
/// # Errors
///
/// When the table does not answer.
pub async fn create(
    store: &Store,
    policy: &Policy,
    (id, terms): (ReservationId, &ReservationTerms),
    by: &str,
    now: Timestamp,
) -> Result<ReservationWrite, StoreError> {
    if let Err(invalid) = terms.check(now) {
        return Ok(ReservationWrite::Invalid(invalid));
    }
    for _ in 0..TRIES {
        let guard = store.reservations.guard().await?;
        if let Some(stands) = store.reservations.get(id).await? {
            let is_same = stands.terms == *terms && stands.is_open();
            let stands = Box::new(stands);
            return Ok(if is_same {
                ReservationWrite::Stands(stands)
            } else {
                ReservationWrite::Exists(stands)
            });
        }
        let all = store.reservations.all().await?;
        if let Some(conflict) = conflict(policy, &all, terms, None, now) {
            return Ok(ReservationWrite::Conflict(conflict));
        }
        let new = Reservation {
            id,
            version: 1,
            terms: terms.clone(),
            held: 0,
            held_at: now,
            made_at: now,
            made_by: by.to_owned(),
            closed: None,
        };
        match store.reservations.write(&new, true, guard).await {
            Ok(Write::Applied) => return Ok(ReservationWrite::Stands(Box::new(new))),
            Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ReservationWrite::Conflict(ReservationConflict::Busy))
}

/// Changes the terms of a reservation that is open, also while it runs: what it has too much of goes back, what it is short of is
/// put aside. Tenant and prefix stay.
///
/// # Errors
///
/// When the table does not answer.
pub async fn change(
    store: &Store,
    policy: &Policy,
    id: ReservationId,
    to: impl Fn(&ReservationTerms) -> ReservationTerms,
    now: Timestamp,
) -> Result<ReservationWrite, StoreError> {
    for _ in 0..TRIES {
        let guard = store.reservations.guard().await?;
        let Some(stands) = store.reservations.get(id).await? else { return Ok(ReservationWrite::NotFound) };
        if !stands.is_open() || stands.end_due(now).is_some() {
            return Ok(ReservationWrite::Ended(Box::new(stands)));
        }
        let ReservationTerms { tenant, prefix, .. } = stands.terms.clone();
        let terms = ReservationTerms { tenant, prefix, ..to(&stands.terms) };
        if terms == stands.terms {
            return Ok(ReservationWrite::Stands(Box::new(stands)));
        }
        if let Err(invalid) = terms.check(now) {
            return Ok(ReservationWrite::Invalid(invalid));
        }
        let all = store.reservations.all().await?;
        if let Some(conflict) = conflict(policy, &all, &terms, Some(id), now) {
            return Ok(ReservationWrite::Conflict(conflict));
        }
        let after = Reservation { version: stands.version + 1, terms, ..stands };
        match store.reservations.write(&after, false, guard).await {
            Ok(Write::Applied) => return Ok(ReservationWrite::Stands(Box::new(after))),
            // Also a sandbox that is put aside meanwhile raises its version.
            Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ReservationWrite::Conflict(ReservationConflict::Busy))
}

/// Ends a reservation; what is put aside for it goes back. One that has ended stays as it is, and so does one whose time was over
/// by an older read only: its operator has changed it since.
///
/// # Errors
///
/// When the table does not answer.
pub async fn close(
    store: &Store,
    id: ReservationId,
    why: ReservationEnd,
    now: Timestamp,
) -> Result<Option<Reservation>, StoreError> {
    for _ in 0..TRIES {
        let Some(stands) = store.reservations.get(id).await? else { return Ok(None) };
        let is_due = match why {
            ReservationEnd::Over | ReservationEnd::NoShow => stands.end_due(now) == Some(why),
            ReservationEnd::Deleted | ReservationEnd::Unknown => stands.is_open(),
        };
        if !is_due {
            return Ok(Some(stands));
        }
        let closed = Some(Closed { at: now, why, cleared: false });
        let after = Reservation { version: stands.version + 1, closed, ..stands };
        match store.reservations.update(&after).await {
            Ok(Write::Applied) => return Ok(Some(after)),
            Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Conflict)
}

/// What stands in the way of `terms`; `None` if nothing does. A flavour without `max` has room for any number. A prefix that
/// begins the names of several flavours counts for each of them: it may come to be all of one.
fn conflict(
    policy: &Policy,
    all: &[Reservation],
    terms: &ReservationTerms,
    but: Option<ReservationId>,
    now: Timestamp,
) -> Option<ReservationConflict> {
    let wanted = terms.prefix.as_str();
    let meets = |prefix: &str| wanted.starts_with(prefix) || prefix.starts_with(wanted);
    let open = all.iter().filter(|one| one.is_open() && Some(one.id) != but).count();
    if open >= MOST_OPEN {
        return Some(ReservationConflict::TooMany);
    }
    for limited in policy.limits_of(&terms.tenant).filter(|one| meets(one.limit.prefix.as_str())) {
        let own = all.iter().filter(|one| one.terms.tenant == terms.tenant);
        let peak = peak(own, (terms, &limited.limit.prefix), but, now);
        if peak.count > u64::from(limited.max) {
            let (tenant, flavour) = (terms.tenant.to_string(), limited.flavour);
            return Some(ReservationConflict::Limit { tenant, flavour, max: limited.max, peak });
        }
    }
    for (name, flavour) in policy.flavours().iter().filter(|(_, one)| meets(one.prefix.as_str())) {
        let Some(max) = flavour.refill.as_ref().map(|refill| refill.max) else { continue };
        let peak = peak(all, (terms, &flavour.prefix), but, now);
        if peak.count > u64::from(max) {
            return Some(ReservationConflict::Capacity { flavour: name.clone(), max, peak });
        }
    }
    None
}
