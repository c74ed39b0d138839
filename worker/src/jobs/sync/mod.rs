//! Sync job: makes the pool match the provider's list.
//!
//! Order: our index first, then the provider's whole list, so that what appears in between is new, never missing. `diff`
//! decides purely; each write is at the version that was read, so claims at any moment win or lose whole. Matching
//! sandboxes are not written. Before anything becomes stale the list is read a second time ([`compared_twice`]): missing is
//! what neither list has, and the second list must not contradict itself. A list that is empty, or would make too much of
//! the pool stale, changes nothing ([`diff::refusal`]). A sandbox that was ever handed out does not come back: where an id
//! exists, its item decides ([`resolve`]).

mod arrivals;
mod diff;
mod doubtful;
mod tickets;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use broker_domain::{JobReport, SandboxId, Status};
use broker_provider::{Account, Listed, Provider};
use broker_runtime::crash_points::{self, Point};
use broker_store::{EntryConflict, NewSandbox, Pages, Record, Seen, StoreError, Unused, Write, accounts};

use self::arrivals::Arrivals;
use self::diff::{Diff, KnownSandbox};
use self::doubtful::{Doubt, DoubtfulRow, DoubtfulRows};
use self::tickets::Tickets;
use super::{JobError, Jobs, each};
use crate::serve;

/// The states whose sandboxes the index lists; tombstones are not among them.
const LISTED: [Status; 7] = [
    Status::Arriving,
    Status::Available,
    Status::Allocated,
    Status::PendingDeletion,
    Status::Stale,
    Status::Quarantined,
    Status::DeletionFailed,
];
/// Sandboxes that enter the pool together, before they are served.
const ENTER_TOGETHER: usize = 100;

pub(super) async fn run(jobs: &Jobs, accept_stale: bool, report: &mut JobReport) -> Result<(), JobError> {
    record_accounts(jobs, report).await?;
    let mut diff = compared_twice(jobs, jobs.provider()?).await?;
    report.found = diff.listed;
    tell_unreadable(&diff, report);
    if let Some(doubt) = diff.doubt.clone().filter(|_| !diff.missing.is_empty() && !accept_stale) {
        let missing = diff.missing.len() as u64;
        tracing::warn!(
            missing,
            doubt,
            "nothing is made stale: the provider's list contradicts itself. If it stays so, repair it there, or run sync \
             with --accept-stale"
        );
        report.detail("missing_not_believed", missing);
        report.skipped += missing;
        diff.missing.clear();
    }
    if diff.doubt.is_none() {
        tell_allocated_missing(&diff, report);
    }
    let doubtful = Arc::new(DoubtfulRows::default());
    report.skipped += diff.doubtful.len() as u64;
    diff.doubtful.iter().cloned().for_each(|row| doubtful.add(row));
    let refusal = diff::refusal(&diff).filter(|_| !accept_stale);
    let ended = match refusal {
        Some(refusal) => Err(JobError::Refused(refusal)),
        None => write(jobs, diff, &doubtful, report).await,
    };
    doubtful.tell(report);
    ended
}

/// No sandbox enters the pool before every existing one has its account's record.
async fn record_accounts(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let mended = accounts::ensure_recorded(&jobs.store, &jobs.entropy, jobs.clock.now()).await;
    let Some(recorded) = mended.map_err(JobError::Accounts)? else { return Ok(()) };
    report.detail("accounts_recorded", recorded.written);
    report.detail("accounts_doubled", recorded.doubled.len() as u64);
    let some: Vec<_> =
        recorded.doubled.iter().take(10).map(|d| format!("{} is {}'s account", d.sandbox, d.by)).collect();
    if some.is_empty() {
        tracing::info!(written = recorded.written, "every sandbox has its account's record from now on");
    } else {
        tracing::error!(count = recorded.doubled.len(), ?some, "several sandboxes are one account");
    }
    Ok(())
}

/// The difference; if something would become stale, what is missing in a second list, too.
async fn compared_twice(jobs: &Jobs, provider: &Provider) -> Result<Diff, JobError> {
    let ours = Arc::new(ours(jobs).await?);
    let first = compared(&ours, provider.accounts().await?).await;
    crash_points::point(Point::Listed);
    if first.missing.is_empty() {
        return Ok(first);
    }
    Ok(match provider.accounts().await {
        Ok(listed) => compared(&ours, listed).await.missing_in_both(&first),
        Err(error) => Diff { doubt: Some(format!("the second list failed, {error}")), ..first },
    })
}

/// [`diff::between`] on a blocking thread: with a hundred thousand accounts it takes a while.
async fn compared(ours: &Arc<HashMap<SandboxId, KnownSandbox>>, listed: Listed) -> Diff {
    let ours = Arc::clone(ours);
    match tokio::task::spawn_blocking(move || diff::between(&ours, listed)).await {
        Ok(diff) => diff,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

fn tell_unreadable(diff: &Diff, report: &mut JobReport) {
    report.detail("unreadable_rows", diff.unreadable);
    report.skipped += diff.unreadable;
    metrics::gauge!("broker_sync_unreadable_rows").set(gauge(diff.unreadable));
    if diff.unreadable > 0 {
        let some = &diff.problems;
        tracing::warn!(
            count = diff.unreadable,
            ?some,
            "rows of the provider's list cannot be read: they are left alone"
        );
    }
}

fn tell_allocated_missing(diff: &Diff, report: &mut JobReport) {
    let count = diff.allocated_missing.len() as u64;
    report.detail("allocated_missing", count);
    metrics::gauge!("broker_sync_allocated_missing").set(gauge(count));
    if count > 0 {
        let some: Vec<_> = diff.allocated_missing.iter().take(10).map(SandboxId::as_str).collect();
        tracing::warn!(count, ?some, "allocated sandboxes are missing at the provider");
    }
}

fn gauge(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

async fn write(
    jobs: &Jobs,
    diff: Diff,
    doubtful: &Arc<DoubtfulRows>,
    report: &mut JobReport,
) -> Result<(), JobError> {
    let mut part = JobReport { job: report.job.clone(), ..JobReport::default() };
    let missing = diff.missing.into_iter().map(|(id, (from, version))| {
        let jobs = jobs.clone();
        move || {
            let (jobs, id) = (jobs.clone(), id.clone());
            async move {
                let seen = Seen { id: &id, version };
                jobs.store.sandboxes.missing(from, seen, jobs.clock.now()).await
            }
        }
    });
    each::all(jobs, missing, &mut part).await?;
    take(report, &mut part, "made_stale");
    let arrivals = Arrivals::default();
    let found = diff.found.into_iter().map(|(account, known)| {
        let (jobs, doubtful, arrivals) = (jobs.clone(), Arc::clone(doubtful), arrivals.clone());
        move || {
            let (jobs, doubtful, arrivals) = (jobs.clone(), Arc::clone(&doubtful), arrivals.clone());
            let (account, known) = (account.clone(), known.clone());
            async move { found(&jobs, &account, &known, &doubtful, &arrivals).await }
        }
    });
    enter(jobs, found, &arrivals, &mut part).await?;
    take(report, &mut part, "refreshed_or_returned");
    let names = diff.unknown.iter().map(|account| &account.name);
    let tickets = Arc::new(Tickets::read(jobs, names).await?);
    let unknown = diff.unknown.into_iter().map(|account| {
        let (jobs, doubtful) = (jobs.clone(), Arc::clone(doubtful));
        let (tickets, arrivals) = (Arc::clone(&tickets), arrivals.clone());
        move || {
            let (jobs, doubtful) = (jobs.clone(), Arc::clone(&doubtful));
            let (tickets, arrivals) = (Arc::clone(&tickets), arrivals.clone());
            let account = account.clone();
            async move { insert(&jobs, &account, &tickets, &doubtful, &arrivals).await }
        }
    });
    enter(jobs, unknown, &arrivals, &mut part).await?;
    report.detail("tickets_taken", tickets.taken());
    take(report, &mut part, "inserted_or_revived");
    Ok(())
}

/// Takes the steps, which bring sandboxes, in portions, and serves what each brought.
async fn enter<Step, Fut>(
    jobs: &Jobs,
    mut steps: impl Iterator<Item = Step>,
    arrivals: &Arrivals,
    part: &mut JobReport,
) -> Result<(), JobError>
where
    Step: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Write, StoreError>> + Send + 'static,
{
    loop {
        let portion: Vec<_> = steps.by_ref().take(ENTER_TOGETHER).collect();
        if portion.is_empty() {
            return Ok(());
        }
        let ended = each::all(jobs, portion.into_iter(), part).await;
        let arrived = arrivals.take();
        if !arrived.is_empty() {
            crash_points::point(Point::Arrived);
        }
        serve::these(jobs, arrived).await;
        ended?;
    }
}

/// Refreshes a sandbox that is listed, or lets a stale one arrive again.
async fn found(
    jobs: &Jobs,
    account: &Account,
    known: &KnownSandbox,
    doubtful: &DoubtfulRows,
    arrivals: &Arrivals,
) -> Result<Write, StoreError> {
    let (listed, now) = (as_new(account), jobs.clock.now());
    let KnownSandbox { status, version, external_id, .. } = known;
    let from = Unused { status: *status, version: *version, external_id };
    let entered = jobs.store.sandboxes.found(from, &listed, now).await?;
    // One that was arriving, and has another name now, waits for the tick as it did.
    if entered.is_applied() && *status == Status::Stale {
        arrivals.add(listed.clone().arrived(version + 1));
    }
    Ok(settle(entered, &listed, doubtful))
}

/// What became of a row; one whose account is another sandbox's is refused.
fn settle(entered: Write<EntryConflict>, listed: &NewSandbox, doubtful: &DoubtfulRows) -> Write {
    match entered {
        Write::Applied => Write::Applied,
        Write::Rejected(EntryConflict::MovedOn(())) => Write::Rejected(()),
        Write::Rejected(EntryConflict::AccountTaken { by }) => {
            let (id, external_id) = (listed.id.clone(), listed.external_id.clone());
            doubtful.add(DoubtfulRow { id, external_id, doubt: Doubt::AccountOf(by) });
            Write::Rejected(())
        }
    }
}

fn take(report: &mut JobReport, part: &mut JobReport, kind: &str) {
    report.detail(kind, part.changed);
    report.changed += std::mem::take(&mut part.changed);
    report.skipped += std::mem::take(&mut part.skipped);
    report.failed += std::mem::take(&mut part.failed);
}

/// The sandboxes of the index.
async fn ours(jobs: &Jobs) -> Result<HashMap<SandboxId, KnownSandbox>, JobError> {
    let mut ours = HashMap::new();
    for status in LISTED {
        for shard in 0..jobs.store.shards() {
            let mut pages = Pages::new(|after| jobs.store.sandboxes.listed(status, shard, after));
            while let Some(candidates) = pages.next().await? {
                for row in candidates {
                    let known = KnownSandbox {
                        status,
                        version: row.version,
                        name: row.name,
                        external_id: row.external_id,
                    };
                    // Listed twice, it moved on meanwhile: the later version is newer.
                    let slot = ours.entry(row.sandbox_id).or_insert_with(|| known.clone());
                    if slot.version < known.version {
                        *slot = known;
                    }
                }
            }
        }
    }
    Ok(ours)
}

fn as_new(account: &Account) -> NewSandbox {
    NewSandbox {
        id: account.id.clone(),
        name: account.name.clone(),
        external_id: account.external_id.clone(),
    }
}

/// Puts an account that the index did not list into the pool, if its id and its account are free.
async fn insert(
    jobs: &Jobs,
    account: &Account,
    tickets: &Tickets,
    doubtful: &DoubtfulRows,
    arrivals: &Arrivals,
) -> Result<Write, StoreError> {
    let (sandbox, now) = (as_new(account), jobs.clock.now());
    let entered = match tickets.insert(jobs, &sandbox, now).await? {
        Write::Applied => {
            arrivals.add(sandbox.clone().arrived(NewSandbox::first_version(now)));
            Write::Applied
        }
        Write::Rejected(EntryConflict::AccountTaken { by }) => {
            Write::Rejected(EntryConflict::AccountTaken { by })
        }
        Write::Rejected(EntryConflict::MovedOn(record)) => {
            resolve(jobs, account, &sandbox, &record, arrivals).await?
        }
    };
    Ok(settle(entered, &sandbox, doubtful))
}

/// Handles a listed account whose id exists.
async fn resolve(
    jobs: &Jobs,
    account: &Account,
    sandbox: &NewSandbox,
    stands: &Record,
    arrivals: &Arrivals,
) -> Result<Write<EntryConflict>, StoreError> {
    let now = jobs.clock.now();
    match diff::judge(account, stands) {
        // The index was a moment behind: the next run sees it.
        diff::DiffVerdict::Leave => Ok(Write::Rejected(EntryConflict::MovedOn(()))),
        diff::DiffVerdict::Another(created_at) => {
            let entered =
                jobs.store.sandboxes.insert_over_tombstone(sandbox, stands, created_at, now).await?;
            if entered.is_applied() {
                let version = NewSandbox::version_over(stands.sandbox.version, now);
                arrivals.add(sandbox.clone().arrived(version));
            }
            Ok(entered)
        }
        diff::DiffVerdict::DeleteAgain => {
            tracing::warn!(sandbox = %account.id, "deleted and still listed by the provider: deleting it again");
            let was = &stands.sandbox.external_id;
            jobs.store.sandboxes.revive_deletion(stands.sandbox.version, was, sandbox, now).await
        }
    }
}
