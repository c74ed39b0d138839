//! The sandboxes as the index lists them, with their attributes where those are kept.

use std::collections::HashMap;
use std::sync::Arc;

use broker_domain::{ProviderAttributes, SandboxId, Status};
use broker_runtime::trace;
use broker_store::{Candidate, Page, StoreError};
use tokio::task::JoinSet;

use super::super::each::AT_ONCE;
use super::super::{JobError, Jobs};
use super::beside;
use super::diff::{KnownSandbox, Ours};

/// The states whose sandboxes the index lists; tombstones are not among them.
const LISTED: [Status; 8] = [
    Status::Arriving,
    Status::Available,
    Status::Reserved,
    Status::Allocated,
    Status::PendingDeletion,
    Status::Stale,
    Status::Quarantined,
    Status::DeletionFailed,
];
/// Sandboxes whose attributes one task reads.
const PORTION: usize = 100;

/// Attributes, each with the version at which they are so.
type Versioned = HashMap<SandboxId, (u64, ProviderAttributes)>;

/// The sandboxes of the index.
pub(super) async fn ours(jobs: &Jobs) -> Result<Ours, JobError> {
    let mut ours = Ours::new(Arc::clone(&jobs.spool_dir));
    // One state after the other: what moves on meanwhile is met in the next.
    for status in LISTED {
        let page = |shard, after| {
            let store = jobs.store.clone();
            trace::carried(async move { (shard, store.sandboxes.listed(status, shard, after).await) })
        };
        let (mut shards, mut reading) = (0..jobs.store.shards(), JoinSet::new());
        loop {
            while reading.len() < AT_ONCE
                && let Some(shard) = shards.next()
            {
                reading.spawn(page(shard, None));
            }
            let Some(read) = reading.join_next().await else { break };
            let (shard, read) = read.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
            let Page { items, next } = read?;
            if next.is_some() {
                reading.spawn(page(shard, next));
            }
            ours = added(jobs, ours, status, items).await?;
        }
    }
    Ok(ours)
}

/// The same with these, which are in that state.
async fn added(jobs: &Jobs, mut ours: Ours, status: Status, rows: Vec<Candidate>) -> Result<Ours, JobError> {
    let mut attributes = attributes(jobs, status, &rows).await?;
    beside(move || {
        for row in rows {
            let Candidate { sandbox_id, version, name, external_id, .. } = row;
            // Those of another version are not known: the next run compares them.
            let read = attributes.remove(&sandbox_id).filter(|(of, _)| *of == version);
            let attributes = read.map(|(_, attributes)| attributes);
            ours.add(sandbox_id, KnownSandbox { status, version, name, external_id, attributes })?;
        }
        Ok(ours)
    })
    .await
}

/// The attributes of what is offered, or may be, where they are kept.
async fn attributes(jobs: &Jobs, status: Status, rows: &[Candidate]) -> Result<Versioned, StoreError> {
    let mut attributes = Versioned::new();
    let may_be_offered =
        matches!(status, Status::Arriving | Status::Available | Status::Reserved | Status::Quarantined);
    if !jobs.settings.keeps_attributes || !may_be_offered {
        return Ok(attributes);
    }
    let mut portions = rows.chunks(PORTION);
    let mut reading: JoinSet<Result<Versioned, StoreError>> = JoinSet::new();
    loop {
        while reading.len() < AT_ONCE
            && let Some(portion) = portions.next()
        {
            let ids: Vec<_> = portion.iter().map(|row| row.sandbox_id.clone()).collect();
            let store = jobs.store.clone();
            reading.spawn(trace::carried(async move { store.sandboxes.attributes_of(&ids).await }));
        }
        let Some(read) = reading.join_next().await else { return Ok(attributes) };
        attributes.extend(read.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))?);
    }
}
