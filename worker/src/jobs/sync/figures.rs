//! Figures of a sync: its gauges, and until when a process shows those of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::{JobReport, SandboxId, Timestamp};
use broker_provider::Tally;
use broker_store::{ComparedLists, StoreError};

use crate::jobs::Jobs;

/// The gauges of a sync.
const UNREADABLE_ROWS: &str = "broker_sync_unreadable_rows";
const ALLOCATED_MISSING: &str = "broker_sync_allocated_missing";
pub(super) const DOUBTFUL: &str = "broker_sync_doubtful";

/// When the syncs of this process began whose figures its gauges show. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnSync(Arc<Mutex<ShownSyncs>>);

/// When each of them began.
#[derive(Debug, Default)]
struct ShownSyncs {
    /// Of the rows of the list.
    rows: Option<Timestamp>,
    /// Of what is missing in it, if it does not contradict itself.
    missing: Option<Timestamp>,
}

impl OwnSync {
    /// The figures of a sync that began at `at` are shown from now on.
    pub(super) fn shows(&self, at: Timestamp, counts_missing: bool) {
        let mut shown = self.shown();
        shown.rows = Some(at);
        if counts_missing {
            shown.missing = Some(at);
        }
    }

    /// The gauges whose figures are older than those of another process: they are not shown any more.
    fn superseded(&self, by: ComparedLists) -> Vec<&'static str> {
        let mut shown = self.shown();
        let is_later = |one: Option<Timestamp>, other: Option<Timestamp>| {
            one.is_some_and(|one| other.is_some_and(|other| one < other))
        };
        let mut gauges = Vec::new();
        if is_later(shown.rows, by.last) {
            shown.rows = None;
            gauges.extend([UNREADABLE_ROWS, DOUBTFUL]);
        }
        if is_later(shown.missing, by.last_that_counts_missing) {
            shown.missing = None;
            gauges.push(ALLOCATED_MISSING);
        }
        gauges
    }

    fn is_none(&self) -> bool {
        let shown = self.shown();
        shown.rows.is_none() && shown.missing.is_none()
    }

    fn shown(&self) -> MutexGuard<'_, ShownSyncs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resets the figures that this process's last sync showed once another process has compared a later list: that one shows its own.
/// What is missing is counted only in a list that does not contradict itself.
pub(crate) async fn show_superseded(jobs: &Jobs) -> Result<(), StoreError> {
    if jobs.own_sync.is_none() {
        return Ok(());
    }
    // What a sync of this process shows meanwhile is later than what is read here.
    for name in jobs.own_sync.superseded(jobs.store.schedule.compared().await?) {
        metrics::gauge!(name).set(0.0);
    }
    Ok(())
}

/// Counts the rows that cannot be read, and names some in the log.
pub(super) fn tell_unreadable(tally: &Tally, report: &mut JobReport) {
    let count = tally.unreadable_rows;
    report.detail("unreadable_rows", count);
    report.skipped += count;
    metrics::gauge!(UNREADABLE_ROWS).set(gauge(count));
    if count > 0 {
        let some = &tally.problems;
        tracing::warn!(
            count,
            ?some,
            "rows of the provider's list cannot be read: their sandboxes are left as they are"
        );
    }
}

/// Counts the allocated sandboxes that the list does not have, and names some in the log.
pub(super) fn tell_allocated_missing(count: u64, some: &[SandboxId], report: &mut JobReport) {
    report.detail("allocated_missing", count);
    metrics::gauge!(ALLOCATED_MISSING).set(gauge(count));
    if count > 0 {
        let some: Vec<_> = some.iter().map(SandboxId::as_str).collect();
        tracing::warn!(count, ?some, "allocated sandboxes are missing at the provider");
    }
}

/// The value of a gauge.
pub(super) fn gauge(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_doubt_hides_no_figure_of_what_is_missing_and_a_late_figure_is_reset_too() {
        let at = Timestamp::from_secs;
        let compared = |last, missing| ComparedLists {
            last: Some(at(last)),
            last_that_counts_missing: Some(at(missing)),
        };
        let own = OwnSync::default();
        assert!(own.is_none() && own.superseded(compared(9, 9)).is_empty());
        own.shows(at(10), true);
        assert!(own.superseded(ComparedLists::default()).is_empty());
        assert!(own.superseded(compared(10, 10)).is_empty(), "its own");
        assert_eq!(own.superseded(compared(12, 10)), [UNREADABLE_ROWS, DOUBTFUL]);
        // The same sync ends after that, and shows what it found last.
        own.shows(at(10), true);
        assert_eq!(own.superseded(compared(12, 10)), [UNREADABLE_ROWS, DOUBTFUL]);
        assert_eq!(own.superseded(compared(13, 13)), [ALLOCATED_MISSING]);
        assert!(own.is_none());
        // One in doubt shows its rows; what an earlier one counted as missing is as old as it was.
        own.shows(at(20), true);
        own.shows(at(30), false);
        assert_eq!(own.superseded(compared(30, 25)), [ALLOCATED_MISSING]);
    }
}
