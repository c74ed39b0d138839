//! Sweep of reserved sandboxes: those whose reservation does not exist, or was cleared, are given back.
//!
//! A reservation is kept until everything has gone back; what is found here the index did not show by then. The sandboxes are
//! listed before the reservations are read: one is there before anything is put aside for it.

use std::collections::BTreeSet;

use broker_domain::JobReport;
use broker_store::Pages;

use super::{JobError, Jobs, each};

pub(super) async fn sweep(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let store = &jobs.store.reservations;
    let mut found = Vec::new();
    for shard in 0..jobs.store.shards() {
        let mut pages = Pages::new(|after| store.of_shard(shard, after));
        while let Some(page) = pages.next().await? {
            found.extend(page);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let all = store.all().await?;
    let keeps = all.iter().filter(|one| one.closed.is_none_or(|closed| !closed.cleared));
    let keeps: BTreeSet<_> = keeps.map(|one| one.id).collect();
    for (reservation, candidate) in found.into_iter().filter(|(id, _)| !keeps.contains(id)) {
        report.found += 1;
        let given_back = store.give_back(reservation, &candidate, jobs.clock.now()).await;
        let Some(given_back) = each::or_passed_over(given_back, &candidate.sandbox_id, report)? else {
            continue;
        };
        if given_back.is_applied() {
            tracing::warn!(sandbox = %candidate.sandbox_id, %reservation, "given back: its reservation does not exist or was cleared");
            report.changed += 1;
            report.detail("given_back", 1);
        } else {
            report.skipped += 1;
        }
    }
    Ok(())
}
