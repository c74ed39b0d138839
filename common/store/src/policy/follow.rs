//! The follower of the policy: each process reads the item `POLICY` every two seconds and keeps the last one that it read.
//!
//! Invariant: a process knows a policy that is at most five seconds old while the table answers (a read every 2 s, given up
//! after 2 s); afterwards the last one stands. A policy that this version cannot read changes nothing; until a first one was
//! read, what depends on it is refused. Cost: one read unit for 4 KB, every two seconds, for each process.

use std::sync::Arc;
use std::time::Duration;

use broker_domain::policy::{InvalidPolicy, Policy};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::StoredPolicy;
use crate::{Store, StoreError};

/// The pause between two reads.
const EVERY: Duration = Duration::from_secs(2);
/// The pause until a first read succeeded.
const EVERY_WHILE_UNKNOWN: Duration = Duration::from_millis(250);
/// The timeout of a read.
const PATIENCE: Duration = Duration::from_secs(2);

/// The policy that a process follows; clones share it.
#[derive(Clone, Debug)]
pub struct FollowedPolicy {
    /// With its version.
    known: watch::Receiver<Option<(u64, Arc<Policy>)>>,
}

/// No policy was read yet: the table did not answer, or holds one of a newer version.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the policy is not known yet")]
pub struct PolicyUnknown;

impl FollowedPolicy {
    /// Follows the policy of `store` until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Self {
        let (found, known) = watch::channel(None);
        tokio::spawn(stop.run_until_cancelled_owned(follow(store, found)));
        Self { known }
    }

    /// One that stays as it is.
    pub fn fixed(policy: Policy) -> Self {
        Self { known: watch::channel(Some((0, Arc::new(policy)))).1 }
    }

    /// The policy now.
    pub fn now(&self) -> Result<Arc<Policy>, PolicyUnknown> {
        self.known.borrow().as_ref().map(|(_, policy)| Arc::clone(policy)).ok_or(PolicyUnknown)
    }

    /// The version of the policy now, which every change raises; 0 while none was applied or is known.
    pub fn version(&self) -> u64 {
        self.known.borrow().as_ref().map_or(0, |(version, _)| *version)
    }

    /// The policy, once one is known.
    pub async fn known(&self) -> Result<Arc<Policy>, PolicyUnknown> {
        let mut known = self.known.clone();
        let policy = known.wait_for(Option::is_some).await.map_err(|_| PolicyUnknown)?;
        policy.as_ref().map(|(_, policy)| Arc::clone(policy)).ok_or(PolicyUnknown)
    }

    /// Until a policy is followed of which `holds` is true; for ever if none is.
    pub async fn until(&self, mut holds: impl FnMut(&Policy) -> bool) {
        let mut known = self.known.clone();
        let found = known.wait_for(|known| known.as_ref().is_some_and(|(_, policy)| holds(policy)));
        if found.await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether a policy, or that there is none, is known.
    pub fn is_known(&self) -> bool {
        self.known.borrow().is_some()
    }
}

async fn follow(store: Store, found: watch::Sender<Option<(u64, Arc<Policy>)>>) {
    // From 0 on: a counter that begins at 1 has not increased, for Prometheus, and triggers no alert.
    ["invalid", "no_answer"].into_iter().for_each(|reason| unread(reason).absolute(0));
    let (mut version, mut complained) = (None, false);
    loop {
        match read(&store, version).await {
            Ok(None) => complained = false,
            Ok(Some((read, policy))) => {
                tracing::info!(version = read.version, digest = read.digest, "policy followed");
                metrics::gauge!("broker_policy_version").set(read.version as f64);
                version = Some(read.version);
                found.send_replace(Some((read.version, Arc::new(policy))));
                complained = false;
            }
            Err(error) => {
                unread(error.reason()).increment(1);
                if !complained {
                    tracing::warn!("the policy could not be read, the last one stands: {error}");
                }
                complained = true;
            }
        }
        let pause = if version.is_some() { EVERY } else { EVERY_WHILE_UNKNOWN };
        sleep(pause).await;
    }
}

fn unread(reason: &'static str) -> metrics::Counter {
    metrics::counter!("broker_policy_unread_total", "reason" => reason)
}

/// Why the policy was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the table does not answer")]
    NoAnswer,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its text is not one of this version: {0}")]
    Invalid(#[from] InvalidPolicy),
}

impl Unread {
    const fn reason(&self) -> &'static str {
        match self {
            Self::NoAnswer | Self::Store(_) => "no_answer",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// The policy that stands, unless it is the one of version `known`.
async fn read(store: &Store, known: Option<u64>) -> Result<Option<(StoredPolicy, Policy)>, Unread> {
    let stands = timeout(PATIENCE, store.policy.get()).await.map_err(|_elapsed| Unread::NoAnswer)??;
    let stands = stands.unwrap_or_else(StoredPolicy::none);
    if known == Some(stands.version) {
        return Ok(None);
    }
    let policy = stands.policy()?;
    Ok(Some((stands, policy)))
}
