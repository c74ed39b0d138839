//! Dealing: free sandboxes are granted to the places that they fit (ARCHITECTURE.md, "Waiting").
//!
//! Invariants: lines are read after the sandboxes were listed, so what is left over fits no place that was durable before it
//! arrived; a tenant's places are granted in the order of asking, and a call of several grants is all or none, so none goes past
//! another. Order: **write state → send reply → delete place**. A place whose request has ended grants nothing.

mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker_domain::waiting::{Dealt, FreeSandbox, Line, TenantPlaces, deal};
use broker_domain::{Lease, LeaseKey, Outcome, Permit, RequestId, SandboxId, TenantName};
use broker_runtime::backoff::Backoff;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::errors::chain;
use broker_runtime::panics::caught;
use broker_runtime::trace;
use broker_store::{Claim, ClaimOutcome, ListedLine, PolicyUnknown, StoreError, retry_on_conflict};
use tokio::task::JoinSet;

use super::By;
use super::bury::{self, Why};
use super::parked::{ParkedRequest, end};
use super::places::heads;
use super::rooms::{Free, Rooms};
use crate::finality::Finality;
use crate::jobs::Jobs;
use settle::Settled;

/// Grants in one call: three items each, of a hundred; one that takes a permit has four.
const TOGETHER: usize = 33;
/// AWS: items in one call.
const ITEMS: usize = 100;
/// Items of one grant, at most.
const MOST_ITEMS: usize = 4;
/// Places that are read of a line at a time, at most.
const HEADS: usize = 200;
/// Calls that other transactions are in the way of, until the rest is left to the next look.
const TRIES: u32 = 8;
/// Calls of one dealing, whatever is left: the rest is dealt at the next look.
const MOST_ROUNDS: u32 = 2_000;
/// Requests that are told beside the next calls, at most.
const MOST_ENDING: usize = 500;
/// The pauses after those.
const ON_CONFLICT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(320));

/// Places that something free fits, as they were read.
#[derive(Default)]
struct Waiters {
    /// The heads of the lines, by request.
    heads: BTreeMap<RequestId, Arc<ParkedRequest>>,
    /// Lines that were not read to their ends, each with the last request that was read.
    read_to: Vec<(Line, RequestId)>,
}

/// What became of free sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// They fit no place.
    pub(crate) free: Vec<Free>,
    /// How many were granted.
    pub(crate) granted: u64,
    /// Whether one of those left fits a place whose tenant may take no more.
    pub(crate) limited: bool,
}

/// Deals `free`. What it does not return, it granted, lost, or leaves to the next look.
pub(super) async fn all(jobs: &Jobs, free: Vec<Free>, by: By) -> Result<Left, StoreError> {
    let mut round = Dealing {
        jobs,
        free,
        aside: BTreeSet::new(),
        refused: BTreeSet::new(),
        tried: Vec::new(),
        together: TOGETHER,
        granted: 0,
        conflicts: 0,
        limited: false,
        leases: BTreeMap::new(),
        leaving: BTreeSet::new(),
        ending: JoinSet::new(),
    };
    let mut dealt = Ok(());
    for _ in 0..TRIES {
        dealt = round.rounds().await;
        // What was granted before something failed, too.
        let told = round.told().await;
        if dealt.is_err() || !matches!(told, Ok(false)) || round.free.is_empty() {
            dealt = dealt.and(told.map(drop));
            break;
        }
    }
    metrics::counter!("broker_waiting_granted_total", "by" => by.as_str()).increment(round.granted);
    dealt?;
    Ok(Left { free: round.free, granted: round.granted, limited: round.limited })
}

/// One call of dealing.
struct Dealing<'a> {
    jobs: &'a Jobs,
    free: Vec<Free>,
    /// Places that are passed over in this call: they are a dead letter's, or no attempt helps their lease.
    aside: BTreeSet<RequestId>,
    /// Places whose grant the table refused, once each.
    refused: BTreeSet<RequestId>,
    /// What went into the last call.
    tried: Vec<(Arc<ParkedRequest>, SandboxId)>,
    /// How many grants the next call has at most.
    together: usize,
    granted: u64,
    conflicts: u32,
    limited: bool,
    /// What the last call granted, by key.
    leases: BTreeMap<LeaseKey, Lease>,
    /// Places whose requests are being told: they stand in their lines until that is done, and are passed over.
    leaving: BTreeSet<RequestId>,
    /// Requests that have their sandbox: each is told, and its place is left.
    ending: JoinSet<Result<bool, StoreError>>,
}

impl Dealing<'_> {
    /// Deals until no waiting request fits what is left.
    async fn rounds(&mut self) -> Result<(), StoreError> {
        for _ in 0..MOST_ROUNDS {
            if self.free.is_empty() {
                return Ok(());
            }
            if !self.jobs.health.is_open() {
                return Err(StoreError::Unavailable { operation: "pool", source: Box::new(PoolClosed) });
            }
            let (waiters, rooms) = Box::pin(self.waiters()).await?;
            if self.deal(&waiters, &rooms).is_empty() {
                return Ok(());
            }
            Box::pin(self.heads(waiters, rooms)).await?;
            if self.ending.len() > MOST_ENDING {
                Box::pin(self.told()).await?;
            }
        }
        // Places were not met that fit what is left: it is not offered past them.
        Err(StoreError::Conflict)
    }

    /// Grants to the heads that were read, call by call, until one is met that is to be read anew.
    async fn heads(&mut self, mut waiters: Waiters, mut rooms: Rooms) -> Result<(), StoreError> {
        loop {
            let dealt = self.deal(&waiters, &rooms);
            if dealt.is_empty() {
                return Ok(());
            }
            match caught(self.grant(&mut waiters, &mut rooms, &dealt)).await {
                Some(Ok(true)) => {}
                Some(Ok(false)) => return Ok(()),
                Some(Err(error)) => return Box::pin(self.blame_for(error)).await,
                None => return Box::pin(self.blame(bury::panicked())).await,
            }
        }
    }

    /// Waits until all that was granted is told and left; whether it was. What failed stands in its line still, and is to be met
    /// again: alone, if it can never be done.
    async fn told(&mut self) -> Result<bool, StoreError> {
        let (mut in_the_way, mut all) = (None, true);
        self.leaving.clear();
        while let Some(ended) = self.ending.join_next().await {
            match ended {
                Ok(Ok(_ended)) => {}
                Ok(Err(error)) if matches!(bury::of_error(&error), Finality::Passes | Finality::Newer) => {
                    in_the_way = Some(error);
                }
                Ok(Err(_)) | Err(_) => (self.together, all) = (1, false),
            }
        }
        match in_the_way {
            Some(error) => self.in_the_way(error).await.map(|()| false),
            None => Ok(all),
        }
    }

    /// The heads of the lines that a free sandbox fits. Places past their deadline are passed over.
    async fn waiters(&mut self) -> Result<(Waiters, Rooms), StoreError> {
        let mut waiters = Waiters::default();
        let fits = |line: &Line| self.free.iter().any(|free| free.fits(line));
        let lines: Vec<ListedLine> = self.jobs.store.waiting.lines(self.jobs.clock.now()).await?;
        let lines: Vec<Line> = lines.into_iter().map(|listed| listed.line).filter(fits).collect();
        if lines.is_empty() {
            return Ok((waiters, Rooms::default()));
        }
        let passed_over = |id: &RequestId| self.aside.contains(id) || self.leaving.contains(id);
        // Without the policy it is not known who is limited, and nothing is dealt.
        let policy = super::policy(self.jobs).await.ok_or_else(policy_unknown)?;
        let rooms = Rooms::of(self.jobs, &policy, &lines, &self.free, passed_over).await?;
        let has_room = |line: &Line| {
            let may = |free: &Free| free.fits(line) && rooms.has_room(line, &free.candidate.name);
            self.free.iter().any(may)
        };
        let (lines, out): (Vec<_>, Vec<_>) = lines.into_iter().partition(has_room);
        let wanted = u16::try_from((self.free.len() + 1).min(HEADS)).unwrap_or(u16::MAX);
        for line in lines {
            let (heads, last) = heads(self.jobs, &line, wanted, passed_over).await?;
            waiters.heads.extend(heads.into_iter().map(|waiter| (waiter.place.request_id, Arc::new(waiter))));
            waiters.read_to.extend(last.map(|last| (line, last)));
        }
        self.limited |= !out.is_empty();
        Ok((waiters, rooms))
    }

    /// The deal of what is left.
    fn deal(&self, waiters: &Waiters, rooms: &Rooms) -> Vec<Dealt> {
        let policy = self.jobs.policy.now().unwrap_or_default();
        let without_places = |tenant: &TenantName| TenantPlaces {
            tenant: tenant.clone(),
            weight: policy.tenants().get(tenant).map_or(1, |tenant| tenant.weight),
            places: Vec::new(),
            read_to: Vec::new(),
            room: rooms.room_of(tenant),
            handed_over: rooms.handed_over(tenant),
        };
        let mut tenants: BTreeMap<&TenantName, TenantPlaces> = BTreeMap::new();
        for (id, waiter) in &waiters.heads {
            let line = &waiter.place.line;
            let of = tenants.entry(&line.tenant).or_insert_with(|| without_places(&line.tenant));
            of.places.push((*id, line.clone()));
        }
        for (line, last) in &waiters.read_to {
            let of = tenants.entry(&line.tenant).or_insert_with(|| without_places(&line.tenant));
            of.read_to.push((line.clone(), *last));
        }
        let tenants: Vec<_> = tenants.into_values().collect();
        let free = self.free.iter();
        let free = free
            .map(|free| FreeSandbox { name: free.candidate.name.clone(), only_for: free.only_for.clone() });
        let free: Vec<_> = free.collect();
        let chance: Vec<f64> = tenants.iter().map(|_| self.jobs.entropy.unit()).collect();
        deal(&free, &tenants, &chance)
    }

    /// Grants what was dealt, as many as fit into one call, and takes out of `waiters` who waits no more. Whether the others stand
    /// as they were read: a call that fails grants nothing, and goes again without those that were in its way.
    async fn grant(
        &mut self,
        waiters: &mut Waiters,
        rooms: &mut Rooms,
        dealt: &[Dealt],
    ) -> Result<bool, StoreError> {
        let now = self.jobs.clock.now();
        let mut chosen = self.choose(waiters, rooms, dealt);
        let tried =
            chosen.iter().map(|(waiter, free, _)| (Arc::clone(waiter), free.candidate.sandbox_id.clone()));
        self.tried = tried.collect();
        if chosen.is_empty() {
            // Their permits went meanwhile.
            return Err(StoreError::Conflict);
        }
        let own = chosen
            .first()
            .and_then(|(first, _, permit)| rooms.own_lease(first.place.request_id, permit.as_ref()).cloned());
        if !self.add_attributes(&mut chosen).await? {
            return Ok(false);
        }
        let claims: Vec<_> = chosen
            .iter()
            .map(|(waiter, free, permit)| Claim {
                request: &waiter.ask,
                candidate: &free.candidate,
                allocation_id: self.jobs.entropy.allocation_id(),
                now,
                listed: free.listed,
                from_line: true,
                permit: permit.as_ref(),
            })
            .collect();
        crash_points::point(Point::BeforeGrant);
        // What is known of a tenant whose permit is handed over is to be read anew.
        let (mut gone, mut stand, mut all) = (Vec::new(), own.is_none(), true);
        let outcomes = match own {
            // Only the write that ends that lease hands over its permit.
            Some(own) => vec![Some(ClaimOutcome::LeaseStands(Box::new(own)))],
            None => self.jobs.store.leases.grant(&claims).await?,
        };
        let outcomes = outcomes.into_iter().zip(&claims).enumerate();
        for ((waiter, free, permit), (position, (outcome, claim))) in chosen.iter().zip(outcomes) {
            let settled = self.settle(waiter, claim, outcome, position == 0).await?;
            if !matches!(settled, Settled::Granted | Settled::ReadAnew)
                && let Some(unused) = permit
            {
                rooms.put_back(unused);
            }
            all &= matches!(settled, Settled::Granted);
            stand &= !matches!(settled, Settled::ReadAnew);
            if matches!(settled, Settled::Granted | Settled::PlaceLeft) {
                waiters.heads.remove(&waiter.place.request_id);
            }
            if matches!(settled, Settled::Granted | Settled::SandboxGone) {
                gone.push(free.candidate.sandbox_id.clone());
            }
        }
        self.tell_repeats(waiters);
        self.together = match (all, stand) {
            (true, _) => (self.together * 2).min(TOGETHER),
            (false, true) => self.together,
            (false, false) => (self.together / 2).max(1),
        };
        self.free.retain(|free| !gone.contains(&free.candidate.sandbox_id));
        Ok(stand)
    }

    /// Tells a request its outcome and leaves its place, beside what follows; [`Self::told`] waits for it.
    fn tell(&mut self, waiter: &Arc<ParkedRequest>, outcome: Outcome) {
        let (jobs, waiter) = (self.jobs.clone(), Arc::clone(waiter));
        self.leaving.insert(waiter.place.request_id);
        self.ending.spawn(trace::carried(async move { end(&jobs, &waiter, outcome).await }));
    }

    /// What is listed by the index has no attributes yet; of what was just written they are known. Whether all could be read: what
    /// could not is left to the next look, and the places get other sandboxes.
    async fn add_attributes(
        &mut self,
        chosen: &mut [(Arc<ParkedRequest>, Free, Option<Permit>)],
    ) -> Result<bool, StoreError> {
        let unread = |free: &Free| free.candidate.attributes.is_none();
        if !self.jobs.settings.keeps_attributes || !chosen.iter().any(|(_, free, _)| unread(free)) {
            return Ok(true);
        }
        let candidates: Vec<_> = chosen.iter().map(|(_, free, _)| free.candidate.clone()).collect();
        let read = || self.jobs.store.sandboxes.with_attributes(candidates.clone());
        let read = retry_on_conflict(&self.jobs.entropy, read).await?;
        if read.len() < candidates.len() {
            let kept: BTreeSet<_> = read.iter().map(|candidate| &candidate.sandbox_id).collect();
            let asked = candidates.iter().map(|candidate| &candidate.sandbox_id);
            let unreadable: BTreeSet<_> = asked.filter(|id| !kept.contains(*id)).collect();
            self.free.retain(|free| !unreadable.contains(&free.candidate.sandbox_id));
            return Ok(false);
        }
        for ((_, free, _), candidate) in chosen.iter_mut().zip(read) {
            free.candidate = candidate;
        }
        Ok(true)
    }

    /// What goes into the next call, each with its permit if it falls under a limit.
    fn choose(
        &self,
        waiters: &Waiters,
        rooms: &mut Rooms,
        dealt: &[Dealt],
    ) -> Vec<(Arc<ParkedRequest>, Free, Option<Permit>)> {
        let (mut keys, mut chosen, mut items) = (BTreeSet::new(), Vec::new(), 0);
        for dealt in dealt {
            let found = (waiters.heads.get(&dealt.request_id), self.free.get(dealt.sandbox));
            let (Some(waiter), Some(free)) = found else { continue };
            // AWS refuses an item twice in a call; the other place of a key is met by the next.
            if !keys.insert(&waiter.ask.lease_key) {
                continue;
            }
            if chosen.len() == self.together || items + MOST_ITEMS > ITEMS {
                break;
            }
            let Ok(permit) = rooms.take(&waiter.place, &free.candidate.name) else { continue };
            // What is handed over is written alone.
            let is_alone = rooms.own_lease(waiter.place.request_id, permit.as_ref()).is_some();
            if is_alone && !chosen.is_empty() {
                break;
            }
            items += 3 + usize::from(permit.is_some());
            chosen.push((Arc::clone(waiter), free.clone(), permit));
            if is_alone {
                break;
            }
        }
        chosen
    }

    /// What becomes of a call that failed: again after a moment if that may help.
    async fn blame_for(&mut self, error: StoreError) -> Result<(), StoreError> {
        match bury::of_error(&error) {
            Finality::Passes | Finality::Newer => self.in_the_way(error).await,
            Finality::Final(code) => self.blame((bury::reason(code), chain(&error))).await,
            Finality::Refused(code) => {
                if let [(waiter, sandbox)] = &self.tried[..]
                    && self.refused.insert(waiter.place.request_id)
                {
                    // It may be the sandbox: the place gets another one, and this one is left to the next look.
                    self.free.retain(|free| free.candidate.sandbox_id != *sandbox);
                    return self.jobs.store.takes_writes().await;
                }
                self.blame((bury::reason(code), chain(&error))).await
            }
        }
    }

    /// A call of grants failed for good: its first grant goes alone, and its place becomes a dead letter if that fails for good, too.
    async fn blame(&mut self, why: Why) -> Result<(), StoreError> {
        match std::mem::take(&mut self.tried).as_slice() {
            [] => self.in_the_way(StoreError::Conflict).await,
            [(waiter, _)] => {
                self.aside.insert(waiter.place.request_id);
                bury::request(self.jobs, waiter, why).await
            }
            [..] => {
                self.together = 1;
                Ok(())
            }
        }
    }

    /// Another transaction was in the way, or the table did not answer: again after a moment, with fewer.
    async fn in_the_way(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.conflicts += 1;
        if self.conflicts > TRIES {
            return Err(error);
        }
        self.together = (self.together / 2).max(1);
        tokio::time::sleep(ON_CONFLICT.jittered(self.conflicts, &self.jobs.entropy)).await;
        Ok(())
    }
}

/// That the pool was closed while sandboxes were dealt: the rest is left to the next look.
#[derive(Debug, thiserror::Error)]
#[error("the pool is closed")]
struct PoolClosed;

/// Nothing is known of limits yet.
fn policy_unknown() -> StoreError {
    StoreError::Unavailable { operation: "policy", source: Box::new(PolicyUnknown) }
}
