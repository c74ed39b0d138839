//! Parameters, outcomes and errors of the table's operations.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::dynamodb::{ForeignRow, PK, SK};

use broker_domain::{
    AccountRecord, AllocateRequest, AllocationId, ExternalId, ForeignSandbox, Lease, LeaseKey,
    PersistedRequest, Sandbox, SandboxId, SandboxName, Timestamp,
};

/// DynamoDB: the longest keys, in bytes. A cursor has two characters a byte.
const LONGEST_PK: usize = 2_048;
const LONGEST_SK: usize = 1_024;
const LONGEST_CURSOR: usize = 2 * (LONGEST_PK + LONGEST_SK + 1);

/// Why a call to the table failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another transaction holds an item; nothing was changed. Try again after a jittered moment.
    #[error("another transaction is in progress on the same items")]
    Conflict,
    /// The table did not answer in time; it is unknown whether a write took effect.
    #[error("the table did not answer: {operation}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table does not exist.
    #[error("there is no table {table}: run `broker init`")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// AWS does not accept this process just now: expired credentials, missing rights, a key of KMS that is off. It passes
    /// when somebody mends it; nothing was changed.
    #[error("AWS does not accept {operation} of this process: {code}")]
    Denied {
        /// Which call.
        operation: &'static str,
        /// AWS's code.
        code: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table does not take this write. It is final only if the table takes others at the same time
    /// ([`Store::takes_writes`](crate::Store::takes_writes)).
    #[error("the table refuses {operation}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item that this program did not write so.
    #[error("item {item} has no valid {attribute}")]
    Malformed {
        /// Its partition key.
        item: String,
        /// The wrong attribute.
        attribute: &'static str,
    },
}

impl StoreError {
    /// The word in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::NoTable { .. } => "no_table",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Whether a later attempt can help.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict | Self::Unavailable { .. } | Self::NoTable { .. } | Self::Denied { .. } => true,
            Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// A sandbox as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The broker's id.
    pub sandbox_id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The version at which it may be claimed or changed.
    pub version: u64,
}

/// A page of one state and shard.
#[derive(Clone, Debug, Default)]
pub struct CandidatePage {
    /// In the order of the index: available ones by name, others by their due time.
    pub candidates: Vec<Candidate>,
    /// Where the next page begins; none at the end.
    pub next: Option<PageKey>,
}

/// The end of a page of the index or of the table. Opaque outside the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PageKey(pub(super) HashMap<String, AttributeValue>);

impl PageKey {
    /// As text, for clients; opaque to them. Keys of the table only.
    pub fn encode(&self) -> String {
        let part =
            |name: &str| self.0.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
        hex::encode(format!("{}\n{}", part(PK), part(SK)))
    }

    /// From the text of [`PageKey::encode`]; `None` for any other.
    pub fn parse(encoded: &str) -> Option<Self> {
        if encoded.len() > LONGEST_CURSOR {
            return None;
        }
        let text = String::from_utf8(hex::decode(encoded).ok()?).ok()?;
        let fits = |(pk, sk): &(&str, &str)| {
            (1..=LONGEST_PK).contains(&pk.len()) && (1..=LONGEST_SK).contains(&sk.len())
        };
        let (pk, sk) = text.split_once('\n').filter(fits)?;
        let attribute = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
        let key = Self([attribute(PK, pk), attribute(SK, sk)].into());
        // One key has one text: no sign before digits, no upper case.
        (key.encode() == encoded).then_some(key)
    }
}

/// A page of candidates of all shards.
#[derive(Clone, Debug, Default)]
pub struct SweepPage {
    /// In no particular order.
    pub candidates: Vec<Candidate>,
    /// Where the next page begins; none at the end.
    pub next: Option<SweepKey>,
}

/// The end of a page of a sweep. Opaque outside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepKey(pub(super) String);

/// One attempt to claim one candidate for a request.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The request.
    pub request: &'a AllocateRequest,
    /// The candidate.
    pub candidate: &'a Candidate,
    /// The id of the new allocation.
    pub allocation_id: AllocationId,
    /// The time of the claim.
    pub now: Timestamp,
}

impl Claim<'_> {
    /// The expiry of the lease.
    pub fn expires_at(&self) -> Timestamp {
        self.now.floor_to_second().plus(self.request.lab_duration.as_duration())
    }
}

/// The outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The sandbox and the lease are the request's, and its record (if asynchronous) says so.
    Created(broker_domain::Grant),
    /// The lease's condition failed; this is the existing lease, for [`broker_domain::judge`].
    LeaseStands(Box<Lease>),
    /// The asynchronous request is not queued any more: cancelled, expired or done.
    RequestEnded,
    /// Another claim has the sandbox, or it changed.
    LostCandidate,
}

/// The outcome of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOutcome {
    /// Lease and sandbox are ended.
    Ended,
    /// They were not as they were read: read again.
    MovedOn,
}

/// The outcome of recording a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was written.
    New,
    /// There is a record: a worker was faster, or this is a repetition.
    AlreadyThere(Box<PersistedRequest>),
}

/// The outcome of storing a request's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It is stored.
    Stored,
    /// The request had ended before, and that outcome stays; or it is queued with a later deadline than the one by which
    /// it would be expired.
    EndedBefore(Box<PersistedRequest>),
}

/// The outcome of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The request is cancelled and will never claim.
    Cancelled,
    /// It ended before, or was never asynchronous.
    TooLate,
}

/// One page of requests.
#[derive(Clone, Debug, Default)]
pub struct RequestPage {
    /// The records.
    pub requests: Vec<PersistedRequest>,
    /// Where the next page begins; none at the end.
    pub next: Option<PageKey>,
}

/// A sandbox to put into the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSandbox {
    /// The broker's id.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
}

/// A page of a scan.
#[derive(Clone, Debug, Default)]
pub struct ScanPage {
    /// Sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Leases, live and ended.
    pub leases: Vec<Lease>,
    /// The records of accounts.
    pub accounts: Vec<AccountRecord>,
    /// Sandboxes whose index keys are not those of their state.
    pub misplaced: Vec<String>,
    /// The errors of items that cannot be read.
    pub unreadable: Vec<String>,
    /// Where the next page begins; none at the end.
    pub next: Option<PageKey>,
}

/// A page of a scan of a table that another tool may have filled.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Sandboxes in the form of the other tool.
    pub foreign: Vec<(ForeignSandbox, ForeignRow)>,
    /// The number of sandboxes that are in our form.
    pub ours: u64,
    /// Their accounts.
    pub accounts: Vec<ExternalId>,
    /// The keys that hold a live lease.
    pub held: Vec<LeaseKey>,
    /// Every sandbox's partition key, and the digest of its row.
    pub digests: Vec<(String, u64)>,
    /// The errors of sandboxes that cannot be adopted.
    pub unreadable: Vec<String>,
    /// Where the next page begins; none at the end.
    pub next: Option<PageKey>,
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
