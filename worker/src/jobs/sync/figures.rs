//! Figures of a sync: its gauges, and until when a process shows those of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::{JobReport, SandboxId, Timestamp};
use broker_provider::Tally;
use broker_store::StoreError;

use crate::jobs::Jobs;

/// The gauges of a sync.
const UNREADABLE_ROWS: &str = "broker_sync_unreadable_rows";
const ALLOCATED_MISSING: &str = "broker_sync_allocated_missing";
pub(super) const DOUBTFUL: &str = "broker_sync_doubtful";

/// When the last sync of this process began whose figures its gauges show. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnSync(Arc<Mutex<Option<Timestamp>>>);

impl OwnSync {
    /// A sync began, whose figures are shown from now on.
    pub(super) fn begins(&self, at: Timestamp) {
        *self.began() = Some(at);
    }

    fn began(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resets the figures that this process's last sync showed once another process has compared a later list: that one shows its own.
pub(crate) async fn show_superseded(jobs: &Jobs) -> Result<(), StoreError> {
    let shown = *jobs.own_sync.began();
    let Some(began) = shown else { return Ok(()) };
    if jobs.store.schedule.compared().await?.is_none_or(|compared| compared <= began) {
        return Ok(());
    }
    let mut shown = jobs.own_sync.began();
    // A sync of this process that began meanwhile shows its own.
    if *shown == Some(began) {
        *shown = None;
        for name in [UNREADABLE_ROWS, ALLOCATED_MISSING, DOUBTFUL] {
            metrics::gauge!(name).set(0.0);
        }
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
