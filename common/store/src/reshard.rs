//! Change of the number of state shards of a table with data in it.
//!
//! Order: **no process lives → mark → no process lives → move, until a whole pass moves nothing → bind**. From the mark on
//! no process starts, and one that wrote its instance before sees the mark right after, so none writes with the old number
//! while sandboxes move. Killed anywhere, the same call goes on; a call with the old number moves everything back.
//!
//! Not seen: a process that was silent for longer than three heartbeats. When it comes back its gate closes, as
//! the pool's status tells another number; what it wrote before that, `pool verify` names, and one more call mends.

use std::time::Duration;

use broker_domain::Timestamp;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use crate::dynamodb::{Misplaced, ShardedPage, Shards};
use crate::scan_all::{SEGMENTS, ScanError, every_page};
use crate::{Page, Role, Store, StoreError, Write, heartbeat};

/// Sandboxes of one segment that are moved at the same time.
const AT_ONCE: usize = 25;
/// The attempts of a write that is throttled, each after twice the pause.
const PATIENCE: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Why a table was not moved, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum ReshardError {
    /// The table did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table was not read as a whole.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// No process ever used it.
    #[error(
        "the table is bound to no number of shards yet: start with BROKER_STATE_SHARDS={to}, or run `broker init` with it"
    )]
    Unbound {
        /// The number wanted.
        to: u8,
    },
    /// Processes live that write with the old number.
    #[error(
        "{apis} APIs and {workers} workers are alive: stop them first; one that was killed counts for 90 s"
    )]
    Alive {
        /// APIs.
        apis: usize,
        /// Workers.
        workers: usize,
    },
    /// Another run moves it elsewhere.
    #[error("another command moves the table at the same time")]
    MovedOn,
}

/// What was done, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct ReshardReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The number of shards before.
    pub from: u8,
    /// The number wanted.
    pub to: u8,
    /// Sandboxes that the index lists.
    pub listed: u64,
    /// Those that stood elsewhere.
    pub moved: u64,
}

/// Moves the table to `to` shards, or counts what that would move. `moved` is called with the number so far.
///
/// # Errors
///
/// When processes live, when the table does not answer, when another command interferes. It may be repeated.
pub async fn reshard(
    store: &Store,
    entropy: &Entropy,
    now: impl Fn() -> Timestamp,
    to: u8,
    apply: bool,
    mut moved: impl FnMut(u64),
) -> Result<ReshardReport, ReshardError> {
    let seen: Shards = store.pool.shards().await?.ok_or(ReshardError::Unbound { to })?;
    let mut report = ReshardReport { dry_run: !apply, from: seen.bound, to, listed: 0, moved: 0 };
    if !apply {
        let pass = pass(store, entropy, to, false, |_| ()).await?;
        (report.listed, report.moved) = (pass.listed, pass.misplaced);
        return Ok(report);
    }
    nobody_lives(store, now()).await?;
    if !store.pool.begin_reshard(seen, to).await?.is_applied() {
        return Err(ReshardError::MovedOn);
    }
    crash_points::point(Point::ReshardBegun);
    nobody_lives(store, now()).await?;
    loop {
        let mut so_far = 0;
        let pass = pass(store, entropy, to, true, |count| {
            so_far += count;
            moved(so_far);
        })
        .await?;
        // All that stood elsewhere has moved once a pass finds none: a write whose answer was lost counts too.
        (report.listed, report.moved) = (pass.listed, report.moved.max(pass.misplaced));
        if pass.misplaced == 0 {
            break;
        }
    }
    crash_points::point(Point::Resharded);
    if store.pool.finish_reshard(to).await?.is_applied() { Ok(report) } else { Err(ReshardError::MovedOn) }
}

async fn nobody_lives(store: &Store, now: Timestamp) -> Result<(), ReshardError> {
    let mut live = store.instances.list().await?;
    live.retain(|instance| !heartbeat::is_gone(instance, now));
    let apis = live.iter().filter(|instance| instance.role == Role::Api).count();
    // One of no known role may do what a worker does.
    match (apis, live.len() - apis) {
        (0, 0) => Ok(()),
        (apis, workers) => Err(ReshardError::Alive { apis, workers }),
    }
}

/// What became of one page, or of all.
#[derive(Debug, Default)]
struct TablePass {
    /// Sandboxes that the index lists.
    listed: u64,
    /// Those that stood elsewhere.
    misplaced: u64,
    /// Those that moved.
    moved: u64,
}

/// Reads the whole table once, and moves what stands elsewhere than with `to` shards if `apply`.
async fn pass(
    store: &Store,
    entropy: &Entropy,
    to: u8,
    apply: bool,
    mut moved: impl FnMut(u64),
) -> Result<TablePass, ScanError> {
    let read = {
        let (store, entropy) = (store.clone(), entropy.clone());
        move |segment, after| {
            let (store, entropy) = (store.clone(), entropy.clone());
            async move {
                let page = store.scans.outside_shards(to, segment, SEGMENTS, after).await?;
                let Page { items: ShardedPage { listed, misplaced }, next } = page;
                let count = misplaced.len() as u64;
                let moved = if apply { move_page(&store, &entropy, misplaced).await? } else { 0 };
                Ok(Page { items: TablePass { listed, misplaced: count, moved }, next })
            }
        }
    };
    let mut all = TablePass::default();
    let see = |page: TablePass| {
        all.listed += page.listed;
        all.misplaced += page.misplaced;
        all.moved += page.moved;
        moved(page.moved);
        true
    };
    every_page(read, see).await?;
    Ok(all)
}

/// Moves these sandboxes; how many. The others moved on meanwhile: the next pass looks at them again.
async fn move_page(store: &Store, entropy: &Entropy, misplaced: Vec<Misplaced>) -> Result<u64, StoreError> {
    let mut moved = 0;
    let mut tally = |done: Result<Result<Write, StoreError>, JoinError>| match done {
        Ok(changed) => {
            moved += u64::from(changed?.is_applied());
            crash_points::point(Point::ReshardStepped);
            Ok(())
        }
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    };
    let mut running = JoinSet::new();
    for sandbox in misplaced {
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            tally(done)?;
        }
        let (store, entropy) = (store.clone(), entropy.clone());
        running.spawn(async move { move_one(&store, &entropy, &sandbox).await });
    }
    while let Some(done) = running.join_next().await {
        tally(done)?;
    }
    Ok(moved)
}

async fn move_one(store: &Store, entropy: &Entropy, sandbox: &Misplaced) -> Result<Write, StoreError> {
    for attempt in 0..PATIENCE {
        match store.scans.replace(sandbox).await {
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(entropy.jitter(FIRST_PAUSE * (1 << attempt))).await;
            }
            moved => return moved,
        }
    }
    store.scans.replace(sandbox).await
}
