//! SERVE: the steps that take a sandbox from arriving to available (ARCHITECTURE.md, "Arriving").
//!
//! It has two callers: the job that brought sandboxes calls it at once for these ([`these`]); the tick `TICK#serve` calls it every few
//! seconds for the sandboxes that a dead process or a program without hooks left ([`keep`], and `broker job run serve`). Concurrent
//! calls are safe: each write is at the version that was read. The tick does not go through the queue: it must be
//! quick, and an older worker would not know the job. The workers look in turns, and a look that finds nothing writes nothing.
//!
//! Steps of one call: arrivals → gate → put aside for reservations that are short → deal to waiting requests → admit the rest.

mod admit;
mod bury;
mod deal;
mod gate;
mod grants;
mod parked;
mod places;
mod put_aside;
mod rooms;
mod soon;
mod turns;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::waiting::Line;
use broker_domain::{Job, JobReport, NamePrefix, Status, Task, TenantName, Timestamp};
use broker_runtime::panics::caught;
use broker_store::{Candidate, CandidateFilter, ListedLine, Pages, StoreError, Tick, Write};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::jobs::{JobError, Jobs};

pub(crate) use admit::Admitted;
pub(crate) use gate::Gates;
pub(crate) use grants::OwnGrants;
use rooms::{Free, Rooms};
pub(crate) use soon::SoonOver;
use turns::ServeTurns;
pub(crate) use walk::NextWalk;

/// How long a tick is taken: a worker that dies with it delays the next by this. Two at a time are safe, if one takes longer.
const TAKEN_FOR: Duration = Duration::from_secs(6);
/// How long arrivals wait while another worker deals, and how often this is checked.
const OTHERS_END_WITHIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Between two looks that free permits start: many at a time are one.
const BETWEEN_FREED: Duration = Duration::from_millis(100);
/// Pages of what is offered that are looked through behind sandboxes that a limit keeps from those who wait.
const BEHIND_LIMITS: usize = 10;
/// The shortest pause between two rounds that end places past their deadline.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// Arrivals that are served together.
pub(crate) const TOGETHER: u16 = 100;

/// Looks whenever it is this worker's turn, until `stop`, while the pool is open; `me` is its id in the list of processes.
pub(crate) async fn keep(jobs: Jobs, me: Uuid, every: Duration, stop: CancellationToken) {
    let (mut gate, mut turns, mut is_first) = (jobs.health.gate(), ServeTurns::new(me, every), true);
    loop {
        let opened = async { gate.wait_for(|open| *open).await.is_ok() };
        if stop.run_until_cancelled(opened).await != Some(true) {
            return;
        }
        let seat = turns.seat(&jobs.store, &jobs.clock).await;
        let looked = caught(async {
            // What a process left behind that ended is served by the next one at once.
            let now = jobs.clock.now();
            let ticked = match is_first || (seat.has(now, every) && turns.begins(now)) {
                true => tick(&jobs, every, is_first).await,
                false => Ok(()),
            };
            // A walk that fails has a pause of its own.
            is_first &= ticked.is_err();
            if !jobs.health.is_open() {
                return ticked;
            }
            // Whether or not anything could be dealt.
            soon::end(&jobs).await;
            let walked = walk::walk_in_turn(&jobs, seat).await;
            ticked.and(walked)
        });
        match looked.await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!("arrivals not served, trying again: {error}"),
            None => tracing::error!("serving panicked, trying again"),
        }
        let now = jobs.clock.now();
        let pause = turns.until_next(now);
        let pause = jobs.soon.until_next(now).map_or(pause, |soon| soon.max(SHORTEST_PAUSE).min(pause));
        let next = tokio::time::sleep(pause);
        if stop.run_until_cancelled(freed_until(&jobs, next)).await.is_none() {
            return;
        }
    }
}

/// Until the next look: whenever a permit is free again, what is offered is dealt to those who wait for it.
async fn freed_until(jobs: &Jobs, next: tokio::time::Sleep) {
    let mut next = std::pin::pin!(next);
    loop {
        tokio::select! {
            () = &mut next => return,
            () = jobs.freed.notified() => {}
        }
        if !jobs.health.is_open() {
            continue;
        }
        let mut report = JobReport::new(&Task::Serve);
        if let Err(error) = offered(jobs, &mut report).await {
            tracing::warn!("a look after a permit became free failed: {error}");
        }
        tokio::time::sleep(BETWEEN_FREED).await;
    }
}

/// Serves what is there to be served, or in any case if `must`, unless the tick is not due or another worker does. A look that finds
/// nothing writes nothing.
async fn tick(jobs: &Jobs, every: Duration, must: bool) -> Result<(), StoreError> {
    let (now, schedule) = (jobs.clock.now(), &jobs.store.schedule);
    let tick = schedule.tick(Job::Serve, Duration::ZERO, now).await?;
    let until = now.plus(TAKEN_FOR);
    if !tick.is_free(now, every, TAKEN_FOR) || !(must || is_wanted(jobs).await?) {
        return Ok(());
    }
    if schedule.take(Job::Serve, &tick, until, now).await? == Write::Rejected(()) {
        return Ok(());
    }
    // It reports, and what failed is served by the next.
    let _ended = jobs.run(&Task::Serve, until).await;
    // Due as it was: turns say when the next look is, and it comes before this one's end plus an interval.
    schedule.move_on(Job::Serve, &tick, until, tick.next_run_at.min(jobs.clock.now())).await?;
    Ok(())
}

/// Whether a sandbox is arriving, or is offered and fits a waiting request.
async fn is_wanted(jobs: &Jobs) -> Result<bool, StoreError> {
    let (sandboxes, now) = (&jobs.store.sandboxes, jobs.clock.now());
    let mut pages = Pages::new(|after| sandboxes.arriving(now, after, TOGETHER));
    while let Some(page) = pages.next().await? {
        if !page.is_empty() {
            return Ok(true);
        }
    }
    let lines = jobs.store.waiting.lines(now).await?;
    let policy = match lines.is_empty() {
        true => Arc::default(),
        false => policy(jobs).await.unwrap_or_default(),
    };
    if put_aside::is_wanted(jobs, &policy, &lines).await? {
        return Ok(true);
    }
    for prefix in waited_for(&policy, &lines) {
        if may_deal(jobs, &policy, &lines, &CandidateFilter::available(prefix.as_ref()), None).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a request in `lines` may be dealt one of what the index lists of `filter`, put aside for a tenant or for all.
async fn may_deal(
    jobs: &Jobs,
    policy: &Policy,
    lines: &[ListedLine],
    filter: &CandidateFilter,
    only_for: Option<&TenantName>,
) -> Result<bool, StoreError> {
    let mut lines: Vec<Line> = lines.iter().map(|listed| listed.line.clone()).collect();
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(filter, after, TOGETHER));
    let mut looked_through = 0;
    while let Some(page) = pages.next().await? {
        let free = |candidate| Free { candidate, listed: filter.status(), only_for: only_for.cloned() };
        let free: Vec<_> = page.into_iter().map(free).collect();
        if free.is_empty() {
            continue;
        }
        let rooms = Rooms::of(jobs, policy, &lines, &free, |_| false).await?;
        // One that fits nothing here is looked for by a filter of its own.
        lines.retain(|line| free.iter().any(|free| free.fits(line)));
        let may = |line: &Line, free: &Free| free.fits(line) && rooms.has_room(line, &free.candidate.name);
        let (fitting, limited): (Vec<_>, _) =
            lines.into_iter().partition(|line| free.iter().any(|free| may(line, free)));
        if places::stand_in(jobs, &fitting).await? {
            return Ok(true);
        }
        lines = limited;
        looked_through += 1;
        if lines.is_empty() || looked_through == BEHIND_LIMITS {
            break;
        }
    }
    Ok(false)
}

/// The prefixes of what those in `lines` may be given.
fn waited_for<'l>(
    policy: &Policy,
    lines: impl IntoIterator<Item = &'l ListedLine>,
) -> BTreeSet<Option<NamePrefix>> {
    let mut prefixes = BTreeSet::new();
    for ListedLine { line, .. } in lines {
        // Whose limit of one flavour is reached may take others, which stand behind it.
        let wanted = line.prefix.as_ref().map_or("", NamePrefix::as_str);
        if policy.limits_of(&line.tenant).next().is_some() {
            let flavours = policy.flavours().values().map(|flavour| flavour.prefix.clone());
            prefixes.extend(flavours.filter(|prefix| prefix.as_str().starts_with(wanted)).map(Some));
        }
        prefixes.insert(line.prefix.clone());
    }
    prefixes
}

/// Serves everything that is arriving.
pub(crate) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    // One time for all pages: a page's key is good only for the parameters that gave it.
    let (sandboxes, until) = (&jobs.store.sandboxes, jobs.clock.now());
    let mut pages = Pages::new(|after| sandboxes.arriving(until, after, TOGETHER));
    while let Some(page) = pages.next().await? {
        if jobs.stop.is_cancelled() || !jobs.health.is_open() {
            return Err(JobError::Stopping);
        }
        report.found += page.len() as u64;
        let admitted = serve(jobs, page, By::Arrival).await;
        report.changed += admitted.admitted;
        report.skipped += admitted.lost;
        report.failed += admitted.failed;
        report.detail("admitted", admitted.admitted);
        report.changed += admitted.granted;
        report.detail("granted", admitted.granted);
        metrics::counter!("broker_serve_left_behind_total").increment(admitted.admitted);
    }
    if !jobs.health.is_open() {
        return Err(JobError::Stopping);
    }
    // None keeps the others from their work.
    let looked = put_aside::look(jobs, report).await;
    let dealt = offered(jobs, report).await;
    let walked = walk::walk_when_due(jobs).await;
    Ok(looked.and(dealt).and(walked)?)
}

/// The policy: without it, it is not known which sandboxes a gate guards. A process that just started reads it itself.
async fn policy(jobs: &Jobs) -> Option<Arc<Policy>> {
    if let Ok(policy) = jobs.policy.now() {
        return Some(policy);
    }
    match jobs.store.policy.get().await {
        Ok(None) => Some(Arc::default()),
        Ok(Some(stored)) => stored.policy().ok().map(Arc::new),
        Err(_) => None,
    }
}

/// Serves `arrivals`, each at the version at which it was written. What cannot be served now is left to the tick: so is all of it
/// while another worker deals, for both would grant to the same places.
pub(crate) async fn these(jobs: &Jobs, arrivals: Vec<Candidate>) -> Admitted {
    if arrivals.is_empty() {
        return Admitted::default();
    }
    match turn_to_deal(jobs, &arrivals).await {
        Ok(TurnToDeal::NotNeeded) => serve(jobs, arrivals, By::Arrival).await,
        Ok(TurnToDeal::Mine(tick, until)) => {
            let served = serve(jobs, arrivals, By::Arrival).await;
            // What others left meanwhile is looked for soon.
            let due = tick.next_run_at.min(jobs.clock.now());
            if let Err(error) = jobs.store.schedule.move_on(Job::Serve, &tick, until, due).await {
                tracing::debug!("the next look waits until the turn is over: {error}");
            }
            served
        }
        Ok(TurnToDeal::AnotherWorkers) => {
            tracing::debug!("another worker deals: {} arrivals are left to the next look", arrivals.len());
            Admitted { failed: arrivals.len() as u64, ..Admitted::default() }
        }
        Err(error) => {
            tracing::warn!("arrivals left to the next look: {error}");
            Admitted { failed: arrivals.len() as u64, ..Admitted::default() }
        }
    }
}

/// Whose turn it is to deal.
#[derive(Debug)]
enum TurnToDeal {
    /// No request waits for one of them, or SERVE is paused.
    NotNeeded,
    /// This worker's: it has taken the tick of SERVE until then.
    Mine(Tick, Timestamp),
    /// Another worker's.
    AnotherWorkers,
}

/// The turn to deal `arrivals` to those who wait: the tick of SERVE, taken as a look takes it.
async fn turn_to_deal(jobs: &Jobs, arrivals: &[Candidate]) -> Result<TurnToDeal, StoreError> {
    let schedule = &jobs.store.schedule;
    let lines = jobs.store.waiting.lines(jobs.clock.now()).await?.into_iter().map(|listed| listed.line);
    let fits = |line: &Line| arrivals.iter().any(|arrival| line.fits(&arrival.name));
    if !places::stand_in(jobs, &lines.filter(fits).collect::<Vec<_>>()).await? {
        return Ok(TurnToDeal::NotNeeded);
    }
    let began = jobs.clock.instant();
    loop {
        let now = jobs.clock.now();
        let tick = schedule.tick(Job::Serve, Duration::ZERO, now).await?;
        if tick.paused.is_some() {
            return Ok(TurnToDeal::NotNeeded);
        }
        let taken_until = now.plus(TAKEN_FOR);
        if !tick.is_taken(now, TAKEN_FOR)
            && schedule.take(Job::Serve, &tick, taken_until, now).await? == Write::Applied
        {
            return Ok(TurnToDeal::Mine(tick, taken_until));
        }
        if jobs.clock.instant().duration_since(began) >= OTHERS_END_WITHIN {
            return Ok(TurnToDeal::AnotherWorkers);
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// What a sandbox was met by that was granted, in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// An arrival, met by the job that brought it, by its gate, or by a look for what was left.
    Arrival,
    /// A sandbox that was available or put aside before.
    Sweep,
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Sweep => "sweep",
        }
    }
}

async fn serve(jobs: &Jobs, arrivals: Vec<Candidate>, by: By) -> Admitted {
    let Some(policy) = policy(jobs).await else {
        let all = arrivals.len() as u64;
        tracing::warn!(arrivals = all, "arrivals left to the next look: the policy cannot be read");
        return Admitted { failed: all, ..Admitted::default() };
    };
    let open = gate::ask(jobs, &policy, arrivals);
    offer(jobs, open, by).await
}

/// Puts `arrivals` aside for reservations that are short, deals them to those who wait, and admits what fitted no place. No gate
/// guards them, or it let them through. While the pool is closed they are left to the next look.
async fn offer(jobs: &Jobs, arrivals: Vec<Candidate>, by: By) -> Admitted {
    if arrivals.is_empty() {
        return Admitted::default();
    }
    let all = arrivals.len() as u64;
    if !jobs.health.is_open() {
        return Admitted { failed: all, ..Admitted::default() };
    }
    // On the heap: jobs are large already, and a thread's stack is not.
    let dealt = Box::pin(async {
        let (free, to_next_look) = put_aside::arrivals(jobs, arrivals).await?;
        deal::all(jobs, free, by).await.map(|left| (left, to_next_look))
    });
    match dealt.await {
        Ok((left, to_next_look)) => {
            // What is put aside stays so.
            let left_over = left.free.into_iter().filter(|free| free.listed == Status::Arriving);
            let admitted = admit::all(jobs, left_over.map(|free| free.candidate).collect()).await;
            let failed = admitted.failed + to_next_look;
            Admitted { granted: left.granted, failed, ..admitted }
        }
        // Nothing is admitted past a line that could not be read.
        Err(error) => {
            tracing::warn!("arrivals left to the next look: {error}");
            Admitted { failed: all, ..Admitted::default() }
        }
    }
}

/// Deals what is offered to those who wait: the index may have shown a request nothing that was there. What is in the way of some is
/// in no other's.
async fn offered(jobs: &Jobs, report: &mut JobReport) -> Result<(), StoreError> {
    let lines = jobs.store.waiting.lines(jobs.clock.now()).await?;
    if lines.is_empty() {
        return Ok(());
    }
    let policy = policy(jobs).await.unwrap_or_default();
    let mut dealt = put_aside::offered(jobs, &policy, &lines, report).await;
    for prefix in waited_for(&policy, &lines) {
        let filter = CandidateFilter::available(prefix.as_ref());
        dealt = dealt.and(deal_listed(jobs, &filter, None, report).await);
    }
    dealt
}

/// Deals what the index lists of `filter`, put aside for a tenant or for all.
async fn deal_listed(
    jobs: &Jobs,
    filter: &CandidateFilter,
    only_for: Option<&TenantName>,
    report: &mut JobReport,
) -> Result<(), StoreError> {
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(filter, after, TOGETHER));
    let mut looked_through = 0;
    while let Some(page) = pages.next().await? {
        let free = |candidate| Free { candidate, listed: filter.status(), only_for: only_for.cloned() };
        let free = page.into_iter().map(free).collect();
        let left = Box::pin(deal::all(jobs, free, By::Sweep)).await?;
        report.changed += left.granted;
        report.detail("granted", left.granted);
        // What is left over fits none of those who wait.
        looked_through += 1;
        let goes_on = left.limited && looked_through < BEHIND_LIMITS;
        if !left.free.is_empty() && !goes_on {
            break;
        }
    }
    Ok(())
}
