//! Shares: how many of a worker's permits the requests of one key hold at a time.
//!
//! A key that is asked for again and again must not hold every permit while others wait in the queue. Beyond its share its
//! requests wait here, in their order and without a permit; beyond what may wait here, they are put back into the queue.
//! Invariant: a share that ends is handed to the next of its key, with its permit, or both are free.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_messages::Request;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The part of the permits that one key may hold.
const PART: usize = 4;
/// How many requests wait here for each permit of the worker.
const WAITING_PER_PERMIT: usize = 4;

/// The shares of all keys. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Shares(Arc<AllShares>);

#[derive(Debug)]
struct AllShares {
    most: usize,
    most_waiting: usize,
    state: Mutex<SharesState>,
}

#[derive(Debug, Default)]
struct SharesState {
    keys: HashMap<String, OfKey>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct OfKey {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Share>>,
}

/// One request's part of its key's share. Dropped, the next one has it.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    key: String,
    permit: Option<OwnedSemaphorePermit>,
}

/// What makes two requests the same key's.
pub(crate) fn key_of(request: &Request) -> String {
    match request {
        Request::Allocate(request) => format!("lease {} {}", request.lease_key.track, request.lease_key.key),
        Request::Return(mark) => format!("return {} {}", mark.sandbox_id, mark.track),
    }
}

impl Shares {
    /// For a worker with so many permits.
    pub(crate) fn of(permits: usize) -> Self {
        Self(Arc::new(AllShares {
            most: (permits / PART).max(1),
            most_waiting: permits.saturating_mul(WAITING_PER_PERMIT),
            state: Mutex::default(),
        }))
    }

    /// A share for a request of `key` that holds `permit`, which is given back while it waits. `None` if too many wait.
    pub(crate) async fn enter(&self, key: String, permit: Option<OwnedSemaphorePermit>) -> Option<Share> {
        let turn = {
            let mut state = self.state();
            let crowded = state.waiting >= self.0.most_waiting;
            let of_key = state.keys.entry(key.clone()).or_default();
            if of_key.held < self.0.most {
                of_key.held += 1;
                return Some(Share { shares: self.clone(), key, permit });
            }
            if crowded {
                return None;
            }
            let (hand_over, turn) = oneshot::channel();
            of_key.waiting.push_back(hand_over);
            state.waiting += 1;
            turn
        };
        drop(permit);
        turn.await.ok()
    }

    fn state(&self) -> MutexGuard<'_, SharesState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next that waits for `key`; none gives the share back.
    fn next(&self, key: &str) -> Option<oneshot::Sender<Share>> {
        let mut state = self.state();
        let of_key = state.keys.get_mut(key)?;
        let next = of_key.waiting.pop_front();
        if next.is_some() {
            state.waiting -= 1;
        } else {
            of_key.held -= 1;
            if of_key.held == 0 {
                state.keys.remove(key);
            }
        }
        next
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(next) = self.shares.next(&self.key) else { return };
        let (shares, key) = (self.shares.clone(), std::mem::take(&mut self.key));
        // One that does not wait any more drops it at once, and so on to the next.
        let _ = next.send(Share { shares, key, permit: self.permit.take() });
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

    #[tokio::test]
    async fn beyond_its_share_a_key_waits_without_a_permit_and_gets_the_next_of_its_own() {
        let (permits, shares) = (Arc::new(Semaphore::new(8)), Shares::of(8));
        let enter = |key: &str| shares.enter(key.to_owned(), permit(&permits));
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
        assert!(shares.state().keys.is_empty() && shares.state().waiting == 0, "{shares:?}");
    }

    #[tokio::test]
    async fn one_that_leaves_does_not_keep_the_share() {
        let (permits, shares) = (Arc::new(Semaphore::new(4)), Shares::of(4));
        let first = shares.enter("k".to_owned(), permit(&permits)).await;
        {
            let mut left = pin!(shares.enter("k".to_owned(), permit(&permits)));
            assert!(left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(first);
        assert_eq!(permits.available_permits(), 4);
        assert!(shares.state().keys.is_empty(), "{shares:?}");
    }

    #[tokio::test]
    async fn when_too_many_wait_the_next_is_put_back() {
        let shares = Shares::of(1);
        let _held = shares.enter("k".to_owned(), None).await;
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(shares.enter("k".to_owned(), None))).collect();
        for waits in &mut waiting {
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(shares.enter("k".to_owned(), None).await.is_none());
        assert!(shares.enter("other".to_owned(), None).await.is_some());
    }
}
