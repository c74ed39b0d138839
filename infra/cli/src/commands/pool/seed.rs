//! `broker pool seed`: new sandboxes for trying things out, and their removal. On a real pool sync finds them instead.

use std::sync::Arc;
use std::time::Duration;

use broker_common::domain::{ExternalId, Sandbox, SandboxId, SandboxName, Timestamp};
use broker_common::store::{NewSandbox, Seeded, Store, StoreError};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::scan;
use crate::args;
use crate::commands::Done;
use crate::context::Context;
use crate::output;
use crate::provider;

/// Calls under way at the same time.
const CALLS: usize = 8;

/// How often a throttled batch is tried again, each time after twice the pause.
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
            seed(&context.store, args.start, args.count, &args.name_prefix, context.clock.now()).await?;
        Report { inserted: seeded.inserted, existing: seeded.existing, removed: 0 }
    };
    if args.output.json {
        output::json(&report)?;
    } else if args.cleanup {
        output::line(format_args!("{} removed", report.removed))?;
    } else {
        output::line(format_args!("{} inserted, {} were there", report.inserted, report.existing))?;
    }
    Ok(Done::Ok)
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
    let sandboxes =
        (start..start + count).map(|number| sandbox(number, prefix)).collect::<anyhow::Result<Vec<_>>>()?;
    let calls = Arc::new(Semaphore::new(CALLS));
    let mut batches = JoinSet::new();
    for batch in sandboxes.chunks(Store::SEED_BATCH) {
        let (store, batch, calls) = (store.clone(), batch.to_vec(), Arc::clone(&calls));
        batches.spawn(async move {
            let _call = calls.acquire_owned().await;
            seed_batch(&store, &batch, now).await
        });
    }
    let mut total = Seeded::default();
    while let Some(seeded) = batches.join_next().await {
        let seeded = seeded??;
        total.inserted += seeded.inserted;
        total.existing += seeded.existing;
        bar.inc(u64::try_from(seeded.inserted + seeded.existing).unwrap_or_default());
    }
    bar.finish_and_clear();
    Ok(total)
}

/// One batch, patiently: a new on-demand table takes 4,000 writes/s and grows from there.
async fn seed_batch(store: &Store, batch: &[NewSandbox], now: Timestamp) -> Result<Seeded, StoreError> {
    for attempt in 0..PATIENCE {
        match store.seed(batch, now).await {
            Err(error) if error.is_retryable() => tokio::time::sleep(FIRST_PAUSE * (1 << attempt)).await,
            seeded => return seeded,
        }
    }
    store.seed(batch, now).await
}

fn sandbox(number: usize, prefix: &str) -> anyhow::Result<NewSandbox> {
    Ok(NewSandbox {
        id: SandboxId::new(format!("seed-{number:06}"))?,
        name: SandboxName::new(format!("{prefix}-{number:06}"))?,
        external_id: ExternalId::new(format!("identity/accounts/{}", provider::uuid_of(number)))?,
    })
}

/// Removes what seed made and nobody used; how many. What is in use, or was, stays.
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
