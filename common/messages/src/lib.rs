//! Messages of the broker's queues: JSON, versioned, one enum per direction.
//!
//! Invariant: what cannot be understood is named, never dropped. A reader takes its own [`VERSION`] and the one before
//! it; a newer one is [`DecodeError::NewerVersion`], which a consumer puts back for a newer worker (rolling deploys).
//! The values of a message are bounded where it is decoded: ids and words by the domain's types, times by when SQS took it.
//! Sending, receiving and decisions are in other crates.

mod envelope;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod last_release;
mod maintenance;
mod reply;
mod request;
mod summary;
mod trigger;

pub use envelope::Envelope;
pub use maintenance::{MaintenanceMessage, MaintenanceTask};
pub use reply::Reply;
pub use request::{Body, Request, RequestMessage};
pub use summary::{summarize, tenant_of, with_renewed_deadline};
pub use trigger::{Incoming, ScheduledTrigger};

/// The newest version that this program writes and reads. It writes it only where a reader of the one before would do
/// something else than was asked for; all other messages are of [`OLDEST`], which every worker of the last release reads.
pub const VERSION: u32 = 2;
/// The oldest version this program reads: the one before its own.
pub const OLDEST: u32 = 1;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program; a newer worker may understand it.
    #[error("message version {found} is newer than what this program reads")]
    NewerVersion {
        /// Its version.
        found: u32,
    },
    /// Written by a program that is too old.
    #[error("message version {found} is older than {OLDEST}")]
    OlderVersion {
        /// Its version.
        found: u32,
    },
    /// It carries a time that no message of ours has.
    #[error("{field} is {ahead_s} s after SQS took the message, at most {most_s} s are possible")]
    Untimely {
        /// Which.
        field: &'static str,
        /// How far ahead it is, in seconds.
        ahead_s: u64,
        /// How far ahead it may be, in seconds.
        most_s: u64,
    },
    /// Not a message of ours.
    #[error("not a valid message: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl DecodeError {
    /// The reason code of the dead letter that such a message becomes.
    pub const fn reason_code(&self) -> &'static str {
        match self {
            Self::NewerVersion { .. } => "newer_version",
            Self::OlderVersion { .. } => "older_version",
            Self::Malformed(_) | Self::Untimely { .. } => "malformed",
        }
    }
}

#[derive(serde::Deserialize)]
struct VersionOnly {
    v: u32,
}

/// Decodes `text` as a `T`, after its version.
fn decode<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DecodeError> {
    let VersionOnly { v: found } = serde_json::from_str(text)?;
    if found > VERSION {
        Err(DecodeError::NewerVersion { found })
    } else if found < OLDEST {
        Err(DecodeError::OlderVersion { found })
    } else {
        // A message of this version asks for more than the oldest can say; what it is that this program cannot read may be newer.
        serde_json::from_str(text).map_err(|error| match found {
            OLDEST => DecodeError::Malformed(error),
            found => DecodeError::NewerVersion { found },
        })
    }
}

/// Encodes a message. The types of this crate have string keys only and cannot fail to serialize.
fn encode<T: serde::Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap_or_default()
}
