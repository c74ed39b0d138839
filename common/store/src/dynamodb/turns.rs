//! Turns of the callers that write one item: one at a time, in the order in which they came.
//!
//! Invariant: keys are taken in one order, so callers cannot deadlock; a caller that is dropped passes its turn on; an item
//! without callers takes no memory. Writes of other processes are kept apart by conditions, not here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::keys::Key;

type Item = Arc<tokio::sync::Mutex<()>>;

/// The items that callers write, or wait to write. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Key, Item>>>);

/// The turn on several items; dropped, the next callers have theirs.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    key: Key,
    item: Item,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn on all of `keys`.
    pub(super) async fn take(&self, keys: &[Key]) -> Turn {
        let mut keys: Vec<&Key> = keys.iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut turn = Turn { turns: self.clone(), held: Vec::with_capacity(keys.len()) };
        for key in keys {
            let item = Arc::clone(self.items().entry(key.clone()).or_default());
            turn.held.push(Held { key: key.clone(), item: Arc::clone(&item), guard: None });
            let guard = item.lock_owned().await;
            if let Some(held) = turn.held.last_mut() {
                held.guard = Some(guard);
            }
        }
        turn
    }

    fn items(&self) -> MutexGuard<'_, HashMap<Key, Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for Held { key, item, guard } in self.held.drain(..) {
            drop(guard);
            let mut items = self.turns.items();
            // The map's and ours: no other caller waits.
            if Arc::strong_count(&item) == 2 {
                items.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use broker_domain::SandboxId;

    use super::*;
    use crate::dynamodb::keys;

    fn key(id: &str) -> Key {
        keys::sandbox(&SandboxId::new(id).unwrap())
    }

    #[tokio::test]
    async fn who_wants_an_item_waits_for_it_alone_and_takes_its_turn_in_order() {
        let turns = Turns::default();
        let first = turns.take(&[key("b"), key("a")]).await;
        drop(turns.take(&[key("c")]).await);
        let mut context = Context::from_waker(Waker::noop());
        let (b, both) = ([key("b")], [key("b"), key("c")]);
        let (mut second, mut third) = (pin!(turns.take(&b)), pin!(turns.take(&both)));
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(third.as_mut().poll(&mut context).is_pending(), "the second came before");
        let Poll::Ready(turn) = second.as_mut().poll(&mut context) else { panic!("it is its turn") };
        drop(turn);
        drop(third.await);
        assert!(turns.items().is_empty(), "{turns:?}");
    }

    #[tokio::test]
    async fn one_that_leaves_passes_its_turn_on_and_leaves_nothing() {
        let turns = Turns::default();
        let a = [key("a")];
        let first = turns.take(&a).await;
        {
            let mut left = pin!(turns.take(&a));
            assert!(left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(first);
        drop(turns.take(&[key("a")]).await);
        assert!(turns.items().is_empty(), "{turns:?}");
    }
}
