//! Randomness: the source of ids and jitter, passed to the code that needs it.
//!
//! This module alone draws from the operating system. A seeded source repeats a run's choices; ids minted from it are
//! unique only within that run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use uuid::Uuid;

use broker_domain::{AllocationId, RequestId, Timestamp};

/// A source of ids and jitter; clones share their state.
#[derive(Clone, Debug)]
pub struct Entropy(Arc<Mutex<SmallRng>>);

impl Entropy {
    /// Seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place that draws from the operating system")]
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(SmallRng::from_rng(&mut rand::rng()))))
    }

    /// A source that repeats its choices for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request id (UUID v7, RFC 9562): sorts by `now`.
    pub fn request_id(&self, now: Timestamp) -> RequestId {
        RequestId::from_uuid(
            uuid::Builder::from_unix_timestamp_millis(now.as_ms(), &self.bytes()).into_uuid(),
        )
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut random = [0; N];
        self.with(|rng| rng.fill_bytes(&mut random));
        random
    }

    /// An allocation id.
    pub fn allocation_id(&self) -> AllocationId {
        AllocationId::from_uuid(self.uuid())
    }

    /// A random UUID (v4).
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A duration between half of `duration` and all of it ("equal jitter").
    pub fn jitter(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.with(|rng| rng.random_range(0.5..=1.0)))
    }

    /// A number from 0 to 1.
    pub fn unit(&self) -> f64 {
        self.with(|rng| rng.random_range(0.0..1.0))
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&self, bound: usize) -> usize {
        self.with(|rng| rng.random_range(0..bound))
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        use rand::seq::SliceRandom as _;
        self.with(|rng| items.shuffle(rng));
    }
}
