//! Tally of the calls through the proxy, and of their faults.

use std::collections::BTreeMap;

use super::Fault;

/// The calls of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that came, those with a fault included.
    pub calls: u64,
    /// Calls that broke off, or were never answered, because the service was away.
    pub away: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<Fault, u64>,
}

/// The calls of all operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    pub(super) fn of(&mut self, operation: &str) -> &mut Tally {
        self.0.entry(operation.to_owned()).or_default()
    }

    /// Each operation with its calls.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.0.iter().map(|(operation, tally)| (operation.as_str(), tally))
    }

    /// How often `fault` was done to calls of `operation`.
    pub fn done(&self, operation: &str, fault: Fault) -> u64 {
        self.0.get(operation).and_then(|tally| tally.faults.get(&fault)).copied().unwrap_or_default()
    }

    /// Calls of `operation`.
    pub fn calls(&self, operation: &str) -> u64 {
        self.0.get(operation).map(|tally| tally.calls).unwrap_or_default()
    }

    /// All faults, by kind; calls lost to an outage not among them.
    pub fn by_fault(&self) -> BTreeMap<Fault, u64> {
        let mut sums = BTreeMap::new();
        for (fault, count) in self.0.values().flat_map(|tally| &tally.faults) {
            *sums.entry(*fault).or_default() += count;
        }
        sums
    }

    /// Calls lost to an outage.
    pub fn away(&self) -> u64 {
        self.0.values().map(|tally| tally.away).sum()
    }
}
