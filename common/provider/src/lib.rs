//! Client of the provider's HTTP API (ARCHITECTURE.md, "Provider"), and of the operator's [`hooks`].
//!
//! Invariants: no call is unbounded; while the [`Breaker`] is open, or the provider asked to wait, no call is made; a list
//! is complete or an error, never a part; a URL from a list or a redirect is requested at our own base, so the token goes
//! nowhere else; a deletion counts as failed only if the answer is about its account. Retries are the next run's, the rate
//! is the table's, and the decision about a sandbox is the caller's.

mod account;
mod attributes;
mod breaker;
mod call;
mod deletion;
mod error;
mod evidence;
pub mod hooks;
mod http;
mod list;
mod listed;
mod origin;
mod page;
mod rest;
mod row;
mod says;
mod tally;
#[cfg(test)]
mod tests;

pub use account::{Account, AccountId};
pub use breaker::{Breaker, BreakerState};
pub use error::{Deleted, NotDeleted, ProviderError};
pub use listed::Listed;
pub use tally::{ListedRow, Mark, Rows, Sighting, Tally};

use self::evidence::Evidence;
use self::http::Http;
use self::rest::Rest;
use broker_domain::AttributeNames;
use broker_runtime::clock::Clock;
use broker_runtime::config::ProviderConfig;

/// The provider, seen by one process. Clones share the breaker, the rest and the connections.
#[derive(Clone, Debug)]
pub struct Provider {
    http: Http,
    breaker: Breaker,
    rest: Rest,
    evidence: Evidence,
    /// The members of a row that are kept.
    attributes: AttributeNames,
    clock: Clock,
}

impl Provider {
    /// A client for `config`; nothing is asked yet.
    pub fn new(config: &ProviderConfig, clock: Clock) -> Result<Self, ProviderError> {
        Ok(Self {
            http: Http::new(config, clock.clone())?,
            breaker: Breaker::new(),
            rest: Rest::default(),
            evidence: Evidence::default(),
            attributes: AttributeNames::default(),
            clock,
        })
    }

    /// The same client; its lists have these members of each row.
    pub fn keeping(self, attributes: AttributeNames) -> Self {
        Self { attributes, ..self }
    }

    /// The breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}
