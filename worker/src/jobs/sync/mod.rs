//! Sync job: makes the pool match the provider's list.
//!
//! Order: our index first, then the provider's whole list, so that what appears in between is new, never missing. `diff`
//! decides purely; each write is at the version that was read, so claims at any moment win or lose whole. Matching
//! sandboxes are not written. Before a sandbox becomes stale the list is read a second time ([`compared_twice`]): it is missing
//! if it is in neither list and the second list does not contradict itself. Three lists are refused ([`refusal`]): an empty one,
//! one that would make too much of the pool stale, and another provider's. A sandbox that was ever handed out does not come back: where an id
//! exists, its item decides ([`resolve`]). When everything was let in, and the list hides nothing that may be new, the time at
//! which it began is kept: refill ends tickets by it.

mod diff;
#[cfg(test)]
mod diff_tests;
mod doubtful;
mod figures;
mod known;
mod refusal;
mod spool;
mod tickets;
mod verdict;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use broker_domain::refill::AppliedList;
use broker_domain::{JobReport, MISSING_NOT_BELIEVED, Status};
use broker_provider::{Account, Provider, Tally};
use broker_runtime::crash_points::{self, Point};
use broker_store::{EntryConflict, NewSandbox, Record, Seen, StoreError, Unused, Write, accounts};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::diff::{Diff, KnownSandbox, Missing, Ours, Theirs};
use self::doubtful::{Doubt, DoubtfulRow, DoubtfulRows};
pub(crate) use self::figures::{OwnSync, show_superseded};
use self::figures::{tell_allocated_missing, tell_unreadable};
pub(crate) use self::spool::SpoolError;
use self::spool::{Portions, Spool};
use self::tickets::Tickets;
use self::verdict::{DiffVerdict, is_its_account, judge};
use super::arrivals::Arrivals;
use super::{JobError, Jobs, each, refill};
use crate::jobs::serve;

/// Sandboxes that enter the pool together, before they are served: three calls of grants, if so many wait.
const ENTER_TOGETHER: usize = 99;
/// Of those, at a time: as many as one call writes.
const ENTER_AT_ONCE: usize = 25;

pub(super) async fn run(jobs: &Jobs, accept_stale: bool, report: &mut JobReport) -> Result<(), JobError> {
    record_accounts(jobs, report).await?;
    let began = jobs.clock.now();
    let diff = compared_twice(jobs, jobs.provider()?).await?;
    report.found = diff.listed;
    let counts_missing = diff.doubt.is_none();
    // Its figures are shown by this process; another one's are old.
    jobs.own_sync.shows(began, counts_missing);
    let noted = jobs.store.schedule.note_compared(began, counts_missing, jobs.clock.now()).await;
    if let Err(error) = noted {
        tracing::warn!("other workers show the figures of their own syncs until the next one: {error}");
    }
    tell_unreadable(&diff.tally, report);
    let doubt = diff.doubt.as_ref().filter(|_| diff.missing.len() > 0 && !accept_stale);
    if let Some(doubt) = doubt {
        let missing = diff.missing.len();
        tracing::warn!(
            missing,
            doubt,
            "nothing is made stale: the provider's list contradicts itself. If it stays so, repair it there, or run sync \
             with --accept-stale"
        );
        report.detail(MISSING_NOT_BELIEVED, missing);
        report.skipped += missing;
    }
    let believed = doubt.is_none();
    if counts_missing {
        tell_allocated_missing(diff.allocated_missing, &diff.some_allocated_missing, report);
    }
    report.skipped += diff.doubtful.len();
    let refusal = refusal::refusal(&diff).filter(|_| !accept_stale);
    let incomplete = refusal::incomplete(&diff).filter(|_| !accept_stale);
    let hidden = if accept_stale { 0 } else { diff.hidden };
    let Diff { doubtful, unknown, found, missing, .. } = diff;
    let doubtful = Arc::new(doubtful);
    let ended = match refusal {
        Some(refusal) => Err(JobError::Refused(refusal)),
        None => write(jobs, believed.then_some(missing), found, unknown, &doubtful, report).await,
    };
    doubtful.tell(report);
    // Another sync may have been later while this one wrote: what it showed last is reset by that, too.
    jobs.own_sync.shows(began, counts_missing);
    match (ended?, incomplete) {
        (false, _) => {}
        (true, None) => {
            let list = AppliedList { began, hidden };
            // Another sync may have applied a later one.
            let (Write::Applied | Write::Rejected(())) =
                jobs.store.schedule.note_listed(list, jobs.clock.now()).await?;
            if hidden > 0 {
                tell_incomplete(jobs, &format!("{hidden} of its rows may be new, and cannot be read"));
            }
        }
        (true, Some(why)) => tell_incomplete(jobs, &why),
    }
    Ok(())
}

/// Tells of a list by which refill ends not all late tickets, if a flavour is refilled.
fn tell_incomplete(jobs: &Jobs, why: &str) {
    let policy = jobs.policy.now().unwrap_or_default();
    if refill::refilled(&policy).next().is_some() {
        tracing::warn!(
            why,
            "the provider's list may not have all that is new: refill keeps late tickets open, one for each row that cannot be \
             read, and all while it contradicts itself or misses what the pool has. Repair it there, or run sync with --accept-stale"
        );
    }
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
        tracing::info!(
            written = recorded.written,
            respelled = recorded.respelled,
            "account records of existing sandboxes written"
        );
    } else {
        tracing::error!(count = recorded.doubled.len(), ?some, "several sandboxes are one account");
    }
    Ok(())
}

/// The difference; if something would become stale, or the list looks foreign, what is missing in a second list, too. Of a list that
/// looks foreign nothing is used without a second one.
async fn compared_twice(jobs: &Jobs, provider: &Provider) -> Result<Diff, JobError> {
    let ours = Arc::new(known::ours(jobs).await?);
    let first = listed(jobs, provider).await?;
    let first = compared(jobs, &ours, first, None).await?;
    crash_points::point(Point::Listed);
    let looks_foreign = refusal::is_foreign(&first);
    if first.missing.len() == 0 && !looks_foreign {
        return Ok(first);
    }
    match listed(jobs, provider).await {
        Ok(second) => compared(jobs, &ours, second, Some(first)).await,
        Err(JobError::Provider(error)) if !looks_foreign => {
            let doubt = Some(format!("the second list failed, {error}"));
            Ok(Diff { doubt, is_unconfirmed: true, ..first })
        }
        Err(error) => Err(error),
    }
}

/// The provider's list.
async fn listed(jobs: &Jobs, provider: &Provider) -> Result<(Theirs, Tally), JobError> {
    let kept = Arc::new(Mutex::new(None));
    let theirs = Theirs::new(Arc::clone(&jobs.spool_dir), Arc::clone(&kept));
    let listed = provider.list(theirs).await;
    let failed = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        Some(error) => Err(JobError::Spool(error)),
        None => Ok(listed?),
    }
}

/// [`diff::between`] on a blocking thread.
async fn compared(
    jobs: &Jobs,
    ours: &Arc<Ours>,
    (theirs, tally): (Theirs, Tally),
    before: Option<Diff>,
) -> Result<Diff, JobError> {
    let (ours, dir) = (Arc::clone(ours), Arc::clone(&jobs.spool_dir));
    beside(move || diff::between(&ours, theirs, tally, before.as_ref(), &dir)).await
}

/// What `work` gives, on a blocking thread: files are read and written there.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, JobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(JobError::Stopping),
        },
    }
}

/// Writes the difference. Whether everything that is new and can be read was let in, or refused for good.
async fn write(
    jobs: &Jobs,
    missing: Option<Spool<Missing>>,
    found: Spool<(Account, KnownSandbox)>,
    unknown: Spool<Account>,
    doubtful: &Arc<DoubtfulRows>,
    report: &mut JobReport,
) -> Result<bool, JobError> {
    let mut part = JobReport { job: report.job.clone(), ..JobReport::default() };
    let arrivals = Arrivals::default();
    if let Some(missing) = missing {
        let step = |jobs: Jobs, Missing { id, status, version }| async move {
            let seen = Seen { id: &id, version };
            jobs.store.sandboxes.missing(status, seen, jobs.clock.now()).await
        };
        enter(jobs, missing, step, &arrivals, &mut part).await?;
    }
    take(report, &mut part, "made_stale");
    let shared = (Arc::clone(doubtful), arrivals.clone());
    let step = move |jobs: Jobs, (account, known)| {
        let (doubtful, arrivals) = shared.clone();
        async move { self::found(&jobs, &account, &known, &doubtful, &arrivals).await }
    };
    enter(jobs, found, step, &arrivals, &mut part).await?;
    take(report, &mut part, "refreshed_or_returned");
    let (tickets, unknown) = Tickets::read(jobs, unknown).await?;
    let tickets = Arc::new(tickets);
    let never = Arc::new(AtomicU64::new(0));
    let shared = (Arc::clone(&tickets), Arc::clone(doubtful), arrivals.clone(), Arc::clone(&never));
    let step = move |jobs: Jobs, account| {
        let (tickets, doubtful, arrivals, never) = shared.clone();
        async move {
            let inserted = insert(&jobs, &account, &tickets, &doubtful, &arrivals).await;
            if inserted.as_ref().is_err_and(|error| !error.is_retryable()) {
                never.fetch_add(1, Ordering::Relaxed);
            }
            inserted
        }
    };
    enter(jobs, unknown, step, &arrivals, &mut part).await?;
    report.detail("tickets_taken", tickets.taken());
    tickets.note_times(jobs).await?;
    // A row that can never be inserted, because its item cannot be read, keeps no ticket open.
    let is_applied = part.failed == never.load(Ordering::Relaxed) && tickets.all_entered();
    take(report, &mut part, "inserted_or_revived");
    Ok(is_applied)
}

/// Takes a step for each record of `spool`, in portions. What a portion brought is served while the next one enters.
async fn enter<T, Step, Fut>(
    jobs: &Jobs,
    spool: impl Into<Arc<Spool<T>>>,
    step: Step,
    arrivals: &Arrivals,
    part: &mut JobReport,
) -> Result<(), JobError>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    Step: Fn(Jobs, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Write, StoreError>> + Send + 'static,
{
    let mut portions = Portions::new(spool.into());
    let mut arrived = Vec::new();
    loop {
        let portion;
        (portions, portion) = next(portions).await?;
        if portion.is_empty() {
            serve::these(jobs, arrived).await;
            return Ok(());
        }
        let steps = portion.into_iter().map(|record| {
            let (jobs, step) = (jobs.clone(), step.clone());
            move || step(jobs.clone(), record.clone())
        });
        let entered = each::all(jobs, steps, ENTER_AT_ONCE, part);
        let (entered, _served) = tokio::join!(entered, serve::these(jobs, arrived));
        arrived = arrivals.take();
        if !arrived.is_empty() {
            crash_points::point(Point::Arrived);
        }
        if let Err(error) = entered {
            serve::these(jobs, arrived).await;
            return Err(error);
        }
    }
}

/// The next portion.
async fn next<T>(mut portions: Portions<T>) -> Result<(Portions<T>, Vec<T>), JobError>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    beside(move || portions.next(ENTER_TOGETHER).map(|portion| (portions, portion))).await
}

/// Refreshes a sandbox that is listed. A stale one arrives again, and so does one that is another account or has another name now.
async fn found(
    jobs: &Jobs,
    account: &Account,
    known: &KnownSandbox,
    doubtful: &DoubtfulRows,
    arrivals: &Arrivals,
) -> Result<Write, StoreError> {
    let (listed, now) = (as_new(account), jobs.clock.now());
    let KnownSandbox { status, version, name, external_id, .. } = known;
    let from = Unused { status: *status, version: *version, name, external_id };
    let entered = jobs.store.sandboxes.found(from, &listed, now).await?;
    let arrives = *status == Status::Stale || (*status != Status::Quarantined && from.is_remade(&listed));
    if entered.is_applied() && arrives {
        arrivals.add(listed.clone().arrived(version + 1));
    }
    settle(jobs, entered, account, doubtful).await
}

/// What became of a row; one whose account is another sandbox's is refused. A tombstone that is listed so, under another label, is
/// deleted again as under its own.
async fn settle(
    jobs: &Jobs,
    entered: Write<EntryConflict>,
    account: &Account,
    doubtful: &DoubtfulRows,
) -> Result<Write, StoreError> {
    let by = match entered {
        Write::Applied => return Ok(Write::Applied),
        Write::Rejected(EntryConflict::MovedOn(())) => return Ok(Write::Rejected(())),
        Write::Rejected(EntryConflict::AccountTaken { by }) => by,
    };
    let (id, external_id) = (account.id.clone(), account.external_id.clone());
    doubtful.add(DoubtfulRow { id, external_id, doubt: Doubt::AccountOf(by.clone()) });
    let Some(stands) = jobs.store.sandboxes.record(&by).await? else { return Ok(Write::Rejected(())) };
    Ok(match judge(account, &stands) {
        DiffVerdict::DeleteAgain if is_its_account(account, &stands) => {
            let deleted_again = delete_again(jobs, account, &stands).await?;
            if deleted_again.is_applied() { Write::Applied } else { Write::Rejected(()) }
        }
        // In use, on its way out, or another account by now.
        DiffVerdict::DeleteAgain | DiffVerdict::Another(_) | DiffVerdict::NotYet | DiffVerdict::Leave => {
            Write::Rejected(())
        }
    })
}

/// Has a tombstone deleted again that the provider lists as `account`, under whatever label.
async fn delete_again(
    jobs: &Jobs,
    account: &Account,
    stands: &Record,
) -> Result<Write<EntryConflict>, StoreError> {
    let listed = NewSandbox { id: stands.sandbox.id.clone(), ..as_new(account) };
    tracing::warn!(sandbox = %listed.id, "deleted and still listed by the provider: deleting it again");
    jobs.store.sandboxes.revive_deletion(&stands.sandbox, &listed, jobs.clock.now()).await
}

fn take(report: &mut JobReport, part: &mut JobReport, kind: &str) {
    report.detail(kind, part.changed);
    report.changed += std::mem::take(&mut part.changed);
    report.skipped += std::mem::take(&mut part.skipped);
    report.failed += std::mem::take(&mut part.failed);
}

fn as_new(account: &Account) -> NewSandbox {
    NewSandbox {
        id: account.id.clone(),
        name: account.name.clone(),
        external_id: account.external_id.clone(),
        attributes: account.attributes.clone(),
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
            resolve(jobs, account, (&sandbox, tickets), &record, arrivals).await?
        }
    };
    settle(jobs, entered, account, doubtful).await
}

/// Handles a listed account whose id exists.
async fn resolve(
    jobs: &Jobs,
    account: &Account,
    (sandbox, tickets): (&NewSandbox, &Tickets),
    stands: &Record,
    arrivals: &Arrivals,
) -> Result<Write<EntryConflict>, StoreError> {
    let now = jobs.clock.now();
    match judge(account, stands) {
        // The index was a moment behind: the next run sees it.
        DiffVerdict::Leave => Ok(Write::Rejected(EntryConflict::MovedOn(()))),
        DiffVerdict::NotYet => {
            tickets.count_left_out();
            Ok(Write::Rejected(EntryConflict::MovedOn(())))
        }
        DiffVerdict::Another(created_at) => {
            let entered = tickets.insert_over_tombstone(jobs, sandbox, stands, created_at, now).await?;
            match &entered {
                Write::Applied => {
                    let version = NewSandbox::version_over(stands.sandbox.version, now);
                    arrivals.add(sandbox.clone().arrived(version));
                }
                Write::Rejected(EntryConflict::MovedOn(())) => tickets.count_left_out(),
                Write::Rejected(EntryConflict::AccountTaken { .. }) => {}
            }
            Ok(entered)
        }
        DiffVerdict::DeleteAgain => delete_again(jobs, account, stands).await,
    }
}
