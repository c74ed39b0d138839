//! Counts of a pool by flavour and state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ANY_FLAVOUR, Policy};
use crate::{FlavourName, QuarantineCause, ReservationId, SandboxName, Status};

/// Sandboxes by state, every state included.
pub type ByStatus = BTreeMap<Status, u64>;

/// Sandboxes in quarantine by what put them there; a cause without one may be absent.
pub type ByCause = BTreeMap<QuarantineCause, u64>;

/// What was put aside for a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedCount {
    /// Put aside, and not claimed yet.
    pub reserved: u64,
    /// Claimed, and held by its tenant.
    pub allocated: u64,
}

/// The number of sandboxes of each flavour in each state. What has no flavour is counted under [`ANY_FLAVOUR`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCount {
    by_flavour: BTreeMap<String, ByStatus>,
    by_cause: ByCause,
    by_reservation: BTreeMap<ReservationId, ReservedCount>,
}

impl PoolCount {
    /// Nothing counted yet; every flavour of `policy` is there.
    pub fn new(policy: &Policy) -> Self {
        let names = policy.flavours().keys().map(FlavourName::as_str).chain([ANY_FLAVOUR]);
        let none = || Status::ALL.into_iter().map(|status| (status, 0)).collect();
        Self {
            by_flavour: names.map(|name| (name.to_owned(), none())).collect(),
            by_cause: ByCause::new(),
            by_reservation: BTreeMap::new(),
        }
    }

    /// Counts a sandbox; one whose name cannot be read has no flavour.
    pub fn add(&mut self, policy: &Policy, name: Option<&SandboxName>, status: Status) {
        let flavour = name.and_then(|name| policy.flavour_of(name)).map_or(ANY_FLAVOUR, FlavourName::as_str);
        if let Some(counts) = self.by_flavour.get_mut(flavour) {
            *counts.entry(status).or_default() += 1;
        }
    }

    /// Counts one in quarantine by what put it there.
    pub fn add_cause(&mut self, cause: QuarantineCause) {
        *self.by_cause.entry(cause).or_default() += 1;
    }

    /// Counts one that was put aside for a reservation.
    pub fn add_reserved(&mut self, reservation: ReservationId, status: Status) {
        let count = self.by_reservation.entry(reservation).or_default();
        count.reserved += u64::from(status == Status::Reserved);
        count.allocated += u64::from(status == Status::Allocated);
    }

    /// What was put aside for each reservation.
    pub const fn by_reservation(&self) -> &BTreeMap<ReservationId, ReservedCount> {
        &self.by_reservation
    }

    /// What is in quarantine, by what put it there.
    pub const fn by_cause(&self) -> &ByCause {
        &self.by_cause
    }

    /// All flavours together.
    pub fn by_status(&self) -> ByStatus {
        let mut sum = ByStatus::new();
        for (status, count) in self.by_flavour.values().flatten() {
            *sum.entry(*status).or_default() += count;
        }
        sum
    }

    /// Each flavour; empty if there are none.
    pub fn by_flavour(&self) -> BTreeMap<String, ByStatus> {
        if self.by_flavour.len() > 1 { self.by_flavour.clone() } else { BTreeMap::new() }
    }
}
