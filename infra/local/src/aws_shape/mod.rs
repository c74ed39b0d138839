//! The AWS shape: what SQS and DynamoDB do that the embedded endpoints do not, for a relay that stands before them.
//!
//! | as AWS does | where |
//! |---|---|
//! | a call takes its time, and now and then much longer | `hops` |
//! | the index follows the table 0.1 to 3 s later | `index_lag` |
//! | transactions that meet on an item conflict; a partition takes 1,000 writes a second | `writes` |
//! | a deleted queue lingers for up to 60 s and what is sent to it is lost; a new one is listed late; short receives | `queues` |
//! | credentials that now and then take 4 s | [`credentials`] |
//!
//! It is used by `broker up --aws-latency`, through a [`Relay`], and by the fault proxy of the tests. Invariants: what it
//! answers in place of an endpoint AWS may answer; a call that it lets pass has its effect once. What it does not do: lose,
//! repeat or reorder anything (the fault proxy does), or check signatures.

pub mod credentials;
mod hops;
mod index_lag;
mod queues;
mod relay;
mod wire;
mod writes;

pub use relay::{Broken, Passing, Relay, Upstream, operation};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_runtime::clock::Clock;
use bytes::Bytes;
use http::Response;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::Value;

use index_lag::IndexLag;
use queues::Queues;
use writes::{HeldItem, Writes};

/// An answer of the JSON protocols.
pub type Answer = Response<Bytes>;

/// One of the two AWS services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShapedService {
    /// The queues.
    Sqs,
    /// The table.
    DynamoDb,
}

/// What shapes the calls of one pair of endpoints. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Shaper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    state: Mutex<ShapeState>,
}

#[derive(Debug)]
struct ShapeState {
    rng: SmallRng,
    writes: Writes,
    lag: IndexLag,
    queues: Queues,
}

impl Shaper {
    /// One that repeats its choices for the same seed and order of calls.
    pub fn new(seed: u64, clock: Clock) -> Self {
        let state = ShapeState {
            rng: SmallRng::seed_from_u64(seed),
            writes: Writes::default(),
            lag: IndexLag::default(),
            queues: Queues::default(),
        };
        Self(Arc::new(Inner { clock, state: Mutex::new(state) }))
    }

    /// How long a call takes on its way there, and back.
    pub fn hop(&self, service: ShapedService) -> (Duration, Duration) {
        let both = hops::both_ways(service, &mut self.state().rng);
        (both / 2, both / 2)
    }

    /// Whether the index shows everything that was written, and lists every queue that was made.
    pub fn is_current(&self) -> bool {
        let now = self.0.clock.instant();
        let ShapeState { writes, lag, queues, .. } = &mut *self.state();
        writes.are_over() && lag.is_current(now) && queues.are_listed(now)
    }

    /// The answer to a call, as AWS may give it.
    pub async fn carry(
        &self,
        service: ShapedService,
        operation: &str,
        body: Bytes,
        forward: &Passing,
    ) -> Result<Answer, Broken> {
        let Ok(request) = serde_json::from_slice::<Value>(&body) else {
            return forward.pass_on(operation, body).await;
        };
        match service {
            ShapedService::Sqs => self.queues(operation, request, forward).await,
            ShapedService::DynamoDb => self.table(operation, &request, body, forward).await,
        }
    }

    async fn queues(&self, operation: &str, mut request: Value, forward: &Passing) -> Result<Answer, Broken> {
        let now = self.0.clock.instant();
        let instead = {
            let ShapeState { rng, queues, .. } = &mut *self.state();
            queues.before(operation, &mut request, now, rng)
        };
        if let Some(instead) = instead {
            return Ok(instead);
        }
        let answer = forward.pass_on(operation, Bytes::from(request.to_string())).await?;
        let ShapeState { rng, queues, .. } = &mut *self.state();
        Ok(queues.after(operation, &request, answer, now, rng))
    }

    async fn table(
        &self,
        operation: &str,
        request: &Value,
        body: Bytes,
        forward: &Passing,
    ) -> Result<Answer, Broken> {
        if index_lag::reads_index(operation, request) {
            let answer = forward.pass_on(operation, body).await?;
            let now = self.0.clock.instant();
            return Ok(self.state().lag.as_seen(operation, request, answer, now));
        }
        let items = writes::items(operation, request);
        if items.is_empty() {
            return forward.pass_on(operation, body).await;
        }
        let held = match self.state().writes.begin(operation, &items) {
            Ok(keys) => HeldItem::new(self.clone(), keys),
            Err(refused) => return Ok(refused),
        };
        let indexed = items.iter().filter(|item| item.is_indexed() && operation != "TransactGetItems");
        let indexed: Vec<_> = indexed.collect();
        let projections = index_lag::projections(forward, &indexed).await?;
        let before: Vec<_> = indexed.into_iter().zip(projections).collect();
        let now = self.0.clock.instant();
        if operation != "TransactGetItems" {
            let mut state = self.state();
            let partitions = writes::partitions(&items, &before, request);
            if let Some(refused) = state.writes.throttle(operation, items.len(), partitions, now) {
                return Ok(refused);
            }
        }
        let answer = forward.pass_on(operation, body).await?;
        if operation.starts_with("Transact") {
            let takes = hops::in_transaction(&mut self.state().rng);
            tokio::time::sleep(takes).await;
        }
        if answer.status().is_success() && operation != "TransactGetItems" {
            let ShapeState { rng, lag, .. } = &mut *self.state();
            let now = self.0.clock.instant();
            for (item, was) in before {
                lag.changed(item, was, now + hops::index_follows_after(rng));
            }
        }
        drop(held);
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, ShapeState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
