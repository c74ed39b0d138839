//! The accounts' records of a table that an older version filled, or that was restored in part.
//!
//! Sandboxes from before accounts had records get theirs here, allocated ones first; records under another spelling of
//! their account move. Until that is done once
//! ([`ensure_recorded`]) nothing may enter the pool: every way in calls it first. Of several
//! available sandboxes of one account, or beside a used one, all but one are made stale: they are not handed out, sync
//! does not bring them back, and a day later they are removed. Invariant: safe to repeat and to run beside anything.

use std::collections::HashMap;

use broker_domain::{AccountKey, AccountRecord, SandboxId, Status, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use tokio::task::JoinSet;

use crate::dynamodb::{AccountHolder, AccountRows, OldSpelling};
use crate::scan_all::{SEGMENTS, ScanError, every_page};
use crate::{EntryConflict, Seen, Store, StoreError, Write, retry_on_conflict};

/// Sandboxes that are written at the same time; they share calls.
const AT_ONCE: usize = 100;

/// A sandbox whose account another one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubled {
    /// Which.
    pub sandbox: SandboxId,
    /// The one that has its account.
    pub by: SandboxId,
}

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Records that were missing.
    pub written: u64,
    /// Records that stood under another spelling of their account.
    pub respelled: u64,
    /// Records that named a sandbox which did not have the account.
    pub dropped: u64,
    /// Tombstones that would have expired.
    pub kept: u64,
    /// Sandboxes that are refused: another one has their account.
    pub doubled: Vec<Doubled>,
}

/// Lets every sandbox have its account's record, if that was not done yet.
///
/// # Errors
///
/// When the table does not answer: then nothing may enter the pool.
pub async fn ensure_recorded(
    store: &Store,
    entropy: &Entropy,
    now: Timestamp,
) -> Result<Option<Recorded>, ScanError> {
    if store.pool.accounts_recorded().await? {
        return Ok(None);
    }
    record_all(store, entropy, now).await.map(Some)
}

/// Lets every sandbox have its account's record, whatever was done before.
///
/// # Errors
///
/// When the table does not answer.
pub async fn record_all(store: &Store, entropy: &Entropy, now: Timestamp) -> Result<Recorded, ScanError> {
    let (mut holders, mut records, mut old_spellings) = (Vec::new(), HashMap::new(), Vec::new());
    let read = {
        let store = store.clone();
        move |segment, after| {
            let store = store.clone();
            async move { store.accounts.page(segment, SEGMENTS, after, now).await }
        }
    };
    let see = |page: AccountRows| {
        holders.extend(page.holders);
        old_spellings.extend(page.old_spellings);
        records.extend(page.records.into_iter().map(|record| (record.key.clone(), record)));
        true
    };
    every_page(read, see).await?;
    let mut recorded = Recorded::default();
    respell(store, entropy, old_spellings, &mut records, &mut recorded).await?;
    drop_dangling(store, entropy, &holders, &mut records, &mut recorded).await?;
    holders.retain(|holder| {
        let record = records.get(&AccountKey::of(&holder.external_id));
        holder.expires || record.is_none_or(|record| record.retired || record.holder != holder.id)
    });
    holders.sort_by_key(|holder| rank(holder.status));
    let mut running = JoinSet::new();
    for holder in holders {
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            tally(done??, &mut recorded);
        }
        let (store, entropy) = (store.clone(), entropy.clone());
        running.spawn(async move { mend(&store, &entropy, holder, now).await });
    }
    while let Some(done) = running.join_next().await {
        tally(done??, &mut recorded);
    }
    store.pool.note_accounts_recorded(now).await?;
    Ok(recorded)
}

/// An allocated sandbox has the account before an available one.
const fn rank(status: Status) -> u8 {
    match status {
        Status::Allocated => 0,
        Status::Quarantined | Status::PendingDeletion | Status::DeletionFailed => 1,
        Status::Deleted | Status::Unknown => 2,
        Status::Arriving | Status::Available | Status::Reserved => 3,
        Status::Stale => 4,
    }
}

/// Moves records to the one spelling of their accounts, retired ones first: what was handed out stays so. Where the account has
/// another record in that spelling, a retired one stays as it is, and is told.
async fn respell(
    store: &Store,
    entropy: &Entropy,
    mut old_spellings: Vec<OldSpelling>,
    records: &mut HashMap<AccountKey, AccountRecord>,
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    old_spellings.sort_by_key(|old| !old.record.retired);
    for old in old_spellings {
        if retry_on_conflict(entropy, || store.accounts.respell(&old)).await?.is_applied() {
            recorded.respelled += 1;
            records.insert(old.record.key.clone(), old.record);
        } else if old.record.retired {
            let other = records.get(&old.record.key).map(|other| other.holder.clone());
            recorded.doubled.extend(other.map(|by| Doubled { sandbox: old.record.holder, by }));
        } else if retry_on_conflict(entropy, || store.accounts.forget_spelling(&old)).await?.is_applied() {
            // Its sandbox tells the account itself.
            recorded.respelled += 1;
        }
    }
    Ok(())
}

/// Removes records whose holders are another account or are not there.
async fn drop_dangling(
    store: &Store,
    entropy: &Entropy,
    holders: &[AccountHolder],
    records: &mut HashMap<AccountKey, AccountRecord>,
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    let by_id: HashMap<_, _> = holders.iter().map(|holder| (&holder.id, holder)).collect();
    let mut dropped = Vec::new();
    for record in records.values().filter(|record| !record.retired) {
        let holder = by_id.get(&record.holder);
        if holder.is_some_and(|holder| AccountKey::of(&holder.external_id) == record.key) {
            continue;
        }
        let seen = holder.map(|holder| holder.version);
        match retry_on_conflict(entropy, || store.accounts.drop_dangling(record, seen)).await? {
            Write::Applied => {
                recorded.dropped += 1;
                dropped.push(record.key.clone());
            }
            // The scan was no snapshot.
            Write::Rejected(_) => {}
        }
    }
    dropped.iter().for_each(|key| drop(records.remove(key)));
    Ok(())
}

/// What became of one sandbox.
struct Mended {
    written: bool,
    kept: bool,
    doubled: Option<Doubled>,
}

async fn mend(
    store: &Store,
    entropy: &Entropy,
    holder: AccountHolder,
    now: Timestamp,
) -> Result<Mended, StoreError> {
    let seen = Seen { id: &holder.id, version: holder.version };
    let kept = holder.expires
        && retry_on_conflict(entropy, || store.deletions.keep_tombstone(seen)).await?.is_applied();
    match retry_on_conflict(entropy, || store.accounts.record(&holder.id, &holder.external_id)).await? {
        Write::Applied => Ok(Mended { written: true, kept, doubled: None }),
        Write::Rejected(EntryConflict::MovedOn(())) => Ok(Mended { written: false, kept, doubled: None }),
        Write::Rejected(EntryConflict::AccountTaken { by }) => {
            let status = holder.status;
            if matches!(status, Status::Arriving | Status::Available | Status::Reserved) && !holder.foreign {
                retry_on_conflict(entropy, || store.sandboxes.missing(status, seen, now)).await?;
            }
            Ok(Mended { written: false, kept, doubled: Some(Doubled { sandbox: holder.id, by }) })
        }
    }
}

fn tally(mended: Mended, recorded: &mut Recorded) {
    let Mended { written, kept, doubled } = mended;
    recorded.written += u64::from(written);
    if written {
        crash_points::point(Point::AccountRecorded);
    }
    recorded.kept += u64::from(kept);
    recorded.doubled.extend(doubled);
}
