//! The policy in the table: stored, applied, and followed by every process.
//!
//! Invariant: what is applied replaces the policy that the caller saw, or nothing; the same policy again changes nothing.

mod follow;

pub use follow::{FollowedPolicy, PolicyUnknown};

use broker_domain::policy::{Change, InvalidPolicy, Policy};
use broker_domain::{Limit, Timestamp};

use crate::{Store, StoreError, Write};

/// A policy as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its canonical text.
    pub text: String,
    /// The digest of that text.
    pub digest: String,
    /// Raised by every change; 0 while none was ever applied.
    pub version: u64,
    /// When it was applied.
    pub applied_at: Timestamp,
    /// Who applied it.
    pub applied_by: String,
}

impl StoredPolicy {
    /// What stands for a policy while none was ever applied.
    pub fn none() -> Self {
        Self::of(&Policy::default(), 0, Timestamp::from_ms(0), "")
    }

    fn of(policy: &Policy, version: u64, applied_at: Timestamp, by: &str) -> Self {
        let (text, digest) = (policy.to_toml(), policy.digest().to_string());
        Self { text, digest, version, applied_at, applied_by: by.to_owned() }
    }

    /// The policy; the error is that of a text which a newer version wrote.
    pub fn policy(&self) -> Result<Policy, InvalidPolicy> {
        Policy::parse(&self.text)
    }
}

/// A change of the policy that is planned: what stands, and what would stand.
#[derive(Clone, Debug)]
pub struct PolicyPlan {
    /// What stands.
    pub before: StoredPolicy,
    /// What differs, by key. A text of a newer version cannot be compared: all of the new one is told as added.
    pub changes: Vec<Change>,
    /// What is held under limits that the new policy does not have. A limit is about a prefix: one of another prefix
    /// begins at 0.
    pub uncounted: Vec<HeldPermits>,
    after: Policy,
}

/// The permits of a limit that are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPermits {
    /// The limit.
    pub limit: Limit,
    /// How many.
    pub held: u64,
}

/// The outcome of an application of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyWrite {
    /// It is in force now.
    Applied(StoredPolicy),
    /// Another one was applied meanwhile.
    MovedOn,
}

impl PolicyPlan {
    /// The plan to put `after` in the place of what stands now (a consistent read).
    pub async fn new(store: &Store, after: Policy) -> Result<Self, StoreError> {
        let before = store.policy.get().await?.unwrap_or_else(StoredPolicy::none);
        let stands = before.policy().unwrap_or_default();
        let (changes, mut uncounted) = (stands.changes(&after), Vec::new());
        for limit in stands.limits().filter(|limit| !after.limits().any(|after| after == *limit)) {
            let held = store.permits.slots(&limit).await?.len() as u64;
            if held > 0 {
                uncounted.push(HeldPermits { limit, held });
            }
        }
        Ok(Self { before, changes, uncounted, after })
    }

    /// Whether that policy stands already: there is nothing to write.
    pub fn is_done(&self) -> bool {
        self.before.digest == self.after.digest().as_str()
    }

    /// Writes it, if what was read still stands. An answer that was lost is found out: the same policy by the same caller at
    /// the next version is this write's.
    pub async fn apply(&self, store: &Store, by: &str, now: Timestamp) -> Result<PolicyWrite, StoreError> {
        let after = StoredPolicy::of(&self.after, self.before.version + 1, now.floor_to_second(), by);
        let seen = (self.before.version > 0).then_some(self.before.version);
        match store.policy.put(&after, seen).await? {
            Write::Applied => Ok(PolicyWrite::Applied(after)),
            Write::Rejected(()) => {
                let stands = store.policy.get().await?;
                Ok(if stands.as_ref() == Some(&after) {
                    PolicyWrite::Applied(after)
                } else {
                    PolicyWrite::MovedOn
                })
            }
        }
    }
}
