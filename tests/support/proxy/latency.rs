//! Latency of a call.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::ShapedService;

/// The time between a process and AWS, for a call and its answer together; half of it is spent on the way there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The usual time of an SQS call, least and most.
    pub sqs: (Duration, Duration),
    /// The usual time of a DynamoDB call, least and most.
    pub dynamodb: (Duration, Duration),
    /// The part of the calls that take [`Latency::slow_takes`] more.
    pub slow: f64,
    /// How much more a slow call takes.
    pub slow_takes: Duration,
}

impl Latency {
    /// The machine's own.
    pub const fn none() -> Self {
        let zero = (Duration::ZERO, Duration::ZERO);
        Self { sqs: zero, dynamodb: zero, slow: 0.0, slow_takes: Duration::ZERO }
    }

    /// Estimated latency within a region, not measured: SQS 10 to 20 ms a call, DynamoDB 3 to 8 ms, one call in a hundred
    /// 60 ms more.
    pub const fn aws() -> Self {
        let ms = Duration::from_millis;
        Self { sqs: (ms(10), ms(20)), dynamodb: (ms(3), ms(8)), slow: 0.01, slow_takes: ms(60) }
    }

    /// Half of what one call takes.
    pub(super) fn one_way(&self, service: ShapedService, rng: &mut SmallRng) -> Duration {
        let (least, most) = match service {
            ShapedService::Sqs => self.sqs,
            ShapedService::DynamoDb => self.dynamodb,
        };
        let usual = least + (most.saturating_sub(least)).mul_f64(rng.random_range(0.0..=1.0));
        let more = if rng.random_bool(self.slow) { self.slow_takes } else { Duration::ZERO };
        (usual + more) / 2
    }
}
