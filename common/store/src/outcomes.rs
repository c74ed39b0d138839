//! Questions to the table, and its answers.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use super::dynamodb::{ForeignRow, PK, SK};

use broker_domain::{
    AllocateRequest, AllocationId, ExternalId, ForeignSandbox, Lease, LeaseKey, PersistedRequest, Sandbox,
    SandboxId, SandboxName, Timestamp,
};

/// DynamoDB: the longest keys, in bytes. A cursor has two characters a byte.
const LONGEST_PK: usize = 2_048;
const LONGEST_SK: usize = 1_024;
const LONGEST_CURSOR: usize = 2 * (LONGEST_PK + LONGEST_SK + 1);

/// Why the table could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another transaction holds an item just now; nothing was changed. Ask again after a jittered moment.
    #[error("another transaction is in progress on the same items")]
    Conflict,
    /// The table did not answer, or not in time; whether a write took effect is unknown.
    #[error("the table did not answer: {operation}")]
    Unavailable {
        /// Which call.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table does not exist.
    #[error("there is no table {table}: run `broker init`")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// The table refuses the call: a mistake of ours or missing rights. Asking again does not help.
    #[error("the table refuses {operation}")]
    Refused {
        /// Which call.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item is not as this program writes it.
    #[error("item {item} has no valid {attribute}")]
    Malformed {
        /// Its partition key.
        item: String,
        /// What is wrong with it.
        attribute: &'static str,
    },
}

impl StoreError {
    /// The word for it in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::NoTable { .. } => "no_table",
            Self::Refused { .. } => "refused",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Whether asking again later can help.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict | Self::Unavailable { .. } | Self::NoTable { .. } => true,
            Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// A sandbox, as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Ours.
    pub sandbox_id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The version at which it is claimed or changed, or not at all.
    pub version: u64,
}

/// A page of one state and shard.
#[derive(Clone, Debug, Default)]
pub struct CandidatePage {
    /// In the order of the index: available ones by name, others by the time at which a job asks for them.
    pub candidates: Vec<Candidate>,
    /// Where to go on in this shard; none at its end.
    pub next: Option<PageKey>,
}

/// Where a page of the index or of the table ended. Opaque outside the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PageKey(pub(super) HashMap<String, AttributeValue>);

impl PageKey {
    /// As text that a client may keep for a while; only [`PageKey::parse`] knows what is in it. Keys of the table only.
    pub fn encode(&self) -> String {
        let part =
            |name: &str| self.0.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
        format!("{}\n{}", part(PK), part(SK)).bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From what [`PageKey::encode`] wrote; `None` for anything else.
    pub fn parse(encoded: &str) -> Option<Self> {
        if !encoded.is_ascii() || !encoded.len().is_multiple_of(2) || encoded.len() > LONGEST_CURSOR {
            return None;
        }
        let bytes = (0..encoded.len()).step_by(2).map(|at| u8::from_str_radix(&encoded[at..at + 2], 16).ok());
        let text = String::from_utf8(bytes.collect::<Option<_>>()?).ok()?;
        let fits = |(pk, sk): &(&str, &str)| {
            (1..=LONGEST_PK).contains(&pk.len()) && (1..=LONGEST_SK).contains(&sk.len())
        };
        let (pk, sk) = text.split_once('\n').filter(fits)?;
        let attribute = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
        let key = Self([attribute(PK, pk), attribute(SK, sk)].into());
        // One key has one text: digits have no sign, and letters no other case.
        (key.encode() == encoded).then_some(key)
    }
}

/// A page of candidates of all shards.
#[derive(Clone, Debug, Default)]
pub struct SweepPage {
    /// In no particular order.
    pub candidates: Vec<Candidate>,
    /// Where to go on; none at the end.
    pub next: Option<SweepKey>,
}

/// Where a page of a sweep ended. Opaque outside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepKey(pub(super) String);

/// One attempt to satisfy a request with one candidate.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The request.
    pub ask: &'a AllocateRequest,
    /// The sandbox to try.
    pub candidate: &'a Candidate,
    /// The new allocation's id.
    pub allocation_id: AllocationId,
    /// The time of the claim.
    pub now: Timestamp,
}

impl Claim<'_> {
    /// When the lease that this claim makes is over.
    pub fn expires_at(&self) -> Timestamp {
        self.now.floor_to_second().plus(Duration::from_secs(u64::from(self.ask.lab_duration_hours) * 3_600))
    }
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The sandbox and the lease are the request's, and its record (if asynchronous) says so.
    Created(broker_domain::Grant),
    /// The lease's condition failed; this is the lease that stands there. [`broker_domain::judge`] tells what it means.
    LeaseStands(Box<Lease>),
    /// The asynchronous request is not queued any more: cancelled, expired or done.
    RequestEnded,
    /// Somebody else has the sandbox, or it changed.
    LostCandidate,
}

/// What became of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOutcome {
    /// Lease and sandbox are ended.
    Ended,
    /// They were not as they were read: read again.
    MovedOn,
}

/// Whether a request's record is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was written.
    New,
    /// One was there already: a worker was faster, or this is a repetition.
    AlreadyThere(Box<PersistedRequest>),
}

/// What became of an outcome that was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It is stored.
    Stored,
    /// The request had ended before; that outcome stays.
    EndedBefore(Box<PersistedRequest>),
}

/// What became of a cancellation.
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
    /// Their records.
    pub requests: Vec<PersistedRequest>,
    /// Where to go on; none at the end.
    pub next: Option<PageKey>,
}

/// A sandbox to put into the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSandbox {
    /// Ours.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
}

/// What one page of a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanPage {
    /// Sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Leases, live and ended.
    pub leases: Vec<Lease>,
    /// What is wrong with items that are neither, though their keys say so.
    pub unreadable: Vec<String>,
    /// Where to go on; none at the end.
    pub next: Option<PageKey>,
}

/// What one page of a scan found of a pool that another tool may have filled.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Sandboxes as the other tool left them.
    pub foreign: Vec<(ForeignSandbox, ForeignRow)>,
    /// How many sandboxes are ours already.
    pub ours: u64,
    /// The keys that hold a live lease.
    pub held: Vec<LeaseKey>,
    /// Every sandbox's partition key, and its row as one number.
    pub digests: Vec<(String, u64)>,
    /// What is wrong with sandboxes that cannot be taken over.
    pub unreadable: Vec<String>,
    /// Where to go on; none at the end.
    pub next: Option<PageKey>,
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
