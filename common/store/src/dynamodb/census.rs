//! Storage of the census.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attributes as a;
use super::change::written;
use super::{CensusStore, keys, n, records, s};
use crate::{Census, StoreError, Write};
use broker_domain::policy::{ByCause, ByStatus};
use broker_domain::{CLOCKS_DIFFER, QuarantineCause, Status, Timestamp};

/// The stored census is older, or of a clock that was wrong, or there is none.
const CENSUS_IS_NEWER: &str = "attribute_not_exists(PK) or as_of_ms < :as_of or as_of_ms > :beyond";

impl CensusStore {
    /// The last census, if the pool was ever counted.
    pub async fn get(&self) -> Result<Option<Census>, StoreError> {
        let item = self.table.get(keys::census()).await?;
        item.map(|item| records::read_census(&item)).transpose()
    }

    /// The same, for decisions: a census of the future a clock began that was wrong, and what it has counted is not known.
    pub async fn believed(&self, now: Timestamp) -> Result<Option<Census>, StoreError> {
        Ok(self.get().await?.filter(|census| !census.as_of.is_beyond(now, Duration::ZERO)))
    }

    /// Stores a census, unless a later one is stored.
    pub async fn record(&self, census: &Census, now: Timestamp) -> Result<Write, StoreError> {
        let mut item = keys::census().into_map();
        for (status, count) in &census.by_status {
            item.insert(format!("{status}_count"), n(*count));
        }
        if !census.by_flavour.is_empty() {
            let by_flavour = serde_json::to_string(&census.by_flavour).unwrap_or_default();
            item.insert(a::BY_FLAVOUR.to_owned(), s(by_flavour));
        }
        if !census.by_cause.is_empty() {
            let by_cause: BTreeMap<_, _> =
                census.by_cause.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
            item.insert(a::BY_CAUSE.to_owned(), s(serde_json::to_string(&by_cause).unwrap_or_default()));
        }
        if !census.by_reservation.is_empty() {
            let by_reservation = serde_json::to_string(&census.by_reservation).unwrap_or_default();
            item.insert(a::BY_RESERVATION.to_owned(), s(by_reservation));
        }
        item.insert(a::AS_OF_MS.to_owned(), n(census.as_of.as_ms()));
        item.insert(a::LETTERS.to_owned(), s(serde_json::to_string(&census.letters).unwrap_or_default()));
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression(CENSUS_IS_NEWER)
            .expression_attribute_values(":as_of", n(census.as_of.as_ms()))
            .expression_attribute_values(":beyond", n(now.plus(CLOCKS_DIFFER).as_ms()));
        written(Box::pin(call.send()).await, "census", &self.table.name)
    }
}

/// Counts by the names of the causes, causes without any included; those of newer programs are `unknown`, if there are any.
pub fn shown_causes(by_cause: &ByCause) -> BTreeMap<&'static str, u64> {
    let known = QuarantineCause::ALL.into_iter().map(|cause| (cause.as_str(), 0));
    known.chain(by_cause.iter().map(|(cause, count)| (cause.as_str(), *count))).collect()
}

/// Counts by the names of the states, states without any included, and their total; those of newer programs are `unknown`,
/// if there are any.
pub fn shown_counts(by_status: &ByStatus) -> BTreeMap<&'static str, u64> {
    let counts =
        Status::ALL.into_iter().map(|status| (status.as_str(), by_status.get(&status).copied().unwrap_or(0)));
    let newer = by_status.get(&Status::Unknown).filter(|count| **count > 0);
    let newer = newer.map(|count| (Status::Unknown.as_str(), *count));
    counts.chain(newer).chain([("total", by_status.values().sum())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_shown_also_one_of_a_newer_program() {
        let shown = shown_causes(&[(QuarantineCause::Gate, 2), (QuarantineCause::Unknown, 1)].into());
        let expected = [("operator", 0), ("gate", 2), ("deletion", 0), ("report", 0), ("unknown", 1)];
        assert_eq!(shown, expected.into());
    }

    #[test]
    fn counts_show_every_state_and_their_sum() {
        let shown = shown_counts(&[(Status::Available, 3), (Status::Stale, 2)].into());
        assert_eq!(shown.len(), Status::ALL.len() + 1);
        assert_eq!((shown["available"], shown["stale"], shown["deleted"], shown["total"]), (3, 2, 0, 5));
    }
}
