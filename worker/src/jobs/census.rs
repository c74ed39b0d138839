//! Census: counts the pool by state into one record, which stats and gauges read. Tombstones are counted, too.

use broker_common::domain::{JobReport, Status};
use broker_common::store::{Census, Changed, Store, StoreError};
use tokio::task::JoinSet;

use super::{JobError, Jobs};

/// Segments of the table that are read at the same time.
const SEGMENTS: i32 = 4;

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let as_of = jobs.clock.now();
    let mut segments = JoinSet::new();
    for segment in 0..SEGMENTS {
        segments.spawn(count(jobs.store.clone(), segment));
    }
    let mut by_status = std::collections::BTreeMap::from(Status::ALL.map(|status| (status, 0)));
    while let Some(counted) = segments.join_next().await {
        let counted = counted
            .map_err(|error| StoreError::Unavailable { operation: "count", source: Box::new(error) })??;
        counted.into_iter().for_each(|(status, count)| *by_status.entry(status).or_default() += count);
    }
    report.found = by_status.values().sum();
    by_status.iter().for_each(|(status, count)| report.detail(status.as_str(), *count));
    match jobs.store.keep_census(&Census { by_status, as_of }).await? {
        Changed::Done => report.changed = 1,
        Changed::MovedOn => report.skipped = 1,
    }
    Ok(())
}

async fn count(store: Store, segment: i32) -> Result<Vec<(Status, u64)>, StoreError> {
    let mut counts = Vec::new();
    let mut after = None;
    loop {
        let page = store.count(segment, SEGMENTS, after.take()).await?;
        counts.extend(page.by_status);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(counts),
        }
    }
}
