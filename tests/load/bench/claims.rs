//! Raw rate of claims: the claim's own transactions, without HTTP, queues or workers.
//!
//! The difference to this rate is the cost of the broker's own work. The same code writes the same items (the store of the
//! workers), at the batch size and with as many clients as the run that it is compared with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_domain::{
    AllocateRequest, Fingerprint, IdempotencyKey, LabDuration, LeaseKey, SandboxId, Times, TrackId,
};
use broker_runtime::aws;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, Claim, ClaimOutcome, Pages, Store};
use broker_tests::{Broker, Setup};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Shards of the index, as configured by default.
const SHARDS: u8 = 16;

/// Claims per second by `clients` stores, each with `batch` claims under way, for as long as the pool lasts.
pub(crate) async fn raw_rate(clients: usize, batch: usize, pool: usize) -> f64 {
    let broker = Broker::start(Setup::new().alone().apis(0).workers(0).pool(pool)).await;
    let clock = Clock::system();
    let (url, table) = (broker.dynamodb_url(), broker.table_name());
    let mut stores = Vec::new();
    for _ in 0..clients {
        let aws = aws::connect_locally(url, url, &clock, Duration::from_secs(1));
        stores.push(Store::new(aws.dynamodb.clone(), table, SHARDS));
    }
    let candidates = Arc::new(listed(&stores[0]).await);
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut claiming = JoinSet::new();
    for store in stores {
        for _ in 0..batch {
            let (store, clock) = (store.clone(), clock.clone());
            let (candidates, next) = (Arc::clone(&candidates), Arc::clone(&next));
            claiming.spawn(async move {
                let entropy = Entropy::from_system();
                while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
                    claim(&store, &clock, &entropy, candidate).await;
                }
            });
        }
    }
    while claiming.join_next().await.is_some() {}
    let rate = candidates.len() as f64 / began.elapsed().as_secs_f64();
    broker.finish().await;
    rate
}

/// Everything that is available.
async fn listed(store: &Store) -> Vec<Candidate> {
    let mut listed = Vec::new();
    for shard in 0..SHARDS {
        let mut pages = Pages::new(|after| store.sandboxes.available(shard, None, after, 1_000));
        while let Some(page) = pages.next().await.expect("the table answers") {
            listed.extend(page);
        }
    }
    listed
}

async fn claim(store: &Store, clock: &Clock, entropy: &Entropy, candidate: &Candidate) {
    let now = clock.now();
    let track = track_of(&candidate.sandbox_id);
    let ask = AllocateRequest {
        request_id: entropy.request_id(now),
        fingerprint: Fingerprint::of([Some(track.as_str())]),
        lease_key: LeaseKey { key: IdempotencyKey::new(track.as_str()).expect("an id"), track },
        key_is_explicit: false,
        track_name: None,
        prefix: None,
        lab_duration: LabDuration::new(4).expect("a duration"),
        heartbeat: None,
        may_wait: false,
        limited: false,
        tenant: None,
        asynchronous: false,
        times: Times { enqueued_at: now, reply_by: now, deadline: now },
    };
    let claim = Claim {
        request: &ask,
        candidate,
        allocation_id: entropy.allocation_id(),
        now,
        listed: broker_domain::Status::Available,
        from_line: false,
        permit: None,
    };
    let outcome = store.leases.claim(&claim).await.expect("the table answers");
    assert!(matches!(outcome, ClaimOutcome::Created(_)), "no other request claims here: {outcome:?}");
}

fn track_of(sandbox: &SandboxId) -> TrackId {
    TrackId::new(format!("track-{sandbox}")).expect("an id")
}
