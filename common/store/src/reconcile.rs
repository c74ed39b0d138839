//! The run behind `broker pool reconcile`: reads the whole table, takes the steps that `broker_domain::reconcile` decides on,
//! and lets [`verify`] judge what became of it.
//!
//! Invariants: a dry run takes the same steps in memory; nothing is written to a pool that is open, and from the first
//! write on the pool is closed until a run leaves no conflict, nothing that is unclear, and nothing that the judge
//! names; a run that ended after any of its writes is gone on with by the next. What it does not do: read files, or ask
//! the provider.

use std::collections::{BTreeMap, BTreeSet};

use broker_domain::reconcile::{
    Asked, Decision, HandedOut, Known, LineVerdict, Lines, Listing, Minted, Purpose, Step, decide,
};
use broker_domain::{AccountKey, ExternalId, LabDuration, SandboxId, Status, TrackId, suspects};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use crate::accounts::record_all;
use crate::scan_all::{ScanError, scan};
use crate::verify::verify;
use crate::{PoolStatus, Store, StoreError, Write, permits, retry_on_conflict, retry_while_retryable};

/// The track of a lease whose owner is not known.
const UNKNOWN_OWNER: &str = "reconciled";
/// Steps that are taken at the same time; they share calls.
const AT_ONCE: usize = 100;

/// Why a table could not be reconciled. Nothing was written, or what was is gone on with by the next run.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Workers may be handing sandboxes out.
    #[error("the pool is open: `broker pool pause` first, and wait until the workers have heard of it")]
    Open,
    /// The lines speak of too few sandboxes.
    #[error(
        "the lines speak of {covered} sandboxes, and at the table's last census (second {as_of_s}) {allocated} were allocated: a line too few hands out a used \
         sandbox. Write them by `broker pool list --handed-out`; if they are whole, --accept-fewer"
    )]
    Fewer {
        /// Sandboxes that the lines speak of.
        covered: usize,
        /// How many were allocated.
        allocated: u64,
        /// When, in seconds since the epoch.
        as_of_s: u64,
    },
    /// A line says what cannot be.
    #[error("the line of {sandbox}: {problem}")]
    Line {
        /// Its sandbox.
        sandbox: SandboxId,
        /// What is wrong with it.
        problem: String,
    },
    /// The provider's list is empty, and the table is not.
    #[error("the provider lists nothing: look at it first")]
    NothingListed,
    /// Another run ended at the same moment.
    #[error("another run reconciled the table at the same moment")]
    NotAlone,
    /// The table could not be read whole.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The table does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step ended in a panic.
    #[error("a step ended badly")]
    Step(#[from] JoinError),
}

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileOptions {
    /// Write.
    pub apply: bool,
    /// Also with fewer lines than the census says are allocated.
    pub accept_fewer: bool,
    /// How long an owner has a sandbox whose line does not say it.
    pub lab_duration: LabDuration,
}

/// What is to be done, or was.
#[derive(Debug, Default, Serialize)]
pub struct ReconcileReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Sandboxes that the lines speak of.
    pub lines: usize,
    /// What became of them, by the word for it.
    pub steps: BTreeMap<&'static str, u64>,
    /// Halves of transactions that became whole.
    pub mended: u64,
    /// Available ones that the provider does not list.
    pub missing: u64,
    /// Available ones that the provider does not list either, too many to be believed: nothing became of them.
    pub missing_not_believed: u64,
    /// Sandboxes that only people can tell about.
    pub conflicts: Vec<SandboxId>,
    /// Why, and what else is in the way of opening the pool.
    pub problems: Vec<String>,
    /// What the judge of the whole table still names.
    pub suspects: Vec<String>,
    /// Steps that another run has to take.
    pub left: u64,
}

impl ReconcileReport {
    /// Whether nothing is in the way of opening the pool.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.suspects.is_empty() && self.left == 0
    }

    fn count(&mut self, word: &'static str) {
        *self.steps.entry(word).or_default() += 1;
    }

    fn conclude(&mut self, decision: Decision, taken: &BTreeMap<SandboxId, &'static str>) {
        taken.values().for_each(|word| self.count(word));
        self.missing_not_believed = decision.missing_not_believed;
        for (id, verdict) in decision.verdicts {
            match verdict {
                LineVerdict::AsItIs if taken.contains_key(&id) => {}
                LineVerdict::AsItIs => self.count("as_it_is"),
                LineVerdict::Unknown => self.count("unknown"),
                LineVerdict::Conflict(why) => {
                    self.count("conflict");
                    self.problems.push(why);
                    self.conflicts.push(id);
                }
                LineVerdict::Unclear(why) => {
                    self.count("unclear");
                    self.problems.push(why);
                }
            }
        }
    }
}

/// Reconciles the table with `lines`; `listing` is what the provider lists.
///
/// # Errors
///
/// When the run must not begin, or the table does not answer.
pub async fn reconcile(
    store: &Store,
    clock: &Clock,
    entropy: &Entropy,
    lines: Vec<HandedOut>,
    listing: Option<&Listing>,
    options: ReconcileOptions,
) -> Result<ReconcileReport, ReconcileError> {
    let standing = store.pool.status().await?;
    if options.apply && standing == PoolStatus::Open {
        return Err(ReconcileError::Open);
    }
    let now = clock.now();
    if let Some((line, problem)) =
        lines.iter().find_map(|line| line.problem(now).map(|problem| (line, problem)))
    {
        return Err(ReconcileError::Line { sandbox: line.sandbox_id.clone(), problem });
    }
    let lines: Lines = lines.into_iter().collect();
    if !options.accept_fewer {
        must_cover(store, &lines).await?;
    }
    let mut run =
        Reconciliation { store, clock, entropy, options, known: Known::default(), taken: BTreeMap::new() };
    // What an item that cannot be read says of its sandbox or its owner is not known: nothing is decided beside it.
    let unreadable = run.read_all().await?;
    if !unreadable.is_empty() {
        return Ok(run.refused(&lines, unreadable));
    }
    if options.apply {
        // It may have been resumed while the table was read.
        if !store.pool.begin_reconciling(now).await?.is_applied() {
            return Err(ReconcileError::Open);
        }
        crash_points::point(Point::ReconcileBegun);
        // A restored table may hold a sandbox without its account's record, or the record alone.
        record_all(store, entropy, now).await?;
        let unreadable = run.read_all().await?;
        if !unreadable.is_empty() {
            return Ok(run.refused(&lines, unreadable));
        }
    }
    if listing.is_some_and(|listing| listing.is_empty) && !run.known.is_empty() {
        return Err(ReconcileError::NothingListed);
    }
    let mut report = run.settle(&lines, listing).await?;
    if options.apply {
        // A restored table may hold a permit without its lease, or the lease alone.
        report.mended += permits::mend(store).await?;
    }
    report.suspects = match options.apply {
        true => verify(store, clock.now())
            .await?
            .violations
            .iter()
            .filter(|v| v.keeps_closed())
            .map(|v| format!("{}: {}", v.kind, v.detail))
            .collect(),
        false => suspects(&run.known.inventory())
            .iter()
            .map(|s| format!("{}: {}", s.violation.kind(), s.violation))
            .collect(),
    };
    if options.apply && report.is_clean() {
        crash_points::point(Point::Reconciled);
        open(store).await?;
    }
    Ok(report)
}

async fn must_cover(store: &Store, lines: &Lines) -> Result<(), ReconcileError> {
    let Some(census) = store.census.get().await? else { return Ok(()) };
    let allocated = census.by_status.get(&Status::Allocated).copied().unwrap_or(0);
    let covered = lines.len();
    if u64::try_from(covered).unwrap_or(u64::MAX) < allocated {
        return Err(ReconcileError::Fewer { covered, allocated, as_of_s: census.as_of.as_secs() });
    }
    Ok(())
}

/// Binds the pool to this table; a pause of the operator's stays.
async fn open(store: &Store) -> Result<(), ReconcileError> {
    match store.pool.status().await? {
        PoolStatus::RestoredCopy { of } => match store.pool.bind_copy(&of).await? {
            Write::Applied => Ok(()),
            Write::Rejected(()) => Err(ReconcileError::NotAlone),
        },
        PoolStatus::Open | PoolStatus::Paused { .. } | PoolStatus::OtherShards { .. } => Ok(()),
    }
}

/// A run under way.
struct Reconciliation<'a> {
    store: &'a Store,
    clock: &'a Clock,
    entropy: &'a Entropy,
    options: ReconcileOptions,
    known: Known,
    /// What became of sandboxes that lines speak of.
    taken: BTreeMap<SandboxId, &'static str>,
}

impl Reconciliation<'_> {
    /// Reads the table anew; returns why items of it cannot be read.
    async fn read_all(&mut self) -> Result<Vec<String>, ScanError> {
        self.known = Known::default();
        let (known, mut unreadable) = (&mut self.known, Vec::new());
        scan(self.store, |mut page| {
            unreadable.append(&mut page.unreadable);
            page.sandboxes.into_iter().for_each(|sandbox| known.add_sandbox(sandbox));
            page.leases.into_iter().for_each(|lease| known.add_lease(lease));
            true
        })
        .await?;
        Ok(unreadable)
    }

    /// The report of a run that takes no step, because of items that cannot be read.
    fn refused(&self, lines: &Lines, unreadable: Vec<String>) -> ReconcileReport {
        ReconcileReport {
            dry_run: !self.options.apply,
            lines: lines.len(),
            suspects: unreadable.into_iter().map(|why| format!("unreadable_item: {why}")).collect(),
            ..ReconcileReport::default()
        }
    }

    /// Takes steps until none is left, or none of a stage succeeds.
    async fn settle(
        &mut self,
        lines: &Lines,
        listing: Option<&Listing>,
    ) -> Result<ReconcileReport, ReconcileError> {
        let mut report = ReconcileReport {
            dry_run: !self.options.apply,
            lines: lines.len(),
            ..ReconcileReport::default()
        };
        let unknown_owner = TrackId::new(UNKNOWN_OWNER).map_err(|_invalid| StoreError::Malformed {
            item: UNKNOWN_OWNER.to_owned(),
            attribute: "track",
        })?;
        loop {
            let decision = self.decide(lines, listing, &unknown_owner);
            if decision.steps.is_empty() {
                report.conclude(decision, &self.taken);
                return Ok(report);
            }
            let planned = decision.steps.len();
            let done = if self.options.apply {
                self.write(&decision.steps).await?
            } else {
                decision.steps.iter().for_each(|(_, step)| self.known.apply(step));
                (0..planned).collect()
            };
            for (purpose, step) in done.iter().filter_map(|at| decision.steps.get(*at)) {
                self.note(*purpose, step, &mut report);
            }
            if done.is_empty() {
                report.left = u64::try_from(planned).unwrap_or(u64::MAX);
                report.conclude(decision, &self.taken);
                return Ok(report);
            }
        }
    }

    fn decide(&self, lines: &Lines, listing: Option<&Listing>, unknown_owner: &TrackId) -> Decision {
        let now = self.clock.now();
        let mint = || Minted {
            allocation_id: self.entropy.allocation_id(),
            request_id: self.entropy.request_id(now),
        };
        let lease = self.options.lab_duration.as_duration();
        let sight = |id: &SandboxId| Listing::sight(listing, id);
        let is_there = |account: &ExternalId| {
            listing.is_some_and(|listing| listing.there.contains(&AccountKey::of(account)))
        };
        decide(
            &self.known,
            &Asked { lines, sight: &sight, is_there: &is_there, mint: &mint, unknown_owner, lease, now },
        )
    }

    fn note(&mut self, purpose: Purpose, step: &Step, report: &mut ReconcileReport) {
        let word = match purpose {
            Purpose::Mend => {
                report.mended += 1;
                return;
            }
            Purpose::Missing => {
                report.missing += 1;
                return;
            }
            // It is leased or given up next.
            Purpose::Insert => return,
            Purpose::End => "end",
            Purpose::Lease => "lease",
            Purpose::GiveUp => "give_up",
        };
        self.taken.insert(step.sandbox_id().clone(), word);
    }

    /// Writes the steps of a stage; which of them succeeded. What they are about is read again, whatever became of them.
    async fn write(&mut self, steps: &[(Purpose, Step)]) -> Result<BTreeSet<usize>, ReconcileError> {
        let mut done = BTreeSet::new();
        let mut running = JoinSet::new();
        let mut waiting = steps.iter().enumerate();
        loop {
            while running.len() < AT_ONCE
                && let Some((at, (_, step))) = waiting.next()
            {
                let (store, entropy, step) = (self.store.clone(), self.entropy.clone(), step.clone());
                let (hours, now) = (self.options.lab_duration, self.clock.now());
                running.spawn(async move {
                    let changed = retry_while_retryable(|| store.reconcile.step(&step, hours, now)).await?;
                    crash_points::point(Point::ReconcileStepped);
                    let keys: Vec<_> = step.lease_key().cloned().into_iter().collect();
                    let read =
                        || store.scans.together(std::slice::from_ref(step.sandbox_id()), &keys, &[], &[]);
                    let page = retry_on_conflict(&entropy, read).await?;
                    Ok::<_, StoreError>((at, step, changed, page))
                });
            }
            let Some(taken) = running.join_next().await else { return Ok(done) };
            let (at, step, changed, page) = taken??;
            self.known.forget(&step);
            page.sandboxes.into_iter().for_each(|sandbox| self.known.add_sandbox(sandbox));
            page.leases.into_iter().for_each(|lease| self.known.add_lease(lease));
            if changed.is_applied() {
                done.insert(at);
            }
        }
    }
}
