//! Reservations: putting sandboxes aside, and giving them back (ARCHITECTURE.md, "Reservations").
//!
//! Arriving sandboxes are put aside before they are offered; from the beginning of a reservation on, the tick puts aside available
//! ones, too. Surplus sandboxes of an open reservation, and all of one that has ended, go back through `arriving`,
//! so waiting requests get them first. Each write is at the versions that were read, of the reservation and of each sandbox: two
//! workers never put aside more than its count, and nothing for a reservation that has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::refill::READ_LAG;
use broker_domain::reservation::Closed;
use broker_domain::{JobReport, Reservation, ReservationId, Status, Timestamp};
use broker_runtime::backoff::Backoff;
use broker_runtime::crash_points::{self, Point};
use broker_store::{
    Candidate, CandidateFilter, Census, ListedLine, PUT_ASIDE_TOGETHER, Pages, PutAside, StoreError, Write,
    reservations,
};

use super::rooms::Free;
use super::{By, TOGETHER};
use crate::jobs::arrivals::Arrivals;
use crate::jobs::{Jobs, each};

/// Attempts in a row that other transactions are in the way of, until the rest is left to the next look.
const TRIES: u32 = 8;
/// The pauses after those.
const ON_CONFLICT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(320));
/// How long after its end a reservation is looked at for what the index did not show: longer than it lags.
const CLEARED_AFTER: Duration = Duration::from_secs(60);
/// Sandboxes of one reservation that one look puts aside or gives back; the next goes on.
const MOST: usize = 5_000;
/// Sandboxes that go back at the same time.
const AT_ONCE: usize = 16;

/// Puts aside those of `arrivals` that reservations are short of. What another write was faster with is left out, and so is, counted,
/// what fits a reservation that could not be written: it may be short of it still.
pub(super) async fn arrivals(jobs: &Jobs, arrivals: Vec<Candidate>) -> Result<(Vec<Free>, u64), StoreError> {
    let mut left = arrivals;
    let (mut free, mut to_next_look) = (Vec::new(), 0);
    for reservation in in_order(jobs.store.reservations.all().await?) {
        if reservation.short(jobs.clock.now()) == 0 || left.is_empty() {
            continue;
        }
        let (fitting, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|arrival| reservation.terms.fits(&arrival.name));
        let (mut holder, many) = (ReservationHolder::new(jobs, reservation), fitting.len());
        let put_aside = holder.put_aside(fitting, Status::Arriving).await;
        let ReservationHolder { reservation, done, .. } = holder;
        let unused = put_aside.unwrap_or_else(|error| {
            tracing::warn!(reservation = %reservation.id, "arrivals left to the next look: {error}");
            to_next_look += many.saturating_sub(done.len()) as u64;
            Vec::new()
        });
        metrics::counter!("broker_serve_put_aside_total").increment(done.len() as u64);
        free.extend(done.into_iter().map(|candidate| reserved(candidate, &reservation)));
        left = others.into_iter().chain(unused).collect();
    }
    free.extend(left.into_iter().map(|candidate| Free::for_all(candidate, Status::Arriving)));
    Ok((free, to_next_look))
}

fn reserved(candidate: Candidate, of: &Reservation) -> Free {
    Free { candidate, listed: Status::Reserved, only_for: Some(of.terms.tenant.clone()) }
}

/// Those that begin first come first.
fn in_order(mut reservations: Vec<Reservation>) -> Vec<Reservation> {
    reservations.sort_by_key(|one| (one.terms.begins_at(), one.id));
    reservations
}

/// Whether a reservation is to be ended, has too much, is short of what is available, or has what its tenant waits for and may have.
pub(super) async fn is_wanted(
    jobs: &Jobs,
    policy: &Policy,
    lines: &[ListedLine],
) -> Result<bool, StoreError> {
    let (all, now) = (jobs.store.reservations.all().await?, jobs.clock.now());
    // One that cannot be read is a look's to tell of.
    let census = census_of_floors(jobs, &all).await.unwrap_or_default();
    for reservation in &all {
        let is_ending = reservation.closed.is_some_and(|closed| !closed.cleared);
        if is_ending
            || reservation.end_due(now).is_some()
            || used_up(reservation, census.as_ref(), now).is_some()
        {
            return Ok(true);
        }
        let has_surplus = reservation.is_open() && reservation.surplus(now) > 0;
        if has_surplus && is_any(jobs, &of_it(reservation)).await? {
            return Ok(true);
        }
        for filter in of_use(policy, reservation, lines) {
            if super::may_deal(jobs, policy, lines, &filter, Some(&reservation.terms.tenant)).await? {
                return Ok(true);
            }
        }
        let offered = CandidateFilter::available(Some(&reservation.terms.prefix));
        if reservation.short(now) > 0 && is_any(jobs, &offered).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is put aside for an open reservation and is of use to those of its tenant that wait in `lines`.
fn of_use(policy: &Policy, reservation: &Reservation, lines: &[ListedLine]) -> Vec<CandidateFilter> {
    if !reservation.is_open() || reservation.held == 0 {
        return Vec::new();
    }
    let of_tenant = lines.iter().filter(|listed| listed.line.tenant == reservation.terms.tenant);
    let wanted = super::waited_for(policy, of_tenant);
    let prefixes: BTreeSet<_> =
        wanted.iter().filter_map(|wanted| reservation.of_use_to(wanted.as_ref())).collect();
    prefixes.into_iter().map(|prefix| CandidateFilter::reserved(reservation.id, Some(prefix))).collect()
}

const fn of_it(reservation: &Reservation) -> CandidateFilter {
    CandidateFilter::reserved(reservation.id, None)
}

async fn is_any(jobs: &Jobs, filter: &CandidateFilter) -> Result<bool, StoreError> {
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(filter, after, 1));
    while let Some(page) = pages.next().await? {
        if !page.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The census, if there is a reservation that is kept up by it.
async fn census_of_floors(jobs: &Jobs, all: &[Reservation]) -> Result<Option<Census>, StoreError> {
    if all.iter().any(|one| one.is_open() && one.terms.is_floor()) {
        jobs.store.census.believed(jobs.clock.now()).await
    } else {
        Ok(None)
    }
}

/// How many of a floor are put aside or held by its tenant still, if they are fewer than it counts: what was given back is put
/// aside again. If a clock counted it that was wrong, it is counted as before, and later censuses tell.
fn used_up(reservation: &Reservation, census: Option<&Census>, now: Timestamp) -> Option<u32> {
    if !reservation.is_open() || !reservation.terms.is_floor() {
        return None;
    }
    if reservation.held_at.is_beyond(now, Duration::ZERO) {
        return Some(reservation.held);
    }
    let census = census.filter(|census| reservation.held_at.plus(READ_LAG) < census.as_of)?;
    let counted = census.by_reservation.get(&reservation.id).copied().unwrap_or_default();
    let there = u32::try_from(counted.reserved + counted.allocated).unwrap_or(u32::MAX);
    (there < reservation.held).then_some(there)
}

/// Checks every reservation: ends those past their end, gives back surplus sandboxes, puts aside what is missing. One that is in
/// trouble stops no other; the first error is returned when all were looked at.
pub(super) async fn look(jobs: &Jobs, report: &mut JobReport) -> Result<(), StoreError> {
    let all = in_order(jobs.store.reservations.all().await?);
    // Without a census floors count as before.
    let (census, mut looked) = match census_of_floors(jobs, &all).await {
        Ok(census) => (census, Ok(())),
        Err(error) => (None, Err(error)),
    };
    for reservation in all {
        if jobs.stop.is_cancelled() || !jobs.health.is_open() {
            break;
        }
        let id = reservation.id;
        let one = look_at(jobs, reservation, census.as_ref(), report).await;
        if let Err(error) = &one {
            tracing::warn!(reservation = %id, "left to the next look: {error}");
        }
        looked = looked.and(one);
    }
    looked
}

async fn look_at(
    jobs: &Jobs,
    reservation: Reservation,
    census: Option<&Census>,
    report: &mut JobReport,
) -> Result<(), StoreError> {
    let Some(reservation) = standing(jobs, reservation, census).await? else { return Ok(()) };
    match &reservation.closed {
        Some(Closed { cleared: true, .. }) => Ok(()),
        Some(closed) => give_back(jobs, &reservation, closed, report).await,
        None if reservation.surplus(jobs.clock.now()) > 0 => {
            give_back_surplus(jobs, reservation, report).await
        }
        None => put_aside(jobs, reservation, report).await,
    }
}

/// The reservation as it stands once it is ended if its time is over, and counted anew if it is a floor; `None` if another worker was
/// faster. One that its operator has given longer since it was read is open still.
async fn standing(
    jobs: &Jobs,
    reservation: Reservation,
    census: Option<&Census>,
) -> Result<Option<Reservation>, StoreError> {
    let now = jobs.clock.now();
    if let Some(why) = reservation.end_due(now) {
        let stands = reservations::close(&jobs.store, reservation.id, why, now).await?;
        crash_points::point(Point::ReservationClosed);
        if let Some(Reservation { id, held, closed: Some(closed), .. }) = &stands {
            tracing::info!(reservation = %id, why = closed.why.as_str(), held, "reservation ended");
        }
        return Ok(stands);
    }
    let Some(held) = used_up(&reservation, census, now) else { return Ok(Some(reservation)) };
    let after = Reservation { version: reservation.version + 1, held, held_at: now, ..reservation };
    let written = jobs.store.reservations.update(&after).await?;
    Ok(written.is_applied().then_some(after))
}

/// Gives back what is put aside for a reservation that has ended. When nothing is left, and the index has caught up, it is cleared.
async fn give_back(
    jobs: &Jobs,
    reservation: &Reservation,
    closed: &Closed,
    report: &mut JobReport,
) -> Result<(), StoreError> {
    let (filter, mut found, id) = (of_it(reservation), 0, reservation.id);
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(&filter, after, TOGETHER));
    while let Some(page) = pages.next().await? {
        found += page.len();
        let back = Arrivals::default();
        let steps = page.into_iter().map(|candidate| {
            let (jobs, back) = (jobs.clone(), back.clone());
            move || goes_back(jobs.clone(), id, candidate.clone(), back.clone())
        });
        let given_back = each::all(jobs, steps, AT_ONCE, report).await;
        offer_back(jobs, back.take(), report).await;
        if given_back.is_err() || found >= MOST || !jobs.health.is_open() {
            return Ok(());
        }
    }
    let now = jobs.clock.now();
    if found == 0 && now.since(closed.at) >= CLEARED_AFTER {
        let closed = Some(Closed { cleared: true, ..*closed });
        let after = Reservation { version: reservation.version + 1, closed, ..reservation.clone() };
        // Another worker saw as much.
        let (Write::Applied | Write::Rejected(())) = jobs.store.reservations.update(&after).await?;
    }
    Ok(())
}

/// Gives back one, and adds it to `back`.
async fn goes_back(
    jobs: Jobs,
    reservation: ReservationId,
    candidate: Candidate,
    back: Arrivals,
) -> Result<Write, StoreError> {
    let written = jobs.store.reservations.give_back(reservation, &candidate, jobs.clock.now()).await?;
    if written.is_applied() {
        crash_points::point(Point::GivenBack);
        back.add(Candidate { version: candidate.version + 1, ..candidate });
    }
    Ok(written)
}

/// Gives back what an open reservation has too much of.
async fn give_back_surplus(
    jobs: &Jobs,
    reservation: Reservation,
    report: &mut JobReport,
) -> Result<(), StoreError> {
    let (filter, mut many) = (of_it(&reservation), 0);
    let mut holder = ReservationHolder::new(jobs, reservation);
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(&filter, after, TOGETHER));
    while holder.surplus() > 0
        && many < MOST
        && jobs.health.is_open()
        && let Some(page) = pages.next().await?
    {
        let given_back = holder.give_back(page).await;
        let back = std::mem::take(&mut holder.done);
        many += back.len();
        report.changed += back.len() as u64;
        offer_back(jobs, back, report).await;
        given_back?;
    }
    Ok(())
}

/// Offers what was given back, before more is.
async fn offer_back(jobs: &Jobs, back: Vec<Candidate>, report: &mut JobReport) {
    report.detail("given_back", back.len() as u64);
    // Their gate let them through before.
    let admitted = Box::pin(super::offer(jobs, back, By::Sweep)).await;
    report.failed += admitted.failed;
    report.detail("granted", admitted.granted);
}

/// Puts aside what is available, as far as the reservation is short.
async fn put_aside(jobs: &Jobs, reservation: Reservation, report: &mut JobReport) -> Result<(), StoreError> {
    let filter = CandidateFilter::available(Some(&reservation.terms.prefix));
    let mut holder = ReservationHolder::new(jobs, reservation);
    let mut pages = Pages::new(|after| jobs.store.sandboxes.sweep_candidates(&filter, after, TOGETHER));
    let put_aside = async {
        while holder.room() > 0
            && holder.done.len() < MOST
            && jobs.health.is_open()
            && let Some(page) = pages.next().await?
        {
            holder.put_aside(page, Status::Available).await?;
        }
        Ok(())
    }
    .await;
    report.changed += holder.done.len() as u64;
    report.detail("put_aside", holder.done.len() as u64);
    put_aside
}

/// Deals what is put aside to the requests of its tenant that wait. What is in one reservation's way is in no other's.
pub(super) async fn offered(
    jobs: &Jobs,
    policy: &Policy,
    lines: &[ListedLine],
    report: &mut JobReport,
) -> Result<(), StoreError> {
    let mut dealt = Ok(());
    for reservation in jobs.store.reservations.all().await? {
        let tenant = &reservation.terms.tenant;
        for filter in of_use(policy, &reservation, lines) {
            dealt = dealt.and(super::deal_listed(jobs, &filter, Some(tenant), report).await);
        }
    }
    dealt
}

/// One reservation while sandboxes are put aside for it, or go back.
struct ReservationHolder<'j> {
    jobs: &'j Jobs,
    reservation: Reservation,
    /// What was written, at the versions that it has now.
    done: Vec<Candidate>,
    /// Attempts that others were in the way of, one after the other.
    conflicts: u32,
}

impl<'j> ReservationHolder<'j> {
    const fn new(jobs: &'j Jobs, reservation: Reservation) -> Self {
        Self { jobs, reservation, done: Vec::new(), conflicts: 0 }
    }

    /// How many more may be put aside now.
    fn room(&self) -> usize {
        self.reservation.short(self.jobs.clock.now()) as usize
    }

    /// How many are too many now.
    fn surplus(&self) -> usize {
        self.reservation.surplus(self.jobs.clock.now()) as usize
    }

    /// Puts aside as many of `sandboxes` as it is short of; the rest is returned, without those that another write was faster with.
    async fn put_aside(
        &mut self,
        mut sandboxes: Vec<Candidate>,
        from: Status,
    ) -> Result<Vec<Candidate>, StoreError> {
        while !sandboxes.is_empty() && self.room() > 0 {
            let many = self.room().min(self.together()).min(sandboxes.len());
            let some: Vec<_> = sandboxes.drain(..many).map(|candidate| (candidate, from)).collect();
            let now = self.jobs.clock.now();
            crash_points::point(Point::BeforePutAside);
            let written = self.jobs.store.reservations.put_aside(&self.reservation, &some, now).await;
            let some = some.into_iter().map(|(candidate, _)| candidate).collect();
            self.written(written, some, &mut sandboxes).await?;
        }
        Ok(sandboxes)
    }

    /// Gives back `sandboxes`, and counts them no more.
    async fn give_back(&mut self, mut sandboxes: Vec<Candidate>) -> Result<(), StoreError> {
        while !sandboxes.is_empty() {
            let many = self.surplus().min(self.together()).min(sandboxes.len());
            if many == 0 {
                break;
            }
            let some: Vec<_> = sandboxes.drain(..many).collect();
            let now = self.jobs.clock.now();
            let written = self.jobs.store.reservations.give_back_surplus(&self.reservation, &some, now).await;
            self.written(written, some, &mut sandboxes).await?;
        }
        Ok(())
    }

    /// As many as one call takes, fewer while others are in the way.
    const fn together(&self) -> usize {
        let fewer = PUT_ASIDE_TOGETHER >> if self.conflicts > 6 { 6 } else { self.conflicts };
        if fewer == 0 { 1 } else { fewer }
    }

    async fn written(
        &mut self,
        written: Result<PutAside, StoreError>,
        some: Vec<Candidate>,
        left: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        match written {
            Ok(PutAside::Done(after)) => {
                crash_points::point(Point::PutAside);
                self.reservation = *after;
                self.conflicts = 0;
                let written = some.into_iter();
                self.done.extend(written.map(|one| Candidate { version: one.version + 1, ..one }));
            }
            Ok(PutAside::Lost(lost)) => {
                let kept = some.into_iter().enumerate().filter(|(position, _)| !lost.contains(position));
                left.extend(kept.map(|(_, candidate)| candidate));
            }
            Ok(PutAside::Moved) => {
                left.extend(some);
                match self.jobs.store.reservations.get(self.reservation.id).await? {
                    Some(stands) => self.reservation = stands,
                    None => self.reservation.closed = Some(gone(self.jobs.clock.now())),
                }
            }
            Err(StoreError::Conflict) if self.conflicts < TRIES => {
                left.extend(some);
                self.conflicts += 1;
                tokio::time::sleep(ON_CONFLICT.jittered(self.conflicts, &self.jobs.entropy)).await;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The end of a reservation that is not there any more.
const fn gone(at: Timestamp) -> Closed {
    Closed { at, why: broker_domain::ReservationEnd::Deleted, cleared: true }
}
