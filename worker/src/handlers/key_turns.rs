//! Key turns: one request of a lease key at a time calls the table, and shares the lease that it read with the others that wait.
//! Reads alone may go on several at a time: who comes while one is under way begins the next.
//!
//! Invariants: an attempt answers only requests that came before it began, so no request gets a lease that ended before
//! the request was made; a key without requests takes no memory. Nothing is decided here: each waiting request judges
//! the lease itself (another fingerprint, another request id), and calls the table itself if that is not enough.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who asks for which keys. Clones share them.
#[derive(Debug)]
pub(super) struct KeyTurns<K, L> {
    lines: Arc<Mutex<HashMap<K, Arc<KeyLine<L>>>>>,
    at_a_time: usize,
}

impl<K, L> Clone for KeyTurns<K, L> {
    fn clone(&self) -> Self {
        Self { lines: Arc::clone(&self.lines), at_a_time: self.at_a_time }
    }
}

impl<K, L> Default for KeyTurns<K, L> {
    fn default() -> Self {
        Self::at_a_time(1)
    }
}

impl<K, L> KeyTurns<K, L> {
    /// So many attempts at a time for a key, at most.
    pub(super) fn at_a_time(at_a_time: usize) -> Self {
        Self { lines: Arc::default(), at_a_time }
    }
}

/// Those who ask for one key.
#[derive(Debug)]
struct KeyLine<L> {
    state: Mutex<KeyState<L>>,
    /// Changes whenever an attempt ends.
    ended: watch::Sender<()>,
}

#[derive(Debug)]
struct KeyState<L> {
    /// The numbers of the attempts under way.
    asking: Vec<u64>,
    /// How many attempts have begun.
    begun: u64,
    /// The newest that learnt something, and what.
    learnt: Option<(u64, Arc<L>)>,
}

/// One request's place among those of its key.
#[derive(Debug)]
pub(super) struct KeyPlace<K: Clone + Eq + Hash, L> {
    turns: KeyTurns<K, L>,
    key: K,
    line: Arc<KeyLine<L>>,
    /// Attempts that had begun when it came, or when it last learnt something.
    came_after: u64,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum KeyTurn<L> {
    /// This request's: it asks.
    Mine(Attempt<L>),
    /// Another one asked, after this one came, and learnt this.
    Learnt(Arc<L>),
}

/// An attempt under way. Dropped, the next one may ask.
#[derive(Debug)]
pub(super) struct Attempt<L> {
    line: Arc<KeyLine<L>>,
    number: u64,
}

impl<K: Clone + Eq + Hash, L> KeyTurns<K, L> {
    /// A place among the requests of `key`.
    pub(super) fn place(&self, key: &K) -> KeyPlace<K, L> {
        let mut lines = self.lines();
        let line = lines.entry(key.clone()).or_insert_with(|| {
            let state = KeyState { asking: Vec::new(), begun: 0, learnt: None };
            Arc::new(KeyLine { state: Mutex::new(state), ended: watch::Sender::new(()) })
        });
        let line = Arc::clone(line);
        drop(lines);
        let came_after = line.state().begun;
        KeyPlace { turns: self.clone(), key: key.clone(), line, came_after }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<K, Arc<KeyLine<L>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> KeyLine<L> {
    fn state(&self) -> MutexGuard<'_, KeyState<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> KeyState<L> {
    fn begin(&mut self, line: &Arc<KeyLine<L>>) -> Attempt<L> {
        self.begun += 1;
        self.asking.push(self.begun);
        Attempt { line: Arc::clone(line), number: self.begun }
    }
}

impl<K: Clone + Eq + Hash, L> KeyPlace<K, L> {
    /// This request's turn, if no attempt is under way.
    pub(super) fn turn_if_free(&self) -> Option<Attempt<L>> {
        let mut state = self.line.state();
        state.asking.is_empty().then(|| state.begin(&self.line))
    }

    /// Waits until it is this request's turn, or something was learnt by an attempt that began after it came.
    pub(super) async fn turn(&mut self) -> KeyTurn<L> {
        let mut ended = self.line.ended.subscribe();
        loop {
            {
                let mut state = self.line.state();
                if let Some((number, learnt)) = &state.learnt
                    && *number > self.came_after
                {
                    let learnt = Arc::clone(learnt);
                    self.came_after = state.begun;
                    return KeyTurn::Learnt(learnt);
                }
                // One that began after this request came tells it what it wants to know.
                let serves = state.asking.iter().any(|number| *number > self.came_after);
                if !serves && state.asking.len() < self.turns.at_a_time {
                    return KeyTurn::Mine(state.begin(&self.line));
                }
            }
            // The line, which this place keeps, holds the sender.
            let _ = ended.changed().await;
        }
    }
}

impl<L> Attempt<L> {
    /// Tells all who came before it began what it learnt.
    pub(super) fn learnt(&self, what: L) {
        let mut state = self.line.state();
        // A later one may have been faster.
        if state.learnt.as_ref().is_none_or(|(number, _)| *number < self.number) {
            state.learnt = Some((self.number, Arc::new(what)));
        }
    }
}

impl<L> Drop for Attempt<L> {
    fn drop(&mut self) {
        self.line.state().asking.retain(|number| *number != self.number);
        self.line.ended.send_replace(());
    }
}

impl<K: Clone + Eq + Hash, L> Drop for KeyPlace<K, L> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        // The map's and ours: no other request asks for it.
        if Arc::strong_count(&self.line) == 2 {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn mine(turn: KeyTurn<u32>) -> Attempt<u32> {
        match turn {
            KeyTurn::Mine(attempt) => attempt,
            KeyTurn::Learnt(what) => panic!("learnt {what}"),
        }
    }

    #[tokio::test]
    async fn who_waits_learns_from_an_attempt_that_began_after_it_came_and_from_no_other() {
        let turns: KeyTurns<&str, u32> = KeyTurns::default();
        let (mut first, mut second) = (turns.place(&"k"), turns.place(&"k"));
        let attempt = mine(first.turn().await);
        let mut late = turns.place(&"k");
        attempt.learnt(7);
        drop(attempt);
        let KeyTurn::Learnt(what) = second.turn().await else { panic!("it came before") };
        assert_eq!(*what, 7);
        // What it could not use it does not learn again; and the late one asks by itself.
        let again = mine(late.turn().await);
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = pin!(second.turn());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        again.learnt(8);
        drop(again);
        let Poll::Ready(KeyTurn::Learnt(what)) = waits.as_mut().poll(&mut context) else {
            panic!("it ended")
        };
        assert_eq!(*what, 8);
    }

    #[tokio::test]
    async fn who_comes_while_one_asks_begins_the_next_if_several_may_ask_at_a_time() {
        let turns: KeyTurns<&str, u32> = KeyTurns::at_a_time(3);
        let first = mine(turns.place(&"k").turn().await);
        let (mut second, mut behind, mut other) = (turns.place(&"k"), turns.place(&"k"), turns.place(&"k"));
        let later = mine(second.turn().await);
        let mut late = turns.place(&"k");
        let mut context = Context::from_waker(Waker::noop());
        let mut learns = pin!(behind.turn());
        assert!(learns.as_mut().poll(&mut context).is_pending(), "the second tells it");
        later.learnt(2);
        drop(later);
        first.learnt(1);
        let Poll::Ready(KeyTurn::Learnt(what)) = learns.as_mut().poll(&mut context) else {
            panic!("it ended")
        };
        assert_eq!(*what, 2, "what began before it came is not what it wants to know");
        let KeyTurn::Learnt(what) = other.turn().await else { panic!("it came before the second began") };
        assert_eq!(*what, 2);
        let asks = mine(late.turn().await);
        let third = mine(turns.place(&"k").turn().await);
        let mut over = turns.place(&"k");
        let mut waits = pin!(over.turn());
        assert!(waits.as_mut().poll(&mut context).is_pending(), "three at a time");
        drop((first, asks, third));
        assert!(matches!(waits.as_mut().poll(&mut context), Poll::Ready(KeyTurn::Mine(_))));
    }

    #[tokio::test]
    async fn a_turn_ahead_is_given_while_nobody_asks() {
        let turns: KeyTurns<&str, u32> = KeyTurns::default();
        let (mut first, second) = (turns.place(&"k"), turns.place(&"k"));
        let ahead = first.turn_if_free().expect("no attempt is under way");
        assert!(second.turn_if_free().is_none());
        ahead.learnt(3);
        drop(ahead);
        let KeyTurn::Learnt(what) = first.turn().await else { panic!("it asked itself") };
        assert_eq!(*what, 3);
    }

    #[tokio::test]
    async fn an_attempt_that_learns_nothing_is_followed_by_the_next_and_other_keys_do_not_wait() {
        let turns: KeyTurns<&str, u32> = KeyTurns::default();
        let (mut first, mut second) = (turns.place(&"k"), turns.place(&"k"));
        let attempt = mine(first.turn().await);
        drop(mine(turns.place(&"other").turn().await));
        drop(attempt);
        drop(mine(second.turn().await));
        drop((first, second));
        assert!(turns.lines().is_empty(), "{turns:?}");
    }
}
