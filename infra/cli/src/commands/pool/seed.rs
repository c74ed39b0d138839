//! `broker pool seed`: puts test sandboxes into the pool and removes them. In a real pool sync inserts the sandboxes, and seeds
//! are refused beside them: they would be given to owners, and deleted at the provider.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::bail;
use broker_domain::{ExternalId, InvalidId, Sandbox, SandboxId, SandboxName, Status, Timestamp};
use broker_runtime::backoff::Backoff;
use broker_runtime::entropy::Entropy;
use broker_store::accounts::ensure_recorded;
use broker_store::{
    Act, Candidate, EntryConflict, NewSandbox, Store, StoreError, Write, arrivals, retry_on_conflict,
};
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};
use broker_local::provider;
use broker_store::scan_all::scan;

/// The beginning of a seed's id; the accounts of the provider's stand-in have it, too.
const SEED: &str = "seed-";
/// Sandboxes that are written at the same time; they share calls.
const AT_ONCE: usize = 100;

/// The attempts of a throttled call, and the pauses between them.
const PATIENCE: u32 = 8;
const THROTTLED: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(6_400));

#[derive(Default, Serialize)]
struct SeedReport {
    inserted: usize,
    existing: usize,
    /// Whose accounts other sandboxes have.
    refused: usize,
    removed: usize,
    /// Unused ones that changed while they were being removed.
    left: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// The number of seeds
    #[arg(long, default_value_t = 100, required_unless_present = "cleanup")]
    pub(crate) count: usize,
    /// The prefix of their names
    #[arg(long, default_value = "sandbox", value_parser = parse_prefix)]
    pub(crate) name_prefix: String,
    /// The number of the first; ids are seed-000000, seed-000001, …
    #[arg(long, default_value_t = 0)]
    pub(crate) start: usize,
    /// Remove unused seeds
    #[arg(long)]
    pub(crate) cleanup: bool,
    /// Seed also a pool that has sandboxes which are no seeds
    #[arg(long, conflicts_with = "cleanup")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A prefix with which the name of any number is one.
fn parse_prefix(text: &str) -> Result<String, InvalidId> {
    SandboxName::new(format!("{text}-{}", usize::MAX)).map(|_| text.to_owned())
}

pub(crate) async fn run(context: Context, args: Seed) -> anyhow::Result<Done> {
    let end = args.start.checked_add(args.count);
    if end.and_then(|end| end.checked_add(AT_ONCE)).is_none() {
        output::complain("--start and --count: the last number would be too large");
        return Ok(Done::Misused);
    }
    let Context { store, entropy, .. } = &context;
    let act = match args.cleanup {
        true => (Act::Seed, "remove unused", None),
        false => (Act::Seed, args.name_prefix.as_str(), Some(args.count as u64)),
    };
    let report = context.act(act, async |_| {
        if args.cleanup {
            return cleanup(store, entropy, context.now().await?).await;
        }
        if !args.force
            && let Some(real) = no_seed(store).await?
        {
            bail!(
                "this pool has sandboxes that are no seeds ({real}): nothing was seeded; \
                 --force does it all the same"
            );
        }
        let now = context.now().await?;
        let seeded = seed(store, entropy, args.start, args.count, &args.name_prefix, now).await?;
        let Seeded { inserted, existing, refused } = seeded;
        Ok(SeedReport { inserted, existing, refused, ..SeedReport::default() })
    });
    let report = report.await?;
    if args.output.json {
        output::json(&report)?;
    } else if args.cleanup {
        output::line(format_args!("{} removed", report.removed))?;
    } else {
        output::line(format_args!("{} inserted, {} existed", report.inserted, report.existing))?;
        if report.refused > 0 {
            output::line(format_args!("{} refused: other sandboxes have their accounts", report.refused))?;
        }
    }
    if report.left > 0 {
        output::complain(&format!("{} changed meanwhile and were left: run it again", report.left));
        return Ok(Done::Failed);
    }
    Ok(Done::Ok)
}

/// The numbers of sandboxes that a seed inserted and left alone: they existed, or others have their accounts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seeded {
    pub(crate) inserted: usize,
    pub(crate) existing: usize,
    pub(crate) refused: usize,
}

/// A sandbox of the pool that is no seed, by its id, if there is one; also one that cannot be read.
async fn no_seed(store: &Store) -> anyhow::Result<Option<String>> {
    let mut found = None;
    scan(store, |page| {
        let ids = page.sandboxes.into_iter().map(|sandbox| sandbox.id.to_string());
        found = ids.chain(page.left_out).find(|id| !id.starts_with(SEED));
        found.is_none()
    })
    .await?;
    Ok(found)
}

/// Puts `count` sandboxes into the pool: ids `seed-{start}` on, names that begin with `prefix`.
pub(crate) async fn seed(
    store: &Store,
    entropy: &Entropy,
    start: usize,
    count: usize,
    prefix: &str,
    now: Timestamp,
) -> anyhow::Result<Seeded> {
    ensure_recorded(store, entropy, now).await?;
    let bar = output::progress(count, "seeding");
    let next = Arc::new(AtomicUsize::new(start));
    let mut seeding = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (store, prefix, next, bar) = (store.clone(), prefix.to_owned(), Arc::clone(&next), bar.clone());
        seeding.spawn(async move {
            let (mut seeded, mut arrived) = (Seeded::default(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= start + count {
                    return anyhow::Ok((seeded, arrived));
                }
                let sandbox = sandbox(number, &prefix)?;
                match seed_one(&store, &sandbox, now).await? {
                    Write::Applied => {
                        seeded.inserted += 1;
                        arrived.push(sandbox.arrived(NewSandbox::first_version(now)));
                    }
                    Write::Rejected(EntryConflict::MovedOn(())) => seeded.existing += 1,
                    Write::Rejected(EntryConflict::AccountTaken { .. }) => seeded.refused += 1,
                }
                bar.inc(1);
            }
        });
    }
    let (mut total, mut arrivals) = (Seeded::default(), Vec::new());
    while let Some(seeded) = seeding.join_next().await {
        let (seeded, mut arrived) = seeded??;
        arrivals.append(&mut arrived);
        total.inserted += seeded.inserted;
        total.existing += seeded.existing;
        total.refused += seeded.refused;
    }
    bar.finish_and_clear();
    arrivals::offer(store, arrivals, now).await?;
    Ok(total)
}

/// Inserts one, with retries: a new on-demand table takes 4,000 writes/s and grows from there.
async fn seed_one(
    store: &Store,
    sandbox: &NewSandbox,
    now: Timestamp,
) -> Result<Write<EntryConflict>, StoreError> {
    for attempt in 0..PATIENCE {
        match store.sandboxes.seed(sandbox, now).await {
            Err(error) if error.is_retryable() => tokio::time::sleep(THROTTLED.pause(attempt)).await,
            seeded => return seeded,
        }
    }
    store.sandboxes.seed(sandbox, now).await
}

fn sandbox(number: usize, prefix: &str) -> anyhow::Result<NewSandbox> {
    Ok(NewSandbox {
        id: SandboxId::new(format!("{SEED}{number:06}"))?,
        name: SandboxName::new(format!("{prefix}-{number:06}"))?,
        external_id: ExternalId::new(format!("identity/accounts/{}", provider::uuid_of(number)))?,
        attributes: None,
    })
}

/// Removes unused seeds; seeds that are or were in use stay. What is put aside leaves its reservation, after the others: those
/// would be put aside in its place.
async fn cleanup(store: &Store, entropy: &Entropy, now: Timestamp) -> anyhow::Result<SeedReport> {
    let (mut seeds, mut reserved) = (Vec::new(), BTreeMap::new());
    scan(store, |page| {
        reserved.extend(page.reserved.into_iter().map(|(reservation, id, _)| (id, reservation)));
        let unused = |sandbox: &Sandbox| page.seeds.contains(&sandbox.id) && may_be_removed(sandbox);
        seeds.extend(page.sandboxes.into_iter().filter(unused));
        true
    })
    .await?;
    seeds.sort_by_key(|sandbox| reserved.contains_key(&sandbox.id));
    let bar = output::progress(seeds.len(), "removing");
    let mut report = SeedReport::default();
    for sandbox in seeds {
        let Sandbox { id: sandbox_id, name, external_id, version, .. } = sandbox;
        let reservation = reserved.get(&sandbox_id).copied();
        let seed = Candidate { sandbox_id, name, external_id, attributes: None, version };
        let remove = || async {
            match reservation {
                Some(reservation) => store.sandboxes.remove_reserved_seed(&seed, reservation, now).await,
                None => store.sandboxes.remove_unused_seed(&seed).await,
            }
        };
        if retry_on_conflict(entropy, remove).await?.is_applied() {
            report.removed += 1;
        } else {
            report.left += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// Whether a seed was never used nor to be deleted.
fn may_be_removed(sandbox: &Sandbox) -> bool {
    let stands = match sandbox.status {
        Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Quarantined => true,
        Status::Allocated
        | Status::PendingDeletion
        | Status::DeletionFailed
        | Status::Deleted
        | Status::Unknown => false,
    };
    stands && sandbox.allocation.is_none() && sandbox.deletion_requested_at.is_none()
}
