//! End of a run: the sandboxes that clients hold, compared with the table.

use std::collections::{BTreeMap, BTreeSet};

use broker_tests::cli::Stats;
use broker_tests::queues::{Depth, Queues};
use broker_tests::{Broker, wait_for_condition, wait_for_condition_up_to};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout_at};

use crate::cast::Cast;
use crate::history::Key;
use crate::track::Settled;

/// How long the clients may take to finish: the deadline of a request, twice.
const SETTLES_WITHIN: Duration = Duration::from_secs(150);

/// SQS: the longest delay, and a minute.
const LONGEST_DELAY: Duration = Duration::from_secs(16 * 60);

/// The sandboxes of every client, and the number of grants.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) holds: BTreeMap<Key, String>,
    pub(crate) keys: usize,
    /// Keys that did not come to an end although all was calm.
    pub(crate) stuck: usize,
    /// Sandboxes that were used, by the table.
    pub(crate) used: u64,
    pub(crate) dead_letters: usize,
}

/// Waits until everybody has settled.
///
/// # Panics
///
/// When a client did: an answer broke what holds for every answer.
pub(crate) async fn everybody(mut tracks: JoinSet<Settled>) -> State {
    let mut state = State::default();
    let end = Instant::now() + SETTLES_WITHIN;
    while let Ok(Some(settled)) = timeout_at(end, tracks.join_next()).await {
        let Settled { key, holds } = settled.expect("a client did not panic");
        state.keys += 1;
        state.holds.extend(holds.map(|sandbox| (key, sandbox.id)));
    }
    state.stuck = tracks.len();
    state
}

#[derive(Debug, Deserialize)]
struct Row {
    sandbox_id: String,
    track: Option<String>,
    idempotency_key: Option<String>,
}

/// Waits while all that a queue holds is delayed: a worker of another build puts back what it cannot read.
async fn what_is_delayed_comes(queues: &Queues, name: &str) {
    wait_for_condition_up_to(LONGEST_DELAY, "a delayed message", async || match queues.depth(name).await {
        delayed @ Depth { visible: 0, in_flight: 0, delayed: 1.. } => Err(delayed),
        Depth { .. } => Ok(()),
    })
    .await;
}

/// Everything in which table and queues differ from what the clients know, once the queues are empty.
pub(crate) async fn table(broker: &mut Broker, cast: &Cast, state: &mut State, told: usize) -> Vec<String> {
    let queues = broker.queues();
    // An API that was killed while it made its queue told nobody its name.
    let living = cast.reply_queues();
    for orphan in queues.reply_queues().await.into_iter().filter(|queue| !living.contains(queue)) {
        queues.delete(&orphan).await;
    }
    for queue in ["requests", "requests-dlq", "maintenance", "maintenance-dlq"] {
        let name = queues.name(queue);
        // Deletions are sent as fast as the provider takes them: that they become fewer is what can be waited for.
        let mut left = u64::MAX;
        while left > 0 {
            what_is_delayed_comes(&queues, &name).await;
            left = wait_for_condition(&format!("{queue} to hold fewer messages than {left}"), async || {
                match queues.depth(&name).await {
                    depth if depth.total() < left => Ok(depth.total()),
                    depth => Err(depth),
                }
            })
            .await;
        }
    }
    // Not replayed: a client might be given a sandbox after it had another response long ago.
    state.dead_letters = broker.open_letters().await.len();
    broker.discard(&["--all"]).await;

    let mut faults = Vec::new();
    if state.stuck > 0 {
        faults.push(format!(
            "{} keys are stuck: refused, or not answered, for {SETTLES_WITHIN:?} of calm",
            state.stuck
        ));
    }
    let verdict = broker.cli(&["pool", "verify", "--json"]).await;
    if verdict.code != 0 {
        faults.push(format!("pool verify says: {}{}", verdict.stdout, verdict.stderr));
    }
    let stats: Stats = broker.stats().await;
    // What its gate refused was never handed out.
    state.used = stats.total - stats.available - stats.arriving - stats.quarantined;
    if state.used != told as u64 {
        faults.push(format!("{} sandboxes are used, {told} were told to clients", state.used));
    }
    let listed =
        broker.cli_ok(&["pool", "list", "--status", "allocated", "--limit", "1000000", "--json"]).await;
    let rows = listed.json::<Vec<Row>>().into_iter();
    let held_by_table: BTreeSet<_> = rows
        .map(|row| ((row.track.unwrap_or_default(), row.idempotency_key.unwrap_or_default()), row.sandbox_id))
        .collect();
    let held_by_clients: BTreeSet<_> = state.holds.clone().into_iter().collect();
    let differ = held_by_table.symmetric_difference(&held_by_clients);
    faults.extend(differ.map(|(key, sandbox)| {
        let by_whom =
            if held_by_table.contains(&(key.clone(), sandbox.clone())) { "table" } else { "client" };
        format!("{sandbox} is held by {key:?} only as the {by_whom} knows")
    }));
    faults.extend(cast.panics.iter().map(|panic| format!("a process panicked: {panic}")));
    faults
}
