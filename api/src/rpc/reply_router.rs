//! Reply router: delivers each reply to the call that waits for it.
//!
//! Invariant: a waiter is in the map exactly as long as it lives or until its reply came, so the map cannot leak and its size
//! is the number of pending replies. A reply without a waiter is counted and dropped: its outcome is stored, or the caller
//! may safely repeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::{Outcome, RequestId};
use broker_messages::Reply;
use tokio::sync::oneshot;

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The waiters. Clones share the map.
#[derive(Clone, Debug)]
pub(crate) struct ReplyRouter {
    waiting: Arc<Mutex<HashMap<RequestId, oneshot::Sender<Outcome>>>>,
    most: usize,
}

impl ReplyRouter {
    /// A router for at most `most` pending replies.
    pub(crate) fn new(most: usize) -> Self {
        Self { waiting: Arc::default(), most }
    }

    /// Registers a waiter for the reply to `id`, unless too many wait already.
    pub(crate) fn register(&self, id: RequestId) -> Result<Waiter, Problem> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= self.most {
            return Err(Problem::new(Code::Overloaded, "Too many requests wait for their replies."));
        }
        waiting.insert(id, sender);
        Ok(Waiter { replies: self.clone(), id, receiver })
    }

    /// Delivers `reply`; returns whether a call waited for it.
    pub(crate) fn deliver(&self, reply: Reply) -> bool {
        let sender = self.waiting().remove(&reply.request_id);
        sender.is_some_and(|sender| sender.send(reply.outcome).is_ok())
    }

    /// The number of pending replies.
    pub(crate) fn pending(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered waiter; dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Waiter {
    replies: ReplyRouter,
    id: RequestId,
    receiver: oneshot::Receiver<Outcome>,
}

impl Waiter {
    /// The reply, when it comes. May be dropped and called again: no reply in between is lost. After the reply was taken it
    /// waits forever.
    pub(crate) async fn reply(&mut self) -> Outcome {
        match (&mut self.receiver).await {
            Ok(outcome) => outcome,
            Err(_gone) => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.replies.waiting().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;
    use tokio::time::timeout;

    use super::*;

    fn ids() -> impl Iterator<Item = RequestId> {
        let entropy = Entropy::seeded(7);
        std::iter::repeat_with(move || entropy.request_id(Timestamp::from_secs(1)))
    }

    #[tokio::test]
    async fn each_waiter_gets_its_own_reply() {
        let replies = ReplyRouter::new(10);
        let ids: Vec<_> = ids().take(2).collect();
        let mut first = replies.register(ids[0]).unwrap();
        let mut second = replies.register(ids[1]).unwrap();
        assert!(replies.deliver(Reply::new(ids[1], Outcome::NotOwner)));
        assert!(replies.deliver(Reply::new(ids[0], Outcome::NoSandboxes)));
        assert_eq!(first.reply().await, Outcome::NoSandboxes);
        assert_eq!(second.reply().await, Outcome::NotOwner);
        assert_eq!(replies.pending(), 0);
    }

    #[tokio::test]
    async fn a_reply_that_comes_between_two_waits_is_kept() {
        let replies = ReplyRouter::new(10);
        let id = ids().next().unwrap();
        let mut waiter = replies.register(id).unwrap();
        assert!(timeout(Duration::from_millis(1), waiter.reply()).await.is_err());
        assert!(replies.deliver(Reply::new(id, Outcome::Expired)));
        assert_eq!(waiter.reply().await, Outcome::Expired);
    }

    #[tokio::test]
    async fn a_duplicate_and_a_stranger_wake_nobody() {
        let replies = ReplyRouter::new(10);
        let id = ids().next().unwrap();
        let mut waiter = replies.register(id).unwrap();
        assert!(replies.deliver(Reply::new(id, Outcome::Expired)));
        assert!(!replies.deliver(Reply::new(id, Outcome::NoSandboxes)));
        assert_eq!(waiter.reply().await, Outcome::Expired);
        assert!(!replies.deliver(Reply::new(ids().last_of(3), Outcome::Expired)));
    }

    #[test]
    fn a_waiter_that_leaves_makes_room() {
        let replies = ReplyRouter::new(2);
        let ids: Vec<_> = ids().take(3).collect();
        let first = replies.register(ids[0]).unwrap();
        let _second = replies.register(ids[1]).unwrap();
        assert_eq!(replies.register(ids[2]).unwrap_err().code(), Code::Overloaded);
        assert_eq!(replies.pending(), 2);
        drop(first);
        assert!(replies.register(ids[2]).is_ok());
    }

    trait LastOf: Iterator + Sized {
        fn last_of(self, count: usize) -> Self::Item {
            self.take(count).last().expect("more than none")
        }
    }

    impl<I: Iterator> LastOf for I {}
}
