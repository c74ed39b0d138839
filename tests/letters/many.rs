//! Many dead letters: drained, listed by filter, half of them replayed by a process that is killed midway, replayed again.
//!
//! A quarter are allocations with time left, a quarter are past their deadline, half is unreadable. Shared by the story
//! `dead_letters` of `tests/e2e` and the command `broker-letters`.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_tests::letters::Tally;
use broker_tests::process::Process;
use broker_tests::table::{now_s, text};
use broker_tests::{Broker, FaultProxy, wait_for_condition};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) drained: Duration,
    pub(crate) listed: Duration,
    pub(crate) filtered: Duration,
    /// Letters that were replayed when the first process was killed.
    pub(crate) replayed_at_death: usize,
    pub(crate) replay: Tally,
    /// The cost of the drain, and of that replay, at AWS; only with a proxy, which counts.
    pub(crate) drain_calls: Calls,
    pub(crate) replay_calls: Calls,
}

/// Calls by operation.
pub(crate) type Calls = BTreeMap<String, u64>;

/// The calls so far of everything that goes through the proxy, if there is one.
fn calls(broker: &Broker) -> Calls {
    let tallies = broker.proxied().map(FaultProxy::tallies).unwrap_or_default();
    tallies.iter().map(|(operation, tally)| (operation.to_owned(), tally.calls)).collect()
}

fn since(before: &Calls, mut after: Calls) -> Calls {
    after
        .iter_mut()
        .for_each(|(operation, calls)| *calls -= before.get(operation).copied().unwrap_or_default());
    after.retain(|_, calls| *calls > 0);
    after
}

/// An allocate of `track`, made `ago_s` seconds ago with a deadline of 15 minutes and no waiting caller.
fn allocate(broker: &Broker, number: usize, track: &str, ago_s: u64) -> String {
    let enqueued_at_ms = (now_s() - ago_s) * 1_000;
    json!({
        "v": 1, "request_id": format!("01890a5d-ac96-774b-8000-{number:012x}"),
        "reply_to": broker.queues().name("replies-01890a5d-ac96-774b-bcce-b302099a8057"),
        "enqueued_at_ms": enqueued_at_ms, "reply_by_ms": enqueued_at_ms, "deadline_ms": enqueued_at_ms + 900_000,
        "async": false,
        "body": { "kind": "allocate", "track_id": track, "fingerprint": "f", "lab_duration_hours": 4 },
    })
    .to_string()
}

/// Tells the story with `count` letters, a multiple of four, on a pool of as many sandboxes; no worker runs at first, nor
/// at the end.
pub(crate) async fn tell(broker: &mut Broker, count: usize) -> Figures {
    let quarter = count / 4;
    let in_time = (0..quarter).map(|n| allocate(broker, n, &format!("student-{n}"), 60));
    let late = (0..quarter).map(|n| allocate(broker, quarter + n, &format!("late-{n}"), 3_600));
    let poison = (0..2 * quarter).map(|n| format!("poison {n}"));
    let bodies: Vec<_> = in_time.chain(late).chain(poison).collect();
    let queues = broker.queues();
    let (requests, maintenance) = (queues.name("requests-dlq"), queues.name("maintenance-dlq"));
    queues.send_all(&requests, &bodies[..3 * quarter]).await;
    queues.send_all(&maintenance, &bodies[3 * quarter..]).await;

    let before = calls(broker);
    let mut figures = Figures { drained: drained(broker, count).await, ..Figures::default() };
    figures.drain_calls = since(&before, calls(broker));
    broker.verify().await;
    let listed = Instant::now();
    assert_eq!(broker.letters(&[]).await.len(), count);
    figures.listed = listed.elapsed();
    let filtered = Instant::now();
    assert_eq!(broker.letters(&["--queue", "maintenance", "--kind", "unknown"]).await.len(), quarter);
    figures.filtered = filtered.elapsed();
    assert_eq!(broker.letters(&["--track", "student-1"]).await.len(), 1);

    figures.replayed_at_death = killed_midway(broker, 2 * quarter).await;
    broker.verify().await;
    let before = calls(broker);
    figures.replay = replay(broker).await;
    figures.replay_calls = since(&before, calls(broker));
    let Figures { replayed_at_death, replay, .. } = &figures;
    assert_eq!((replay.failed, replay.done), (0, (2 * quarter - replayed_at_death) as u64), "{figures:?}");
    let again = broker.replay(&["--kind", "allocate"]).await;
    assert_eq!((again.found, again.done), (0, 0), "{again:?}");

    worked_off(broker, quarter).await;
    broker.verify().await;
    assert_eq!(
        broker.stats().await.allocated,
        quarter as u64,
        "each that was in time, once, and none that was late"
    );
    assert_eq!(broker.letters(&["--state", "replayed"]).await.len(), 2 * quarter);
    assert_eq!(broker.discard(&["--kind", "unknown"]).await.done, 2 * quarter as u64);
    figures
}

/// `broker dead-letters replay`, seen by the proxy if there is one.
async fn replay(broker: &Broker) -> Tally {
    let vars = broker.process_vars();
    let vars: Vec<_> = vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let ended = broker.cli_with(&["dead-letters", "replay", "--kind", "allocate", "--json"], &vars).await;
    assert_eq!(ended.code, 0, "{ended:#?}");
    ended.json()
}

/// How long two workers take to drain all letters.
async fn drained(broker: &mut Broker, count: usize) -> Duration {
    for _ in 0..2 {
        broker.start_worker().await;
    }
    let began = Instant::now();
    let queues = broker.queues();
    let left = async || {
        let mut left = 0;
        for queue in ["requests-dlq", "maintenance-dlq"] {
            left += queues.depth(&queues.name(queue)).await.total();
        }
        left
    };
    shrinks(left).await;
    let took = began.elapsed();
    broker.stop_workers().await;
    assert_eq!(broker.open_letters().await.len(), count, "none lost, none twice");
    took
}

/// Waits until there is nothing left, however long it takes, as long as it gets less.
async fn shrinks(left: impl AsyncFn() -> u64) {
    let mut last = u64::MAX;
    while last > 0 {
        last =
            wait_for_condition("dead letters to be drained, or requests to be done", async || {
                match left().await {
                    less if less < last => Ok(less),
                    same => Err(same),
                }
            })
            .await;
    }
}

/// Starts a replay of `count` letters and kills it once some of them are replayed; how many were.
async fn killed_midway(broker: &Broker, count: usize) -> usize {
    // Slow enough to be met in the middle.
    let rate = (count / 10).to_string();
    let args = ["dead-letters", "replay", "--kind", "allocate", "--rate", &rate];
    let mut replay = Process::start("broker", &mut broker.cli_command(&args));
    let queues = broker.queues();
    wait_for_condition("some letters to be sent", async || match queues.requests().await.total() {
        sent if sent as usize >= count / 8 => Ok(()),
        sent => Err(sent),
    })
    .await;
    replay.signal(Signal::SIGKILL);
    replay.ended().await;
    let letters = broker.all_letters().await;
    let replayed = letters.iter().filter(|letter| letter["state"] == text("replayed")).count();
    assert!((1..count).contains(&replayed), "midway: {replayed} of {count}");
    replayed
}

/// Lets workers do what was sent again: `allocations` of it are claims.
async fn worked_off(broker: &mut Broker, allocations: usize) {
    for _ in 0..2 {
        broker.start_worker().await;
    }
    let queues = broker.queues();
    shrinks(async || queues.requests().await.total()).await;
    wait_for_condition("the allocations", async || match broker.stats().await.allocated {
        done if done as usize == allocations => Ok(()),
        done => Err(done),
    })
    .await;
    broker.stop_workers().await;
}
