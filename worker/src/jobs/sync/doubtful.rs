//! Rows of the provider's list that are refused: they contradict what is known of an account. Counted, and named in the
//! log, up to a bound; nothing is changed for them, but that a tombstone whose account one names is deleted again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use broker_domain::{ExternalId, JobReport, SandboxId};

use super::figures::{DOUBTFUL, gauge};

/// So many are named in the log of one run.
const NAMED: usize = 10;

/// Why a row is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// Its account is, or was for good, another sandbox's.
    AccountOf(SandboxId),
    /// The provider would not delete it: its external id names no account.
    NoAccount,
    /// It is allocated under another account.
    AnotherAccount,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountOf(id) => write!(f, "its account is {id}'s"),
            Self::NoAccount => f.write_str("its id names no account that could be deleted"),
            Self::AnotherAccount => f.write_str("it is allocated under another account"),
        }
    }
}

/// A refused row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DoubtfulRow {
    pub(super) id: SandboxId,
    pub(super) external_id: ExternalId,
    pub(super) doubt: Doubt,
}

/// The refused rows of a run: how many, and the first of them.
#[derive(Debug, Default)]
pub(super) struct DoubtfulRows(Mutex<(u64, BTreeSet<DoubtfulRow>)>);

impl DoubtfulRows {
    pub(super) fn add(&self, row: DoubtfulRow) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.0 += 1;
        rows.1.insert(row);
        if rows.1.len() > NAMED {
            rows.1.pop_last();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts and names them.
    pub(super) fn tell(&self, report: &mut JobReport) {
        let (count, rows) = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        report.detail("doubtful", count);
        metrics::gauge!(DOUBTFUL).set(gauge(count));
        if count == 0 {
            return;
        }
        let some: Vec<_> = rows.iter().map(DoubtfulRow::to_string).collect();
        tracing::warn!(count, ?some, "the provider lists what contradicts itself or the table: refused");
    }
}

impl fmt::Display for DoubtfulRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.id, self.external_id, self.doubt)
    }
}
