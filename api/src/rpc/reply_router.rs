//! Reply router: delivers each reply to the call that waits for it.
//!
//! Invariant: a waiter is in the map exactly as long as it lives or until its reply came, so the map cannot leak and its size
//! is the number of pending replies. A reply without a waiter is counted and dropped: its outcome is stored, or the caller
//! may safely repeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_domain::{Outcome, RequestId, TenantName};
use broker_messages::Reply;
use tokio::sync::oneshot;

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The waiters. Clones share the map.
#[derive(Clone, Debug)]
pub(crate) struct ReplyRouter {
    waiting: Arc<Mutex<WaitingCalls>>,
    most: usize,
    most_of_tenant: usize,
}

#[derive(Debug, Default)]
struct WaitingCalls {
    replies: HashMap<RequestId, oneshot::Sender<Outcome>>,
    /// How many waiters each tenant has.
    of_tenants: HashMap<TenantName, usize>,
}

impl ReplyRouter {
    /// A router for at most `most` pending replies, and `most_of_tenant` of one tenant.
    pub(crate) fn new(most: usize, most_of_tenant: usize) -> Self {
        Self { waiting: Arc::default(), most, most_of_tenant }
    }

    /// Registers a waiter for the reply to `id`, unless too many wait already, of all or of `tenant`.
    pub(crate) fn register(&self, id: RequestId, tenant: Option<&TenantName>) -> Result<Waiter, Problem> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.replies.len() >= self.most {
            return Err(Problem::new(Code::Overloaded, "Too many requests wait for their replies."));
        }
        let of_tenant = |tenant| waiting.of_tenants.get(tenant).copied().unwrap_or_default();
        if tenant.is_some_and(|tenant| of_tenant(tenant) >= self.most_of_tenant) {
            return Err(Problem::new(
                Code::Overloaded,
                "Too many requests of this token wait for their replies.",
            ));
        }
        if let Some(tenant) = tenant {
            *waiting.of_tenants.entry(tenant.clone()).or_default() += 1;
        }
        waiting.replies.insert(id, sender);
        Ok(Waiter { replies: self.clone(), id, tenant: tenant.cloned(), receiver })
    }

    /// Delivers `reply`; returns whether a call waited for it.
    pub(crate) fn deliver(&self, reply: Reply) -> bool {
        let sender = self.waiting().replies.remove(&reply.request_id);
        sender.is_some_and(|sender| sender.send(reply.outcome).is_ok())
    }

    /// The number of pending replies.
    pub(crate) fn pending(&self) -> usize {
        self.waiting().replies.len()
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingCalls> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered waiter; dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Waiter {
    replies: ReplyRouter,
    id: RequestId,
    tenant: Option<TenantName>,
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
        let mut waiting = self.replies.waiting();
        waiting.replies.remove(&self.id);
        let Some(tenant) = &self.tenant else { return };
        if let Some(count) = waiting.of_tenants.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                waiting.of_tenants.remove(tenant);
            }
        }
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
        let replies = ReplyRouter::new(10, 10);
        let ids: Vec<_> = ids().take(2).collect();
        let mut first = replies.register(ids[0], None).unwrap();
        let mut second = replies.register(ids[1], None).unwrap();
        assert!(replies.deliver(Reply::new(ids[1], Outcome::NotOwner)));
        assert!(replies.deliver(Reply::new(ids[0], Outcome::NoSandboxes)));
        assert_eq!(first.reply().await, Outcome::NoSandboxes);
        assert_eq!(second.reply().await, Outcome::NotOwner);
        assert_eq!(replies.pending(), 0);
    }

    #[tokio::test]
    async fn a_reply_that_comes_between_two_waits_is_kept() {
        let replies = ReplyRouter::new(10, 10);
        let id = ids().next().unwrap();
        let mut waiter = replies.register(id, None).unwrap();
        assert!(timeout(Duration::from_millis(1), waiter.reply()).await.is_err());
        assert!(replies.deliver(Reply::new(id, Outcome::Expired)));
        assert_eq!(waiter.reply().await, Outcome::Expired);
    }

    #[tokio::test]
    async fn a_duplicate_and_a_stranger_wake_nobody() {
        let replies = ReplyRouter::new(10, 10);
        let id = ids().next().unwrap();
        let mut waiter = replies.register(id, None).unwrap();
        assert!(replies.deliver(Reply::new(id, Outcome::Expired)));
        assert!(!replies.deliver(Reply::new(id, Outcome::NoSandboxes)));
        assert_eq!(waiter.reply().await, Outcome::Expired);
        assert!(!replies.deliver(Reply::new(ids().last_of(3), Outcome::Expired)));
    }

    #[test]
    fn a_waiter_that_leaves_makes_room() {
        let replies = ReplyRouter::new(2, 2);
        let ids: Vec<_> = ids().take(3).collect();
        let first = replies.register(ids[0], None).unwrap();
        let _second = replies.register(ids[1], None).unwrap();
        assert_eq!(replies.register(ids[2], None).unwrap_err().code(), Code::Overloaded);
        assert_eq!(replies.pending(), 2);
        drop(first);
        assert!(replies.register(ids[2], None).is_ok());
    }

    #[test]
    fn a_tenant_that_has_its_bound_does_not_stop_another_one() {
        let replies = ReplyRouter::new(3, 1);
        let ids: Vec<_> = ids().take(4).collect();
        let [greedy, other] = ["greedy", "other"].map(|name| TenantName::new(name).unwrap());
        let first = replies.register(ids[0], Some(&greedy)).unwrap();
        assert_eq!(replies.register(ids[1], Some(&greedy)).unwrap_err().code(), Code::Overloaded);
        let _second = replies.register(ids[2], Some(&other)).unwrap();
        drop(first);
        let _third = replies.register(ids[1], Some(&greedy)).unwrap();
        assert_eq!(replies.waiting().of_tenants.len(), 2);
        drop((_second, _third));
        assert!(replies.waiting().of_tenants.is_empty());
    }

    trait LastOf: Iterator + Sized {
        fn last_of(self, count: usize) -> Self::Item {
            self.take(count).last().expect("more than none")
        }
    }

    impl<I: Iterator> LastOf for I {}
}
