//! Errors of the provider, and what a failed deletion means for its sandbox.

use std::time::Duration;

/// Why a call to the provider failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// It failed too often, or refuses every call: no call was made.
    #[error("no call to the provider for another {} s: {why}", again_after.as_secs())]
    BreakerOpen {
        /// How long until the next call.
        again_after: Duration,
        /// The last failure.
        why: String,
    },
    /// It asks to come again later, or did a moment ago and was not asked.
    #[error("the provider asks to slow down for {} s", again_after.as_secs())]
    RateLimited {
        /// For how long.
        again_after: Duration,
    },
    /// It does not accept our token, for this or for anything.
    #[error(
        "the provider does not accept the token (status {status}): check BROKER_PROVIDER_TOKEN and its permissions"
    )]
    Unauthorized {
        /// The status code.
        status: u16,
    },
    /// What answers is not the provider's API.
    #[error("BROKER_PROVIDER_URL is not where the provider's API is: {problem}")]
    WrongUrl {
        /// What was answered.
        problem: String,
    },
    /// It refuses this call.
    #[error("the provider refuses with {status}")]
    Refused {
        /// The status code.
        status: u16,
    },
    /// It did not answer, or not in time, or with an error of its own; whether a deletion took effect is unknown.
    #[error("the provider did not answer: {problem}")]
    Unavailable {
        /// What happened.
        problem: String,
    },
    /// Its answer is not what its API promises.
    #[error("the provider's answer is wrong: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
}

impl ProviderError {
    /// The word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::BreakerOpen { .. } => "breaker_open",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized { .. } => "unauthorized",
            Self::WrongUrl { .. } => "wrong_url",
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Whether a person has to set something before any call is answered.
    pub(crate) const fn needs_setting(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::WrongUrl { .. })
    }
}

/// A deletion that was not done, and what that means for its sandbox.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotDeleted {
    /// Why.
    pub error: ProviderError,
    /// Whether the answer is about this sandbox: then the attempt counts. Else repeat later, no attempt is spent.
    pub counts: bool,
    /// How long this sandbox is not to be asked about at least, as the answer says; of others it says nothing.
    pub rest: Duration,
}

impl NotDeleted {
    /// The answer is not about this sandbox.
    pub(super) const fn not_now(error: ProviderError) -> Self {
        Self { error, counts: false, rest: Duration::ZERO }
    }

    /// The answer is about this sandbox.
    pub(super) const fn failed(error: ProviderError) -> Self {
        Self { error, counts: true, rest: Duration::ZERO }
    }
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The provider deleted it.
    Now,
    /// The provider does not know it (any more).
    AlreadyGone,
}
