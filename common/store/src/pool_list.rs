//! List of the pool for operators, page by page, at a bounded cost.
//!
//! | asked for | read |
//! |---|---|
//! | all, a state, a flavour | the table if it is small, else the index, state after state in the order of a sandbox's life, then those that are not in it |
//! | what was deleted, an owner, a lab | the table; of an owner first the sandbox of its own lease |
//!
//! The table has much besides sandboxes, so a page of it may hold none; the index holds nothing else. Invariant: the pages
//! together show every sandbox that does not change meanwhile, once. One that changes may be shown twice, or, if it goes back
//! in its life, be missed.

mod place;

pub use place::PoolPlace;

use crate::{Page, ReadBudget, Record, Store, StoreError};
use broker_domain::{
    IdempotencyKey, LeaseKey, NamePrefix, SandboxId, SandboxName, Status, TrackId, TrackName,
};

/// The states that the index lists, in the order of a sandbox's life: one that changes state while pages are read is
/// further on.
const LISTED: [Status; 8] = [
    Status::Arriving,
    Status::Available,
    Status::Reserved,
    Status::Allocated,
    Status::Quarantined,
    Status::Stale,
    Status::PendingDeletion,
    Status::DeletionFailed,
];
/// Rows of the index that one read looks at for names that are wanted.
const LOOKED_AT: usize = 1_000;

/// A sandbox that was asked for, and its record, none, or why it was not read.
pub(crate) type LookedUp = (SandboxId, Result<Option<Record>, StoreError>);

/// A row of the index.
#[derive(Clone, Debug)]
pub(crate) struct IndexRow {
    /// Its place.
    pub(crate) place: IndexedAfter,
    /// The sandbox's name, if it can be read.
    pub(crate) name: Option<SandboxName>,
}

/// The place of a row in its shard of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedAfter {
    /// The index's sort key.
    pub(crate) key: String,
    /// The sandbox.
    pub(crate) id: SandboxId,
}

/// Items that one read of the table looks at, about a megabyte. Without a number the embedded endpoint reads all that is left for
/// each page.
const AT_ONCE: i32 = 2_500;
/// The same of the read that finds out whether a table is small: then it tells all by itself, and consistently.
const SMALL: i32 = 500;

/// Which sandboxes a read of the table looks for.
#[derive(Clone, Copy, Debug)]
pub struct Browsed<'a> {
    /// How many items it looks at.
    pub at_once: i32,
    /// Those that this owner holds or held.
    pub track: Option<&'a TrackId>,
    /// Those for this lab.
    pub track_name: Option<&'a TrackName>,
    /// Those that the index lists in none of these states.
    pub unlisted: Option<&'a [Status]>,
}

impl Default for Browsed<'_> {
    fn default() -> Self {
        Self { at_once: AT_ONCE, track: None, track_name: None, unlisted: None }
    }
}

/// What a read of the table found.
#[derive(Debug)]
pub struct BrowsedPage {
    /// The sandboxes, and where the next page begins.
    pub page: Page<Vec<Record>>,
    /// How many items it looked at.
    pub looked_at: usize,
    /// Whether nothing lies behind what it looked at.
    pub is_last: bool,
}

type IndexPage = Page<Vec<IndexRow>, IndexedAfter>;

/// Which sandboxes are listed.
#[derive(Clone, Copy, Default)]
pub struct PoolFilter<'a> {
    /// Those in this state.
    pub status: Option<Status>,
    /// Those that this owner holds or held.
    pub track: Option<&'a TrackId>,
    /// Those for this lab.
    pub track_name: Option<&'a TrackName>,
    /// Those of such names.
    pub names: Option<WantedNames<'a>>,
}

/// The names of a flavour.
#[derive(Clone, Copy)]
pub struct WantedNames<'a> {
    /// What all of them begin with.
    pub prefix: Option<&'a NamePrefix>,
    /// Whether a name is one.
    pub takes: &'a (dyn Fn(&SandboxName) -> bool + Sync),
}

impl std::fmt::Debug for PoolFilter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolFilter").field("status", &self.status).finish_non_exhaustive()
    }
}

impl PoolFilter<'_> {
    /// Whether the index alone tells what is wanted.
    fn is_indexed(&self) -> bool {
        self.track.is_none() && self.track_name.is_none() && self.status != Some(Status::Deleted)
    }

    fn takes_name(&self, name: &SandboxName) -> bool {
        self.names.is_none_or(|names| (names.takes)(name))
    }

    fn takes(&self, record: &Record) -> bool {
        let sandbox = &record.sandbox;
        let allocation = sandbox.allocation.as_ref();
        self.status.is_none_or(|status| sandbox.status == status)
            && self.track.is_none_or(|track| allocation.is_some_and(|held| held.lease_key.track == *track))
            && self
                .track_name
                .is_none_or(|lab| allocation.is_some_and(|held| held.track_name.as_ref() == Some(lab)))
            && self.takes_name(&sandbox.name)
    }

    /// What a read of the table looks for.
    fn of_table(&self) -> Browsed<'_> {
        Browsed { track: self.track, track_name: self.track_name, ..Browsed::default() }
    }
}

/// A page: fewer than were asked for, even none, also before the end.
#[derive(Debug, Default)]
pub struct PoolListPage {
    /// The sandboxes.
    pub records: Vec<Record>,
    /// Where the next page begins; none at the end.
    pub next: Option<PoolPlace>,
}

/// A page of the pool, behind `after`, of at most `limit` sandboxes, and of what can be read within `budget`.
///
/// # Errors
///
/// When the table does not answer.
pub async fn page(
    store: &Store,
    filter: &PoolFilter<'_>,
    after: Option<PoolPlace>,
    limit: usize,
    budget: &mut ReadBudget<'_>,
) -> Result<PoolListPage, StoreError> {
    let mut page = PoolListPage::default();
    let begun = match after {
        Some(after) => Some(after),
        None => begin(store, filter, limit, budget, &mut page).await?,
    };
    let Some(mut place) = begun else { return Ok(page) };
    loop {
        let left = limit - page.records.len();
        if left == 0 || !budget.take(1) {
            page.next = Some(place);
            return Ok(page);
        }
        let next = match place {
            PoolPlace::Index { status, shard, after } => {
                let rows = RowReader { store, filter, status };
                let (records, next) = rows.read((shard, after), left, budget).await?;
                page.records.extend(records);
                next.or_else(|| behind(filter, status))
            }
            PoolPlace::Table { after, shown, unlisted } => {
                let listed = unlisted.then_some(LISTED.as_slice());
                let wanted = Browsed { unlisted: listed, ..filter.of_table() };
                let keep =
                    |record: &Record| filter.takes(record) && Some(&record.sandbox.id) != shown.as_ref();
                let read = store.sandboxes.browse(&wanted, after, left, keep).await?;
                budget.looked_at(read.looked_at);
                page.records.extend(read.page.items);
                read.page.next.map(|key| PoolPlace::Table { after: Some(key), shown, unlisted })
            }
        };
        match next {
            Some(next) => place = next,
            None => return Ok(page),
        }
    }
}

/// Where a list begins, with what was found on the way; none if that is all.
async fn begin(
    store: &Store,
    filter: &PoolFilter<'_>,
    limit: usize,
    budget: &mut ReadBudget<'_>,
    page: &mut PoolListPage,
) -> Result<Option<PoolPlace>, StoreError> {
    if let Some(track) = filter.track {
        let own = own_of(store, filter, track).await?;
        let shown = own.as_ref().map(|record| record.sandbox.id.clone());
        page.records.extend(own);
        return Ok(Some(PoolPlace::Table { after: None, shown, unlisted: false }));
    }
    if !filter.is_indexed() {
        return Ok(Some(PoolPlace::Table { after: None, shown: None, unlisted: false }));
    }
    budget.take(1);
    let small = Browsed { at_once: SMALL, ..filter.of_table() };
    let read = store.sandboxes.browse(&small, None, limit, |record| filter.takes(record)).await?;
    if read.is_last {
        page.records = read.page.items;
        let behind = |key| PoolPlace::Table { after: Some(key), shown: None, unlisted: false };
        return Ok(read.page.next.map(behind));
    }
    Ok(Some(PoolPlace::Index { status: filter.status.unwrap_or(LISTED[0]), shard: 0, after: None }))
}

/// What comes behind all of a state.
fn behind(filter: &PoolFilter<'_>, status: Status) -> Option<PoolPlace> {
    if filter.status.is_some() {
        return None;
    }
    let next = LISTED.iter().skip_while(|listed| **listed != status).nth(1);
    Some(match next {
        Some(next) => PoolPlace::Index { status: *next, shard: 0, after: None },
        None => PoolPlace::Table { after: None, shown: None, unlisted: true },
    })
}

/// The sandbox of the lease that an owner has without naming a key: two reads instead of a look at everything.
async fn own_of(
    store: &Store,
    filter: &PoolFilter<'_>,
    track: &TrackId,
) -> Result<Option<Record>, StoreError> {
    let key = LeaseKey { track: track.clone(), key: IdempotencyKey::from(track) };
    let Some(lease) = store.leases.get(&key).await? else { return Ok(None) };
    let record = store.sandboxes.record(&lease.grant.sandbox_id).await?;
    Ok(record.filter(|record| filter.takes(record)))
}

/// The rows of a state.
struct RowReader<'a> {
    store: &'a Store,
    filter: &'a PoolFilter<'a>,
    status: Status,
}

impl RowReader<'_> {
    /// Records from a place on, at most `limit`, and where it goes on in this state. The first shard is read alone: mostly it
    /// suffices. If it does not, the others are asked together, so that an empty state costs two round trips.
    async fn read(
        &self,
        (shard, after): (u8, Option<IndexedAfter>),
        limit: usize,
        budget: &mut ReadBudget<'_>,
    ) -> Result<(Vec<Record>, Option<PoolPlace>), StoreError> {
        let at = |shard, after| Some(PoolPlace::Index { status: self.status, shard, after });
        let shards = self.store.shards();
        if shard >= shards {
            return Ok((Vec::new(), None));
        }
        let mut chosen = Vec::new();
        let depth = if self.filter.names.is_some() { LOOKED_AT } else { limit };
        let of_state = (self.status, shard);
        let first = self.store.sandboxes.indexed(of_state, self.prefix(), after, depth).await?;
        budget.looked_at(first.items.len());
        let (mut next, mut later) = (self.choose(&mut chosen, limit, shard, first), shard + 1);
        let others = usize::from(shards - later.min(shards));
        if next.is_none() && chosen.len() < limit && others > 0 {
            if budget.take(others) {
                let sandboxes = &self.store.sandboxes;
                let pages =
                    sandboxes.indexed_together(self.status, later..shards, self.prefix(), limit).await?;
                for page in pages {
                    budget.looked_at(page.items.len());
                    next = self.choose(&mut chosen, limit, later, page);
                    later += 1;
                    if next.is_some() || chosen.len() == limit {
                        break;
                    }
                }
            } else {
                next = at(later, None);
            }
        }
        if next.is_none() && later < shards {
            next = at(later, None);
        }
        let records =
            self.store.sandboxes.records(chosen.into_iter().map(|row| row.place.id).collect()).await?;
        Ok((records.into_iter().filter(|record| self.shows(record)).collect(), next))
    }

    /// Takes what is wanted of a page of the index; where its shard goes on, if it does.
    fn choose(
        &self,
        chosen: &mut Vec<IndexRow>,
        limit: usize,
        shard: u8,
        page: IndexPage,
    ) -> Option<PoolPlace> {
        let at = |after| Some(PoolPlace::Index { status: self.status, shard, after: Some(after) });
        let read = page.items.len();
        for (number, row) in page.items.into_iter().enumerate() {
            if !row.name.as_ref().is_none_or(|name| self.filter.takes_name(name)) {
                continue;
            }
            let after = row.place.clone();
            chosen.push(row);
            if chosen.len() == limit && (number + 1 < read || page.next.is_some()) {
                return at(after);
            }
        }
        page.next.and_then(at)
    }

    /// What names begin with, where the index is sorted by them.
    fn prefix(&self) -> Option<&NamePrefix> {
        self.filter.names.and_then(|names| names.prefix).filter(|_| self.status == Status::Available)
    }

    /// Whether a record that the index listed in this state is shown here. One that was behind the index may have gone on: then
    /// it is shown where it stands, unless that was passed.
    fn shows(&self, record: &Record) -> bool {
        let place = |status| LISTED.iter().position(|listed| *listed == status).unwrap_or(LISTED.len());
        self.filter.takes(record)
            && (self.filter.status.is_some() || place(record.sandbox.status) <= place(self.status))
    }
}

#[cfg(test)]
#[path = "pool_list_tests.rs"]
mod tests;
