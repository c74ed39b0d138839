//! `broker pool seed`: puts test sandboxes into the pool and removes them. In a real pool sync inserts the sandboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_domain::{ExternalId, Sandbox, SandboxId, SandboxName, Timestamp};
use broker_store::{NewSandbox, Store, StoreError};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::args;
use crate::context::Context;
use crate::done::Done;
use crate::output;
use broker_local::provider;
use broker_store::scan_all::scan;

/// Calls in flight at the same time.
const CALLS: usize = 16;

/// The attempts of a throttled call, each after twice the pause.
const PATIENCE: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Report {
    inserted: usize,
    existing: usize,
    removed: usize,
}

pub(crate) async fn run(context: Context, args: args::Seed) -> anyhow::Result<Done> {
    let report = if args.cleanup {
        Report { inserted: 0, existing: 0, removed: cleanup(&context.store).await? }
    } else {
        let seeded =
            seed(&context.store, args.start, args.count, &args.name_prefix, context.now().await?).await?;
        Report { inserted: seeded.inserted, existing: seeded.existing, removed: 0 }
    };
    if args.output.json {
        output::json(&report)?;
    } else if args.cleanup {
        output::line(format_args!("{} removed", report.removed))?;
    } else {
        output::line(format_args!("{} inserted, {} existed", report.inserted, report.existing))?;
    }
    Ok(Done::Ok)
}

/// The numbers of inserted and of existing sandboxes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seeded {
    pub(crate) inserted: usize,
    pub(crate) existing: usize,
}

/// Puts `count` sandboxes into the pool: ids `seed-{start}` on, names that begin with `prefix`.
pub(crate) async fn seed(
    store: &Store,
    start: usize,
    count: usize,
    prefix: &str,
    now: Timestamp,
) -> anyhow::Result<Seeded> {
    let bar = output::progress(count, "seeding");
    let next = Arc::new(AtomicUsize::new(start));
    let mut seeding = JoinSet::new();
    for _ in 0..CALLS.min(count) {
        let (store, prefix, next, bar) = (store.clone(), prefix.to_owned(), Arc::clone(&next), bar.clone());
        seeding.spawn(async move {
            let mut seeded = Seeded::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= start + count {
                    return anyhow::Ok(seeded);
                }
                let is_new = seed_one(&store, &sandbox(number, &prefix)?, now).await?;
                seeded.inserted += usize::from(is_new);
                seeded.existing += usize::from(!is_new);
                bar.inc(1);
            }
        });
    }
    let mut total = Seeded::default();
    while let Some(seeded) = seeding.join_next().await {
        let seeded = seeded??;
        total.inserted += seeded.inserted;
        total.existing += seeded.existing;
    }
    bar.finish_and_clear();
    Ok(total)
}

/// Inserts one, with retries: a new on-demand table takes 4,000 writes/s and grows from there.
async fn seed_one(store: &Store, sandbox: &NewSandbox, now: Timestamp) -> Result<bool, StoreError> {
    for attempt in 0..PATIENCE {
        match store.seed(sandbox, now).await {
            Err(error) if error.is_retryable() => tokio::time::sleep(FIRST_PAUSE * (1 << attempt)).await,
            seeded => return seeded,
        }
    }
    store.seed(sandbox, now).await
}

fn sandbox(number: usize, prefix: &str) -> anyhow::Result<NewSandbox> {
    Ok(NewSandbox {
        id: SandboxId::new(format!("seed-{number:06}"))?,
        name: SandboxName::new(format!("{prefix}-{number:06}"))?,
        external_id: ExternalId::new(format!("identity/accounts/{}", provider::uuid_of(number)))?,
    })
}

/// Removes unused seeds and returns their number. Seeds that are or were in use stay.
async fn cleanup(store: &Store) -> anyhow::Result<usize> {
    let mut candidates: Vec<Sandbox> = Vec::new();
    scan(store, |page| {
        candidates.extend(page.sandboxes.into_iter().filter(|sandbox| sandbox.allocation.is_none()));
        true
    })
    .await?;
    let bar = output::progress(candidates.len(), "removing");
    let mut removed = 0;
    for sandbox in candidates {
        removed += usize::from(store.remove_unused_seed(&sandbox.id, sandbox.version).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(removed)
}
