//! Tenants of a run: one with a limit, one for which sandboxes are reserved again and again, one with neither; and what must hold
//! of them.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use broker_tests::api::TRACK_TOKEN;
use broker_tests::setup::Environment;
use broker_tests::table::now_s;
use broker_tests::{Broker, wait_for_condition};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::Value;

const LIMITED: &str = "token-of-the-limited-1";
const RESERVING: &str = "token-of-the-reserving";
/// The flavour of the sandboxes that everybody uses.
const FLAVOUR: &str = "[flavour.plain]\nprefix = \"sandbox-\"\n";
/// A reservation is made so often, in seconds, and lasts for at most [`LONGEST_S`].
pub(crate) const RESERVE_EVERY_S: u64 = 15;
const LONGEST_S: u64 = 25;
/// Every so many reservations are changed, or given up, soon after they were made.
const CHANGED: u32 = 3;

/// What the APIs know as tokens.
pub(crate) fn tokens() -> String {
    format!("platform={TRACK_TOKEN},limited={LIMITED},reserving={RESERVING}")
}

/// The token of the client with this number: those that share a track have one.
pub(crate) const fn token_of(index: usize) -> &'static str {
    match (index / 4) % 3 {
        0 => TRACK_TOKEN,
        1 => LIMITED,
        _ => RESERVING,
    }
}

/// The tracks of the limited tenant among `keys` clients.
fn limited(keys: usize) -> impl Iterator<Item = usize> {
    (0..keys).filter(|index| token_of(*index) == LIMITED)
}

/// How many sandboxes the limited tenant may have: about as many as its clients would have at a time.
pub(crate) fn limit(keys: usize) -> usize {
    (limited(keys).count() * 2 / 5).max(1)
}

/// The policy of a run with a limit, if any.
pub(crate) fn policy(limit: Option<usize>) -> String {
    let limit = limit.map(|max| format!("[tenant.limited]\nlimits = {{ plain = {max} }}\n"));
    format!("{FLAVOUR}{}", limit.unwrap_or_default())
}

/// The tracks of which at most [`limit`] may hold something at a time.
pub(crate) fn limited_tracks(keys: usize) -> BTreeSet<String> {
    limited(keys).map(|index| format!("track-{}", if index % 4 == 1 { index - 1 } else { index })).collect()
}

/// Reserves some; changes or gives up some of what was reserved before. Returns how many acts were taken.
pub(crate) async fn reserve(environment: &Environment, rng: &mut SmallRng) -> u64 {
    let from = now_s() + rng.random_range(0..5);
    let (from, until) = (at(from), at(from + rng.random_range(8..LONGEST_S)));
    let count = rng.random_range(2..12).to_string();
    let made = environment
        .cli(
            &[
                &["reservation", "create", "--tenant", "reserving", "--flavour", "plain", "--count", &count]
                    [..],
                &["--from", &from, "--until", &until, "--lead", "2s", "--no-show", "6s", "--json"][..],
            ]
            .concat(),
        )
        .await;
    let Ok(made) = serde_json::from_str::<Value>(&made.stdout) else { return 0 };
    let Some(id) = made["id"].as_str().filter(|_| rng.random_ratio(1, CHANGED)) else { return 1 };
    let count = rng.random_range(1..14).to_string();
    let changed = if rng.random_bool(0.5) {
        environment.cli(&["reservation", "change", id, "--count", &count]).await
    } else {
        environment.cli(&["reservation", "delete", id]).await
    };
    1 + u64::from(changed.code == 0)
}

fn at(seconds: u64) -> String {
    let time = DateTime::from(UNIX_EPOCH + Duration::from_secs(seconds));
    time.fmt(DateTimeFormat::DateTime).expect("a time")
}

/// Waits until what was reserved went back.
pub(crate) async fn settle(broker: &Broker) {
    wait_for_condition("what was reserved to go back", async || {
        let stats: Value = broker.cli_ok(&["pool", "stats", "--json"]).await.json();
        if stats["reserved"] == 0 && stats["arriving"] == 0 { Ok(()) } else { Err(stats) }
    })
    .await;
}
