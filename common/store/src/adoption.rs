//! The run behind `broker pool adopt`: takes over a table that another tool filled, with the attributes of ours but without
//! leases and index keys.
//!
//! Invariants: nothing is written without `apply`; nothing is written to a table that is in use, by the other tool (the
//! table is read twice and must not change) or by ours (the pool is paused first, so a worker that starts now takes no
//! message; then no process may live); nothing is taken over that no job could find for want of the index; a sandbox
//! that may be in use is only given up when that is confirmed; after a run that ended at any of its writes the next one
//! finds the rest, and the pool still paused. Keys and attribute names are not converted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use broker_domain::{
    AccountKey, Adoption, ExternalId, ForeignSandbox, LabDuration, LeaseKey, Status, adoptions, split_doubled,
};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use crate::accounts::ensure_recorded;
use crate::arrivals;
use crate::dynamodb::ADOPTION;
use crate::scan_all::{SEGMENTS, ScanError, every_page};
use crate::schema::{IndexState, STATE_INDEX};
use crate::{
    Candidate, EntryConflict, ForeignRow, Minted, NewSandbox, PoolStatus, Store, StoreError, Survey, Write,
    heartbeat, retry_while_retryable,
};

/// Rows that are being taken over at the same time; they share calls.
const AT_ONCE: usize = 100;

/// Why a table is not taken over. Nothing was written, or what was is wholly ours.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The other tool writes.
    #[error("{changed} sandboxes changed within {apart_s} s: stop whatever uses the table first")]
    InUse {
        /// How many rows.
        changed: usize,
        /// Between two reads so far apart.
        apart_s: u64,
    },
    /// Processes of ours live: an owner who asks before his lease stands would be given a second sandbox.
    #[error("{living} APIs and workers run on this table (or were killed within 90 s): stop them first")]
    NotAlone {
        /// How many.
        living: usize,
    },
    /// Nothing could be allocated.
    #[error("the table has no usable index {STATE_INDEX}: `broker init --adopt-table` adds it")]
    NoIndex,
    /// The table could not be read whole.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The table does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write ended in a panic.
    #[error("a write ended badly")]
    Write(#[from] JoinError),
}

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct AdoptionOptions {
    /// Write.
    pub apply: bool,
    /// Give up what is surplus, too.
    pub confirm: bool,
    /// The time between the two reads.
    pub apart: Duration,
    /// How long an owner has a sandbox whose row does not say it.
    pub lab_duration: LabDuration,
}

/// A sandbox that must not be handed out.
#[derive(Debug, Serialize)]
pub struct SurplusSandbox {
    /// Which.
    pub sandbox_id: String,
    /// Who may be using it.
    pub track: Option<String>,
    /// Why it is surplus.
    pub why: &'static str,
}

/// What is planned, and what was done.
#[derive(Debug, Default, Serialize)]
pub struct AdoptionReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Whether the table has the index that allocation needs.
    pub has_index: bool,
    /// Sandboxes that needed nothing.
    pub ours: u64,
    /// To be kept as they are, by state; those with a lease are `allocated`.
    pub kept: BTreeMap<&'static str, u64>,
    /// To be deleted, once that is confirmed.
    pub surplus: Vec<SurplusSandbox>,
    /// What is wrong with rows that cannot be taken over.
    pub unreadable: Vec<String>,
    /// Rows whose accounts other rows have.
    pub doubled: Vec<String>,
    /// Rows whose external ids name no account: the provider will not delete them.
    pub undeletable: Vec<String>,
    /// What was written.
    pub adopted: u64,
    /// What changed under our hands, or could not be written.
    pub left: u64,
    /// Whether the pool is paused: by this run, which left something, or by an operator.
    pub paused: bool,
}

impl AdoptionReport {
    fn count(&mut self, sandbox: &ForeignSandbox, adoption: &Adoption) {
        match adoption {
            Adoption::AsItIs | Adoption::Lease(_) => {
                *self.kept.entry(sandbox.status.as_str()).or_default() += 1;
            }
            Adoption::GiveUp(surplus) => self.surplus.push(SurplusSandbox {
                sandbox_id: sandbox.id.to_string(),
                track: sandbox.tenancy.as_ref().map(|tenancy| tenancy.lease_key.track.to_string()),
                why: surplus.as_str(),
            }),
        }
    }

    const fn tally(&mut self, entered: &Write<EntryConflict>) {
        match entered {
            Write::Applied => self.adopted += 1,
            // Or an attempt that was not answered took effect: the next run tells.
            Write::Rejected(_) => self.left += 1,
        }
    }

    /// Whether the run did all that it was asked for.
    pub const fn is_complete(&self, confirmed: bool) -> bool {
        self.unreadable.is_empty()
            && self.doubled.is_empty()
            && self.left == 0
            && (confirmed || self.surplus.is_empty())
    }
}

/// A row, what was read of it, and what becomes of it.
type Planned = (ForeignSandbox, ForeignRow, Adoption);

/// The whole table, as one look found it.
#[derive(Default)]
struct Look {
    foreign: Vec<(ForeignSandbox, ForeignRow)>,
    held: HashSet<LeaseKey>,
    digests: HashMap<String, u64>,
    unreadable: Vec<String>,
    ours: u64,
    accounts: HashSet<AccountKey>,
}

/// Who hears of the progress.
pub struct AdoptionProgress<'a> {
    /// So many rows are to be written.
    pub began: &'a dyn Fn(usize),
    /// One of them is.
    pub stepped: &'a dyn Fn(),
}

/// Takes the table over. `is_deletable` says whether the provider can be asked to delete an account.
///
/// # Errors
///
/// When the table is in use, cannot be used, or does not answer.
pub async fn adopt(
    store: &Store,
    clock: &Clock,
    entropy: &Entropy,
    options: AdoptionOptions,
    is_deletable: &dyn Fn(&ExternalId) -> bool,
    progress: &AdoptionProgress<'_>,
) -> Result<AdoptionReport, AdoptError> {
    let has_index = store.inspect().await?.index == IndexState::Usable;
    if options.apply && !has_index {
        return Err(AdoptError::NoIndex);
    }
    let first = look(store, clock, options.lab_duration).await?;
    tokio::time::sleep(options.apart).await;
    let second = look(store, clock, options.lab_duration).await?;
    let changed = changes(&first.digests, &second.digests);
    if changed > 0 {
        return Err(AdoptError::InUse { changed, apart_s: options.apart.as_secs() });
    }
    if options.apply {
        keep_others_away(store, clock).await?;
        crash_points::point(Point::AdoptBegun);
    }
    let Look { foreign, held, unreadable, ours, accounts, .. } = second;
    let mut report =
        AdoptionReport { dry_run: !options.apply, has_index, ours, unreadable, ..AdoptionReport::default() };
    let (foreign, doubled) = split_doubled(foreign, &accounts);
    let name = |row: &ForeignSandbox| format!("{} ({})", row.id, row.external_id);
    report.doubled = doubled.iter().map(name).collect();
    let undeletable = foreign.iter().map(|(row, _)| row).filter(|row| !is_deletable(&row.external_id));
    report.undeletable = undeletable.map(name).collect();
    let planned = adoptions(foreign, held);
    planned.iter().for_each(|(sandbox, _, adoption)| report.count(sandbox, adoption));
    if options.apply {
        let wanted = planned.into_iter().filter(|(_, _, adoption)| match adoption {
            Adoption::GiveUp(_) => options.confirm,
            Adoption::AsItIs | Adoption::Lease(_) => true,
        });
        let wanted: Vec<_> = wanted.collect();
        ensure_recorded(store, entropy, clock.now()).await?;
        (progress.began)(wanted.len());
        let arrived = write(store, clock, entropy, wanted, &mut report, progress.stepped).await?;
        arrivals::offer(store, arrived, clock.now()).await?;
        crash_points::point(Point::Adopted);
        if report.is_complete(options.confirm) {
            store.pool.resume_if_paused_by(ADOPTION).await?;
        }
        report.paused = store.pool.status().await? != PoolStatus::Open;
    }
    Ok(report)
}

async fn look(store: &Store, clock: &Clock, hours: LabDuration) -> Result<Look, ScanError> {
    let (store, now) = (store.clone(), clock.now());
    let read = move |segment, after| {
        let store = store.clone();
        async move { store.adopt.survey(segment, SEGMENTS, after, hours, now).await }
    };
    let mut look = Look::default();
    let see = |page: Survey| {
        look.foreign.extend(page.foreign);
        look.held.extend(page.held);
        look.digests.extend(page.digests);
        look.unreadable.extend(page.unreadable);
        look.ours += page.ours;
        look.accounts.extend(page.accounts.iter().map(AccountKey::of));
        true
    };
    every_page(read, see).await?;
    Ok(look)
}

/// How many sandboxes came, went or are not as they were.
fn changes(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> usize {
    let new_or_other = after.iter().filter(|(pk, digest)| before.get(*pk) != Some(digest)).count();
    new_or_other + before.keys().filter(|pk| !after.contains_key(*pk)).count()
}

/// Pauses the pool, then makes sure that no worker is there. In this order: a worker says that it lives before it looks
/// whether the pool is open, so one that is not seen here will see the pause.
async fn keep_others_away(store: &Store, clock: &Clock) -> Result<(), AdoptError> {
    let now = clock.now();
    let paused = store.pool.pause_if_open(ADOPTION, now).await?;
    let instances = store.instances.list().await?;
    let living = instances.iter().filter(|instance| !heartbeat::is_gone(instance, now)).count();
    if living == 0 {
        return Ok(());
    }
    // The pause of a run that ended midway stays: these must not begin on what it left.
    if paused.is_applied() {
        store.pool.resume_if_paused_by(ADOPTION).await?;
    }
    Err(AdoptError::NotAlone { living })
}

async fn write(
    store: &Store,
    clock: &Clock,
    entropy: &Entropy,
    planned: Vec<Planned>,
    report: &mut AdoptionReport,
    stepped: &dyn Fn(),
) -> Result<Vec<Candidate>, AdoptError> {
    let (mut running, mut arrived) = (JoinSet::new(), Vec::new());
    let mut waiting = planned.into_iter();
    loop {
        while running.len() < AT_ONCE
            && let Some((sandbox, row, adoption)) = waiting.next()
        {
            let (store, clock) = (store.clone(), clock.clone());
            let minted = Minted {
                allocation_id: entropy.allocation_id(),
                request_id: entropy.request_id(clock.now()),
            };
            running.spawn(async move {
                let changed =
                    retry_while_retryable(|| store.adopt.row(&sandbox, &row, &adoption, minted, clock.now()))
                        .await;
                crash_points::point(Point::AdoptStepped);
                changed.map(|changed| (changed, arrival(sandbox, &row, &adoption)))
            });
        }
        let Some(done) = running.join_next().await else { return Ok(arrived) };
        let (changed, arrival) = done??;
        report.tally(&changed);
        arrived.extend(arrival.filter(|_| changed.is_applied()));
        stepped();
    }
}

/// What is offered once it is taken over.
fn arrival(sandbox: ForeignSandbox, row: &ForeignRow, adoption: &Adoption) -> Option<Candidate> {
    let arrives = sandbox.status == Status::Available && *adoption == Adoption::AsItIs;
    let ForeignSandbox { id, name, external_id, .. } = sandbox;
    arrives.then(|| NewSandbox { id, name, external_id, attributes: None }.arrived(row.adopted_version()))
}
