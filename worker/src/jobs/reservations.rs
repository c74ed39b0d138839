//! Sweep of reserved sandboxes: those whose reservation does not exist, or was cleared, are given back.
//!
//! A reservation is kept until everything has gone back; what is found here the index did not show by then. The sandboxes are
//! listed before the reservations are read: one is there before anything is put aside for it. One that cannot be read is there, too.

use std::collections::BTreeSet;

use broker_domain::{JobReport, Reservation};
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
    let ids: BTreeSet<_> = found.iter().map(|(id, _)| *id).collect();
    let mut over = BTreeSet::new();
    for id in ids {
        let read = each::or_passed_over(store.get(id).await, &id, report)?;
        let is_over = |one: &Reservation| one.closed.is_some_and(|closed| closed.cleared);
        if read.is_some_and(|one| one.as_ref().is_none_or(is_over)) {
            over.insert(id);
        }
    }
    for (reservation, candidate) in found.into_iter().filter(|(id, _)| over.contains(id)) {
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
