//! Bodies of responses about reservations.

use std::collections::BTreeMap;

use broker_domain::policy::{Policy, ReservedCount};
use broker_domain::reservation::Closed;
use broker_domain::{FlavourName, Reservation, ReservationId, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

/// A reservation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Reservation")]
pub struct ReservationView {
    /// Its id.
    #[schemars(extend("format" = "uuid"))]
    id: String,
    /// For whom.
    tenant: String,
    /// The flavour whose sandboxes are reserved, if they are all of one.
    flavour: Option<String>,
    /// The names of the sandboxes begin so.
    prefix: String,
    /// How many.
    count: u32,
    /// When they are needed, in seconds since the epoch; null: since it was made.
    from: Option<u64>,
    /// Until when, in seconds since the epoch; null: without end.
    until: Option<u64>,
    /// How long before `from` they are put aside, in seconds.
    lead_s: u64,
    /// What is not used so long after `from` goes back, in seconds; null: at the end.
    no_show_s: Option<u64>,
    /// planned, running or ended.
    state: &'static str,
    /// How many were put aside until now, whether or not they are claimed since.
    held: u32,
    /// Of these, those that are not claimed, by the last census; null if it did not count them yet.
    reserved: Option<u64>,
    /// Of these, those that its tenant holds, by the last census; null if it did not count them yet.
    allocated: Option<u64>,
    /// How many are to be put aside yet.
    missing: u32,
    /// How many will be missing when they are needed, as it looks now; 0 until half an hour before.
    at_risk: u64,
    /// When it was made, in seconds since the epoch.
    made_at: u64,
    /// Who made it.
    made_by: String,
    /// When it ended, in seconds since the epoch.
    ended_at: Option<u64>,
    /// over, no_show or deleted.
    ended_because: Option<&'static str>,
}

impl ReservationView {
    /// From what the table holds, the last count, and what will be missing.
    pub fn new(
        reservation: &Reservation,
        policy: &Policy,
        counted: &BTreeMap<ReservationId, ReservedCount>,
        at_risk: &BTreeMap<ReservationId, u64>,
        now: Timestamp,
    ) -> Self {
        let Reservation { id, terms, held, made_at, made_by, closed, .. } = reservation;
        let secs = |at: Option<Timestamp>| at.map(Timestamp::as_secs);
        let state = match closed {
            Some(_) => "ended",
            None if terms.has_begun(now) => "running",
            None => "planned",
        };
        let counted = counted.get(id);
        Self {
            id: id.to_string(),
            tenant: terms.tenant.to_string(),
            flavour: policy.flavour_within(&terms.prefix).map(|(name, _)| FlavourName::to_string(name)),
            prefix: terms.prefix.to_string(),
            count: terms.count,
            from: secs(terms.from),
            until: secs(terms.until),
            lead_s: terms.lead.as_secs(),
            no_show_s: terms.no_show.map(|time| time.as_secs()),
            state,
            held: *held,
            reserved: counted.map(|counted| counted.reserved),
            allocated: counted.map(|counted| counted.allocated),
            missing: reservation.missing(now),
            at_risk: at_risk.get(id).copied().unwrap_or(0),
            made_at: made_at.as_secs(),
            made_by: made_by.clone(),
            ended_at: secs(closed.map(|Closed { at, .. }| at)),
            ended_because: closed.map(|Closed { why, .. }| why.as_str()),
        }
    }

    /// planned, running or ended.
    pub const fn state(&self) -> &'static str {
        self.state
    }
}

/// Reservations, those that have ended for a week.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReservationList {
    /// In the order in which they begin.
    pub(crate) reservations: Vec<ReservationView>,
}

/// What is reserved for a tenant.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OwnReservation {
    /// Its id.
    #[schemars(extend("format" = "uuid"))]
    pub id: String,
    /// The names of the sandboxes begin so.
    pub prefix: String,
    /// How many.
    pub count: u32,
    /// When they are needed, in seconds since the epoch; null: since it was made.
    pub from: Option<u64>,
    /// Until when, in seconds since the epoch; null: without end.
    pub until: Option<u64>,
    /// How many were put aside until now, whether or not they are claimed since.
    pub held: u32,
}

impl From<&Reservation> for OwnReservation {
    fn from(reservation: &Reservation) -> Self {
        let Reservation { id, terms, held, .. } = reservation;
        Self {
            id: id.to_string(),
            prefix: terms.prefix.to_string(),
            count: terms.count,
            from: terms.from.map(Timestamp::as_secs),
            until: terms.until.map(Timestamp::as_secs),
            held: *held,
        }
    }
}
