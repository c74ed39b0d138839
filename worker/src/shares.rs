//! Shares: how many of a worker's permits the requests of one key, and those of one tenant, hold at a time.
//!
//! A frequently repeated key must not hold every permit while other messages wait in the queue, and a tenant with thousands of
//! requests must not delay the few of another one. A key has a quarter of the permits at most; the tenants whose requests are here
//! have equal parts, and a single tenant has all. Beyond its share a request waits here, in its tenant's order and without a
//! permit; when too many wait, one of a crowded key is put back into the queue, and others keep their permits while they wait.
//! Invariants: a permit that is given back goes to a request that may begin, of the tenant that holds least, or is free, and as many
//! others begin as free permits are there for; a request waits only while another one of its key or of its tenant is under way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::TenantName;
use broker_messages::Request;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The part of the permits that one key may hold.
const PART: usize = 4;
/// How many requests wait here for each permit of the worker.
const WAITING_PER_PERMIT: usize = 4;

/// Whose request it is: what is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    key: String,
    /// A message of an older version names none: together they are one.
    tenant: Option<TenantName>,
}

impl Party {
    /// Of `request`, which `tenant` made.
    pub(crate) fn of(request: &Request, tenant: Option<TenantName>) -> Self {
        let key = match request {
            Request::Allocate(request) => {
                format!("lease {} {}", request.lease_key.track, request.lease_key.key)
            }
            Request::Return(mark) => format!("return {} {}", mark.sandbox_id, mark.track),
        };
        Self { key, tenant }
    }

    /// Of a message that shares nothing with others.
    pub(crate) fn alone(message_id: &str) -> Self {
        Self { key: message_id.to_owned(), tenant: None }
    }
}

/// The shares of all keys and tenants. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Shares(Arc<AllShares>);

#[derive(Debug)]
struct AllShares {
    permits: usize,
    most_waiting: usize,
    state: Mutex<SharesState>,
}

#[derive(Debug, Default)]
struct SharesState {
    /// How many of each key are under way.
    keys: HashMap<String, usize>,
    tenants: HashMap<Option<TenantName>, OfTenant>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct OfTenant {
    held: usize,
    waiting: VecDeque<WaitingRequest>,
}

/// A request that waits for its share.
#[derive(Debug)]
struct WaitingRequest {
    key: String,
    begin: oneshot::Sender<Share>,
    /// Its own permit, if it had to keep it.
    permit: Option<OwnedSemaphorePermit>,
}

/// One request's part. Dropped, the next one begins.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    /// `None` once it has ended.
    party: Option<Party>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// For a worker with so many permits.
    pub(crate) fn of(permits: usize) -> Self {
        let most_waiting = permits.saturating_mul(WAITING_PER_PERMIT);
        Self(Arc::new(AllShares { permits: permits.max(1), most_waiting, state: Mutex::default() }))
    }

    /// A share for a request of `party` that holds `permit`, which is given back while it waits. `None` if too many wait and
    /// its key is among them.
    pub(crate) async fn enter(&self, party: Party, permit: Option<OwnedSemaphorePermit>) -> Option<Share> {
        let (begin, begins) = oneshot::channel();
        let next = {
            let mut state = self.state();
            let crowded = state.waiting >= self.0.most_waiting;
            if crowded && state.keys.get(&party.key).is_some_and(|held| *held >= self.most_of_key()) {
                return None;
            }
            let Party { key, tenant } = party;
            state.waiting += 1;
            let line = state.tenants.entry(tenant.clone()).or_default();
            line.waiting.push_back(WaitingRequest { key, begin, permit: None });
            let next = state.next(self.0.permits, self.most_of_key());
            match next {
                Some(next) => Some((next, permit)),
                None if crowded => {
                    let line = state.tenants.entry(tenant).or_default();
                    if let Some(last) = line.waiting.back_mut() {
                        last.permit = permit;
                    }
                    None
                }
                None => {
                    drop(permit);
                    None
                }
            }
        };
        if let Some((next, permit)) = next {
            self.begin(next, permit);
        }
        begins.await.ok()
    }

    fn state(&self) -> MutexGuard<'_, SharesState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn most_of_key(&self) -> usize {
        (self.0.permits / PART).max(1)
    }

    /// Lets `next` begin, with its own permit or with `permit`, then as many others as may and as there are permits for. In the
    /// place of one that does not wait any more the next one begins.
    fn begin(&self, next: NextRequest, mut permit: Option<OwnedSemaphorePermit>) {
        let permits = permit.as_ref().map(|permit| Arc::clone(permit.semaphore()));
        let mut next = Some(next);
        while let Some((tenant, waiting)) = next {
            let WaitingRequest { key, begin, permit: own } = waiting;
            let given = own.or_else(|| permit.take());
            let share = Share { shares: self.clone(), party: Some(Party { key, tenant }), permit: given };
            let left = begin.send(share).err();
            let has_left = left.is_some();
            let ended = left.and_then(|mut left| {
                permit = permit.take().or_else(|| left.permit.take());
                left.party.take()
            });
            let mut state = self.state();
            if let Some(party) = ended {
                state.ended(&party);
            }
            if permit.is_none() {
                permit = permits.as_ref().and_then(|permits| Arc::clone(permits).try_acquire_owned().ok());
            }
            let may_begin = has_left || permit.is_some();
            next = if may_begin { state.next(self.0.permits, self.most_of_key()) } else { None };
        }
    }
}

/// A request that may begin, and its tenant.
type NextRequest = (Option<TenantName>, WaitingRequest);

impl SharesState {
    /// The next that may begin: of the tenant that holds least, the first whose key has room.
    fn next(&mut self, permits: usize, most_of_key: usize) -> Option<NextRequest> {
        let most_of_tenant = permits.div_ceil(self.tenants.len().max(1));
        let keys = &self.keys;
        let has_room = |waits: &WaitingRequest| keys.get(&waits.key).is_none_or(|held| *held < most_of_key);
        let (_, tenant, position) = self
            .tenants
            .iter()
            .filter(|(_, of)| of.held < most_of_tenant)
            .filter_map(|(tenant, of)| Some((of.held, tenant.clone(), of.waiting.iter().position(has_room)?)))
            .min_by_key(|(held, ..)| *held)?;
        let of_tenant = self.tenants.get_mut(&tenant)?;
        let waits = of_tenant.waiting.remove(position)?;
        of_tenant.held += 1;
        self.waiting -= 1;
        *self.keys.entry(waits.key.clone()).or_default() += 1;
        Some((tenant, waits))
    }

    /// One of `party` has ended.
    fn ended(&mut self, party: &Party) {
        if let Some(held) = self.keys.get_mut(&party.key) {
            *held -= 1;
            if *held == 0 {
                self.keys.remove(&party.key);
            }
        }
        if let Some(of_tenant) = self.tenants.get_mut(&party.tenant) {
            of_tenant.held -= 1;
            if of_tenant.held == 0 && of_tenant.waiting.is_empty() {
                self.tenants.remove(&party.tenant);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(party) = self.party.take() else { return };
        let next = {
            let mut state = self.shares.state();
            state.ended(&party);
            state.next(self.shares.0.permits, self.shares.most_of_key())
        };
        if let Some(next) = next {
            self.shares.begin(next, self.permit.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::sync::Semaphore;

    use super::*;

    fn permit(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(permits).try_acquire_owned().ok()
    }

    fn party(key: &str, tenant: &str) -> Party {
        Party { key: key.to_owned(), tenant: TenantName::new(tenant).ok() }
    }

    fn is_empty(shares: &Shares) -> bool {
        let state = shares.state();
        state.keys.is_empty() && state.tenants.is_empty() && state.waiting == 0
    }

    #[tokio::test]
    async fn beyond_its_share_a_key_waits_without_a_permit_and_gets_the_next_of_its_own() {
        let (permits, shares) = (Arc::new(Semaphore::new(8)), Shares::of(8));
        let enter = |key: &str| shares.enter(party(key, "a"), permit(&permits));
        let (first, second) = (enter("hot").await, enter("hot").await);
        let mut context = Context::from_waker(Waker::noop());
        let (mut third, mut fourth) = (pin!(enter("hot")), pin!(enter("hot")));
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        assert_eq!(permits.available_permits(), 6, "two hold theirs");
        let other = enter("other").await.expect("its own share");
        drop(first);
        let Poll::Ready(third) = third.as_mut().poll(&mut context) else { panic!("it is its turn") };
        assert_eq!(permits.available_permits(), 5);
        drop((second, other));
        assert!(fourth.as_mut().poll(&mut context).is_ready());
        drop(third);
        assert_eq!(permits.available_permits(), 8);
        assert!(is_empty(&shares), "{shares:?}");
    }

    #[tokio::test]
    async fn one_that_leaves_does_not_keep_the_share() {
        let (permits, shares) = (Arc::new(Semaphore::new(4)), Shares::of(4));
        let enter = |key: &str| shares.enter(party(key, "a"), permit(&permits));
        let first = enter("k").await;
        {
            let mut left = pin!(enter("k"));
            assert!(left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(first);
        assert_eq!(permits.available_permits(), 4);
        assert!(is_empty(&shares), "{shares:?}");
    }

    #[tokio::test]
    async fn however_many_have_left_the_share_passes_them_over() {
        let shares = Shares::of(1);
        let enter = |key: usize| Box::pin(shares.enter(party(&key.to_string(), "a"), None));
        let first = enter(0).await;
        let mut context = Context::from_waker(Waker::noop());
        let mut left: Vec<_> = (1..100_000).map(enter).collect();
        for one in &mut left {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        drop(left);
        let mut last = enter(100_000);
        assert!(last.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(last.as_mut().poll(&mut context).is_ready());
        assert!(is_empty(&shares), "{shares:?}");
    }

    #[tokio::test]
    async fn when_a_tenant_leaves_as_many_of_another_begin_as_there_are_permits_for() {
        let (permits, shares) = (Arc::new(Semaphore::new(4)), Shares::of(4));
        let enter = |key: &str, tenant: &str| shares.enter(party(key, tenant), permit(&permits));
        let mut context = Context::from_waker(Waker::noop());
        let quiet = (enter("q1", "quiet").await, enter("q2", "quiet").await);
        let greedy = (enter("1", "greedy").await, enter("2", "greedy").await);
        let mut waits: Vec<_> = Vec::new();
        for key in ["3", "4", "5"] {
            // Each came with a permit that the one before gave back.
            permits.add_permits(1);
            let mut one = Box::pin(enter(key, "greedy"));
            assert!(one.as_mut().poll(&mut context).is_pending(), "{key}");
            permits.forget_permits(1);
            waits.push(one);
        }
        drop(quiet);
        let begun: Vec<_> = waits.iter_mut().map(|one| one.as_mut().poll(&mut context)).collect();
        assert_eq!(begun.iter().map(Poll::is_ready).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(permits.available_permits(), 0, "and no more are under way than there are permits");
        drop((begun, waits, greedy));
        assert_eq!(permits.available_permits(), 4);
        assert!(is_empty(&shares), "{shares:?}");
    }

    #[tokio::test]
    async fn when_too_many_wait_the_next_of_a_crowded_key_is_put_back() {
        let shares = Shares::of(2);
        let enter = |key: &str| shares.enter(party(key, "a"), None);
        let _held = enter("k").await;
        let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(enter("k"))).collect();
        for waits in &mut waiting {
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(enter("k").await.is_none());
        assert!(enter("other").await.is_some());
    }

    #[tokio::test]
    async fn a_tenant_that_is_alone_has_every_permit_and_two_have_half_each() {
        let (permits, shares) = (Arc::new(Semaphore::new(4)), Shares::of(4));
        let enter = |key: &str, tenant: &str| shares.enter(party(key, tenant), permit(&permits));
        let mut context = Context::from_waker(Waker::noop());
        let mut greedy = Vec::new();
        for key in ["1", "2", "3", "4"] {
            greedy.push(enter(key, "greedy").await.expect("it is alone"));
        }
        greedy.pop();
        let quiet = enter("q1", "quiet").await.expect("it holds none");
        greedy.pop();
        let (mut more, mut second) = (pin!(enter("5", "greedy")), pin!(enter("q2", "quiet")));
        assert!(more.as_mut().poll(&mut context).is_pending(), "it has its half");
        assert_eq!(permits.available_permits(), 1, "and waits without a permit");
        let Poll::Ready(second) = second.as_mut().poll(&mut context) else { panic!("it has its half, too") };
        drop(quiet);
        assert!(more.as_mut().poll(&mut context).is_pending());
        drop(second);
        assert!(more.as_mut().poll(&mut context).is_ready(), "the other one has left");
    }

    #[tokio::test]
    async fn a_permit_goes_to_the_tenant_that_holds_least() {
        let (permits, shares) = (Arc::new(Semaphore::new(2)), Shares::of(2));
        let enter = |key: &str, tenant: &str| shares.enter(party(key, tenant), permit(&permits));
        let mut context = Context::from_waker(Waker::noop());
        let (first, _other) = (enter("1", "greedy").await, enter("q", "quiet").await);
        let mut waits: Vec<_> = (2..9).map(|n| Box::pin(enter(&n.to_string(), "greedy"))).collect();
        for one in &mut waits {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        let mut third = pin!(enter("t", "third"));
        // No permit is given to it: a worker receives no more than it has permits for.
        drop(permits);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert!(waits[0].as_mut().poll(&mut context).is_pending());
        drop(first);
        let begun = waits[0].as_mut().poll(&mut context);
        assert!(begun.is_ready() && waits[1].as_mut().poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn when_too_many_wait_a_tenant_keeps_its_permits_and_takes_no_more() {
        let (permits, shares) = (Arc::new(Semaphore::new(2)), Shares::of(2));
        let enter = |key: &str, tenant: &str| shares.enter(party(key, tenant), permit(&permits));
        let mut context = Context::from_waker(Waker::noop());
        let _quiet = enter("q", "quiet").await;
        let first = enter("0", "greedy").await;
        let mut waits: Vec<_> =
            (1..9).map(|n| Box::pin(shares.enter(party(&n.to_string(), "greedy"), None))).collect();
        for one in &mut waits {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        permits.add_permits(1);
        let mut last = pin!(enter("9", "greedy"));
        assert!(last.as_mut().poll(&mut context).is_pending());
        assert_eq!(permits.available_permits(), 0, "it keeps its permit");
        drop(first);
        assert!(waits[0].as_mut().poll(&mut context).is_ready());
    }
}
