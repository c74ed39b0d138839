//! Saboteur: the faults of a run and their times, drawn from the seed.

use std::time::Duration;

use broker_local::provider::account_of;
use broker_tests::proxy::{Fault, Latency, Outage, Rule, ShapedService};
use broker_tests::{Broker, FaultProxy, Provider};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep_until};

use crate::Arguments;
use crate::cast::Cast;
use crate::flavour;
use crate::history::History;
use crate::tenants;

/// The shortest interval of worker faults.
const WORKER_EVERY: Duration = Duration::from_secs(1);
/// An API dies so often, in seconds.
const API_EVERY_S: u64 = 10;
/// An endpoint is away so often, in seconds, for at most [`LONGEST_OUTAGE_MS`].
const OUTAGE_EVERY_S: u64 = 17;
const LONGEST_OUTAGE_MS: u64 = 4_000;
/// Frozen workers go on so often, in seconds: longer than the visibility timeout.
const THAW_EVERY_S: u64 = 8;
/// One in so many workers is frozen, not killed.
const FROZEN: u32 = 5;
/// The provider has another fault so often, in seconds, and is asked for its list.
const FAULT_EVERY_S: u64 = 5;
/// After the first minutes it is asked less often: a sync reads the whole table, which grows with every allocation, and the
/// embedded table does one thing at a time.
const OFTEN_S: u64 = 120;
const LATER_EVERY_S: u64 = 60;
/// A sync, as a scheduler outside starts it.
const SYNC: &str = r#"{"v":1,"body":{"kind":"start_job","job":"sync"}}"#;
/// The same of a cleanup, so often, in seconds: what is given back is deleted, or a sync and a census would read more and more,
/// and workers die in them.
const CLEANUP: &str = r#"{"v":1,"body":{"kind":"start_job","job":"cleanup"}}"#;
const CLEANUP_EVERY_S: u64 = 10;
/// Progress is told so often, in seconds.
const TOLD_EVERY_S: u64 = 15;

/// The faults so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) length: Duration,
    pub(crate) workers_killed: u64,
    pub(crate) workers_frozen: u64,
    pub(crate) apis_killed: u64,
    pub(crate) outages: u64,
    pub(crate) faults: u64,
    /// Reservations made, changed and given up.
    pub(crate) reservations: u64,
}

/// Parts of all calls that fail, by kind.
const ODDS: [(Fault, f64); 10] = [
    (Fault::Reset, 0.01),
    (Fault::LoseResponse, 0.01),
    (Fault::LateResponse, 0.002),
    (Fault::Throttle, 0.01),
    (Fault::Conflict, 0.03),
    (Fault::ServerError, 0.005),
    (Fault::ServerErrorAfterEffect, 0.005),
    (Fault::Duplicate, 0.05),
    (Fault::Reorder, 0.02),
    (Fault::FailEntry, 0.01),
];

/// Destroys things for `length`.
pub(crate) async fn rage(
    broker: &Broker,
    provider: &Provider,
    cast: &mut Cast,
    history: &History,
    arguments: &Arguments,
    length: Duration,
) -> Deeds {
    let mut rng = SmallRng::seed_from_u64(arguments.seed ^ 0x5ab0);
    let mut deeds = Deeds::default();
    let end = Instant::now() + length;
    if !arguments.peace {
        misbehave(broker.proxy());
    }
    let mut ticks = interval(WORKER_EVERY);
    let mut away = Vec::new();
    for second in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(end) => break,
        }
        if second % TOLD_EVERY_S == 0 {
            println!("{:>5} s: {} allocations, {deeds:?}", second, history.allocations());
        }
        if arguments.allocations > 0 && history.allocations() >= arguments.allocations {
            break;
        }
        away.retain(|(until, _)| *until > Instant::now());
        if arguments.peace {
            continue;
        }
        if second % arguments.strike_every_s.max(1) == 0 {
            strike_worker(cast, &mut rng, &mut deeds);
        }
        if second % THAW_EVERY_S == THAW_EVERY_S - 1 {
            cast.thaw_all();
        }
        if second % API_EVERY_S == API_EVERY_S - 1 {
            cast.kill_api(rng.random_range(0..arguments.apis));
            deeds.apis_killed += 1;
        }
        if second % OUTAGE_EVERY_S == OUTAGE_EVERY_S - 1 {
            let until = Instant::now() + Duration::from_millis(rng.random_range(500..LONGEST_OUTAGE_MS));
            away.extend(outage(broker.proxy(), &mut rng).into_iter().map(|guard| (until, guard)));
            deeds.outages += 1;
        }
        if second % FAULT_EVERY_S == FAULT_EVERY_S - 1 {
            if arguments.other.is_none() {
                let mut faults = fault(&mut rng);
                if arguments.supply {
                    flavour::hook_faults(&mut rng, &mut faults);
                }
                provider.misbehave(faults).await;
            }
            if arguments.supply {
                flavour::start_jobs(broker).await;
            }
            if second < OFTEN_S || second % LATER_EVERY_S == LATER_EVERY_S - 1 {
                let queues = broker.queues();
                queues.send(&queues.name("maintenance"), SYNC).await;
            }
            deeds.faults += 1;
        }
        if second % CLEANUP_EVERY_S == CLEANUP_EVERY_S - 1 {
            let queues = broker.queues();
            queues.send(&queues.name("maintenance"), CLEANUP).await;
        }
        if arguments.tenants && second % tenants::RESERVE_EVERY_S == 0 {
            deeds.reservations += tenants::reserve(broker, &mut rng).await;
        }
        cast.fill(broker).await;
    }
    deeds.length = history.elapsed();
    deeds
}

/// What the provider's list looks like. None of these is a reason to take anything out of the pool: a sandbox that is
/// stale in the end counts as used, and no client was told of it.
fn fault(rng: &mut SmallRng) -> Value {
    let some = format!("seed-{:06}", rng.random_range(0..4_000));
    let row = |says: Value| {
        let mut rows = json!({});
        rows[some.as_str()] = says;
        json!({ "rows": rows })
    };
    let other = format!("seed-{:06}", rng.random_range(0..4_000));
    let mut swapped = json!({});
    swapped[some.as_str()] = json!({ "csp_id": other });
    swapped[other.as_str()] = json!({ "csp_id": some });
    // An account under a second label, and a label for a second account.
    let twin = |label: &str| {
        let row = json!({ "csp_id": label, "id": account_of(&other), "name": label, "account_type": "sandbox", "state": "active" });
        json!({ "more_rows": [row] })
    };
    let faults = [
        json!({}),
        json!({ "rows": swapped }),
        twin("twin"),
        twin(&some),
        row(json!({ "name": "another name" })),
        row(json!({ "name": null })),
        row(json!({ "id": 4711 })),
        row(json!({ "csp_id": [] })),
        row(json!({ "csp_id": some.to_uppercase() })),
        row(json!({ "created_at": 1_795_873_861 })),
        json!({ "double": true, "reorder": true }),
        json!({ "shift": 7 }),
        json!({ "forget": [some], "shift": 1 }),
        json!({ "no_next": true, "count": true }),
        json!({ "more_rows": [null], "forget": [some] }),
        json!({ "next": "?page={page}", "last": "" }),
        json!({ "html": true }),
    ];
    json!({ "list": faults[rng.random_range(0..faults.len())] })
}

fn misbehave(proxy: &FaultProxy) {
    let ms = Duration::from_millis;
    let (sqs, dynamodb) = ((ms(1), ms(6)), (ms(1), ms(4)));
    proxy.set_latency(Latency { sqs, dynamodb, slow: 0.01, slow_takes: ms(60) });
    for (fault, odds) in ODDS {
        proxy.add(Rule::new(fault).chance(odds));
    }
}

fn strike_worker(cast: &mut Cast, rng: &mut SmallRng, deeds: &mut Deeds) {
    if cast.workers() == 0 {
        return;
    }
    let victim = rng.random_range(0..cast.workers());
    if rng.random_ratio(1, FROZEN) {
        cast.freeze_worker(victim);
        deeds.workers_frozen += 1;
    } else {
        cast.kill_worker(victim);
        deeds.workers_killed += 1;
    }
}

fn outage(proxy: &FaultProxy, rng: &mut SmallRng) -> Vec<broker_tests::proxy::Away> {
    let how = if rng.random_bool(0.5) { Outage::Refused } else { Outage::Silent };
    let services: &[ShapedService] = match rng.random_range(0..3) {
        0 => &[ShapedService::Sqs],
        1 => &[ShapedService::DynamoDb],
        _ => &[ShapedService::Sqs, ShapedService::DynamoDb],
    };
    services.iter().map(|service| proxy.outage(*service, how)).collect()
}
