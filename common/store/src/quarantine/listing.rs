//! Lists of what is in quarantine.

use broker_domain::{SandboxId, Status};

use super::QuarantineRefusal;
use crate::pool_list::LookedUp;
use crate::{Pages, Record, Store, StoreError};

/// Rows of the index in one read.
const ROWS: usize = 1_000;
/// Records that are read together: two calls, which others of the process do not wait long for.
const TOGETHER: usize = 200;

/// What is in quarantine and wanted, the longest first, and what the index lists there and cannot be read.
pub(super) async fn in_quarantine(
    store: &Store,
    is_wanted: impl Fn(&Record) -> bool,
) -> Result<Vec<LookedUp>, StoreError> {
    let (sandboxes, mut rows) = (&store.sandboxes, Vec::new());
    for shard in 0..store.shards() {
        let mut pages =
            Pages::new(|after| sandboxes.indexed((Status::Quarantined, shard), None, after, ROWS));
        while let Some(page) = pages.next().await? {
            rows.extend(page.into_iter().map(|row| (row.place.key, row.place.id)));
        }
    }
    // The index sorts them by when they came there.
    rows.sort();
    let ids: Vec<_> = rows.into_iter().map(|(_, id)| id).collect();
    let mut found = look_up(store, &ids).await?;
    // The index may be a moment behind.
    let is_there = |record: &Record| record.sandbox.status == Status::Quarantined && is_wanted(record);
    found.retain(|(_, found)| match found {
        Ok(record) => record.as_ref().is_some_and(is_there),
        Err(_) => true,
    });
    Ok(found)
}

/// What is at each of `ids`; the only errors in it are of what cannot be read.
pub(super) async fn look_up(store: &Store, ids: &[SandboxId]) -> Result<Vec<LookedUp>, StoreError> {
    let mut looked_up = Vec::with_capacity(ids.len());
    for some in ids.chunks(TOGETHER) {
        for (id, found) in store.sandboxes.look_up(some.to_vec()).await {
            let found = match found {
                // DynamoDB left it for another call.
                Err(StoreError::Conflict) => store.sandboxes.record(&id).await,
                found => found,
            };
            match found {
                Ok(_) | Err(StoreError::Malformed { .. }) => looked_up.push((id, found)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(looked_up)
}

/// At most `most` sandboxes in quarantine, those that have been there longest, and whether there are more. One page of the index
/// for each shard, all at once, and their records, a hundred a read.
///
/// # Errors
///
/// When the table does not answer.
pub async fn longest(store: &Store, most: usize) -> Result<(Vec<Record>, bool), StoreError> {
    let (sandboxes, shards) = (&store.sandboxes, 0..store.shards());
    let (mut rows, mut more) = (Vec::new(), false);
    for page in sandboxes.indexed_together(Status::Quarantined, shards, None, most).await? {
        more |= page.next.is_some();
        rows.extend(page.items.into_iter().map(|row| (row.place.key, row.place.id)));
    }
    // The index sorts them by when they came there.
    rows.sort();
    more |= rows.len() > most;
    rows.truncate(most);
    let records = sandboxes.records(rows.into_iter().map(|(_, id)| id).collect()).await?;
    // The index may be a moment behind.
    let there = records.into_iter().filter(|record| record.sandbox.status == Status::Quarantined);
    let mut found: Vec<_> = there.collect();
    found.sort_by_key(|record| (record.due, record.sandbox.id.clone()));
    Ok((found, more))
}

/// What is in quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InQuarantine {
    /// The sandboxes, the longest first.
    pub records: Vec<Record>,
    /// Those that cannot be read, and why.
    pub unreadable: Vec<QuarantineRefusal>,
}

/// Every sandbox in quarantine.
///
/// # Errors
///
/// When the table does not answer.
pub async fn list(store: &Store) -> Result<InQuarantine, StoreError> {
    let mut listed = InQuarantine::default();
    for (id, found) in in_quarantine(store, |_| true).await? {
        match found {
            Ok(record) => listed.records.extend(record),
            Err(error) => {
                let (sandbox_id, why) = (id.to_string(), error.to_string());
                listed.unreadable.push(QuarantineRefusal { sandbox_id, why });
            }
        }
    }
    Ok(listed)
}
