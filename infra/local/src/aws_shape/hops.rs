//! Durations of calls to AWS, drawn from distributions: modelled from published figures, not measured by us.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::ShapedService;

/// The part of the calls that take some time more, and how much.
const SLOW: f64 = 0.01;
const SLOW_TAKES_MS: (u64, u64) = (40, 150);
/// The part of the calls that take very long, and how much more.
const VERY_SLOW: f64 = 0.001;
const VERY_SLOW_TAKES_MS: (u64, u64) = (300, 800);

fn between(rng: &mut SmallRng, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}

/// A call and its answer: SQS 8 to 25 ms, DynamoDB 4 to 12 ms, the shorter times more often; and tails.
pub(super) fn both_ways(service: ShapedService, rng: &mut SmallRng) -> Duration {
    let (least, most) = match service {
        ShapedService::Sqs => (8.0, 25.0),
        ShapedService::DynamoDb => (4.0, 12.0),
    };
    let drawn: f64 = rng.random_range(0.0..1.0);
    let usual = Duration::from_secs_f64((least + (most - least) * drawn * drawn) / 1_000.0);
    if rng.random_bool(VERY_SLOW) {
        usual + between(rng, VERY_SLOW_TAKES_MS)
    } else if rng.random_bool(SLOW) {
        usual + between(rng, SLOW_TAKES_MS)
    } else {
        usual
    }
}

/// For how long a transaction has its items: others that come meanwhile meet it.
pub(super) fn in_transaction(rng: &mut SmallRng) -> Duration {
    between(rng, (2, 6))
}

/// How much later than the table the index shows a change: mostly soon.
pub(super) fn index_follows_after(rng: &mut SmallRng) -> Duration {
    if rng.random_bool(0.1) { between(rng, (500, 3_000)) } else { between(rng, (100, 500)) }
}

/// For how long a queue that was deleted takes messages.
pub(super) fn deleted_queue_lingers(rng: &mut SmallRng) -> Duration {
    between(rng, (5_000, 60_000))
}

/// For how long a queue that was deleted lets itself be polled: what polls it learns sooner.
pub(super) fn deleted_queue_is_polled(rng: &mut SmallRng) -> Duration {
    between(rng, (0, 3_000))
}

/// How much later ListQueues knows a new queue.
pub(super) fn new_queue_is_listed_after(rng: &mut SmallRng) -> Duration {
    between(rng, (100, 3_000))
}

/// How long credentials take; one in twenty takes 4 s.
pub(super) fn credentials_take(rng: &mut SmallRng) -> Duration {
    if rng.random_bool(0.05) { Duration::from_secs(4) } else { between(rng, (5, 60)) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn calls_take_what_they_take_at_aws_and_a_few_much_longer() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (service, least, most) in [(ShapedService::Sqs, 8, 25), (ShapedService::DynamoDb, 4, 12)] {
            let mut drawn: Vec<_> = (0..10_000).map(|_| both_ways(service, &mut rng).as_millis()).collect();
            drawn.sort_unstable();
            assert!(drawn[0] >= least, "{}", drawn[0]);
            assert!(drawn[9_800] <= most, "{}", drawn[9_800]);
            assert!(drawn[9_999] >= 300, "{}", drawn[9_999]);
        }
    }
}
