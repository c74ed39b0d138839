//! `broker pool adopt`: adopts a table that another tool filled, with our attributes but without leases and index keys.
//!
//! Invariants: nothing is written without `--apply`; nothing is written to a table that is in use, by the other tool (the
//! table is read twice and must not change) or by ours (a lease must exist before its owner repeats); sandboxes that may be
//! in use are only given up with `--confirm`; a run that ended midway is repeated and finds the rest. Keys and attribute
//! names are not converted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::bail;
use broker_domain::{AccountKey, Adoption, ForeignSandbox, LeaseKey, adoptions, split_doubled};
use broker_provider::AccountId;
use broker_store::accounts::ensure_recorded;
use broker_store::heartbeat;
use broker_store::{Entered, ForeignRow, Minted, Survey};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::args;
use crate::context::Context;
use crate::done::Done;
use crate::output;
use broker_store::scan_all::{SEGMENTS, every_page};

/// Rows that are adopted at the same time; they share calls.
const AT_ONCE: usize = 100;
/// The attempts of a write that DynamoDB refuses for now, each after twice the pause.
const PATIENCE: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Surplus {
    sandbox_id: String,
    track: Option<String>,
    why: &'static str,
}

/// The plan, and what was done.
#[derive(Default, Serialize)]
struct Report {
    dry_run: bool,
    /// Sandboxes that needed nothing.
    ours: u64,
    /// To be kept as they are, by state; those with a lease are `allocated`.
    kept: BTreeMap<&'static str, u64>,
    surplus: Vec<Surplus>,
    unreadable: Vec<String>,
    /// Rows whose accounts other rows have.
    doubled: Vec<String>,
    /// Rows whose external ids name no account: the provider will not delete them.
    undeletable: Vec<String>,
    /// What was written.
    adopted: u64,
    /// Rows that changed meanwhile, or could not be written.
    left: u64,
}

/// The whole table, as one read found it.
#[derive(Default)]
struct Look {
    foreign: Vec<(ForeignSandbox, ForeignRow)>,
    held: HashSet<LeaseKey>,
    digests: HashMap<String, u64>,
    unreadable: Vec<String>,
    ours: u64,
    accounts: HashSet<AccountKey>,
}

pub(crate) async fn run(context: Context, args: args::Adopt) -> anyhow::Result<Done> {
    let first = look(&context).await?;
    tokio::time::sleep(Duration::from_secs(args.apart_s)).await;
    let second = look(&context).await?;
    let changed = changes(&first.digests, &second.digests);
    if changed > 0 {
        bail!(
            "{changed} sandboxes changed within {} s: stop the programs that use the table first",
            args.apart_s
        );
    }
    if args.apply {
        must_be_alone(&context).await?;
    }
    let Look { foreign, held, unreadable, ours, accounts, .. } = second;
    let mut report = Report { dry_run: !args.apply, ours, unreadable, ..Report::default() };
    let (foreign, doubled) = split_doubled(foreign, &accounts);
    let name = |row: &ForeignSandbox| format!("{} ({})", row.id, row.external_id);
    report.doubled = doubled.iter().map(name).collect();
    let is_undeletable = |row: &ForeignSandbox| AccountId::of(&row.external_id).is_none();
    report.undeletable =
        foreign.iter().map(|(row, _)| row).filter(|row| is_undeletable(row)).map(name).collect();
    let planned = adoptions(foreign, held);
    for (sandbox, _, adoption) in &planned {
        count(&mut report, sandbox, adoption);
    }
    if args.apply {
        ensure_recorded(&context.store, &context.entropy, context.clock.now()).await?;
        apply(&context, planned, args.confirm, &mut report).await?;
    }
    if args.output.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    judge(&report, args.confirm)
}

async fn look(context: &Context) -> anyhow::Result<Look> {
    let (store, now) = (context.store.clone(), context.now().await?);
    let hours = context.config.lab_duration;
    let read = move |segment, after| {
        let store = store.clone();
        async move { store.survey(segment, SEGMENTS, after, hours, now).await }
    };
    let mut look = Look::default();
    let see = |page: Survey| {
        look.foreign.extend(page.foreign);
        look.held.extend(page.held);
        look.digests.extend(page.digests);
        look.unreadable.extend(page.unreadable);
        look.ours += page.ours;
        look.accounts.extend(page.accounts.iter().map(AccountKey::of));
        true
    };
    every_page(read, |page| page.next.clone(), see).await?;
    Ok(look)
}

/// The number of sandboxes that were added, removed or changed.
fn changes(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> usize {
    let new_or_other = after.iter().filter(|(pk, digest)| before.get(*pk) != Some(digest)).count();
    new_or_other + before.keys().filter(|pk| !after.contains_key(*pk)).count()
}

/// An owner who repeats before the lease exists would get a second sandbox.
async fn must_be_alone(context: &Context) -> anyhow::Result<()> {
    let now = context.now().await?;
    let instances = context.store.instances().await?;
    let living = instances.iter().filter(|instance| !heartbeat::is_gone(instance, now)).count();
    if living > 0 {
        bail!("{living} APIs and workers run on this table (or were killed within 90 s): stop them first");
    }
    Ok(())
}

fn count(report: &mut Report, sandbox: &ForeignSandbox, adoption: &Adoption) {
    match adoption {
        Adoption::AsItIs | Adoption::Lease(_) => {
            *report.kept.entry(sandbox.status.as_str()).or_default() += 1;
        }
        Adoption::GiveUp(surplus) => report.surplus.push(Surplus {
            sandbox_id: sandbox.id.to_string(),
            track: sandbox.tenancy.as_ref().map(|tenancy| tenancy.lease_key.track.to_string()),
            why: surplus.as_str(),
        }),
    }
}

async fn apply(
    context: &Context,
    planned: Vec<(ForeignSandbox, ForeignRow, Adoption)>,
    confirmed: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bar = output::progress(planned.len(), "adopting");
    let mut running = JoinSet::new();
    for (sandbox, row, adoption) in planned {
        let needs_confirmation = match adoption {
            Adoption::GiveUp(_) => true,
            Adoption::AsItIs | Adoption::Lease(_) => false,
        };
        if needs_confirmation && !confirmed {
            continue;
        }
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            tally(&done??, report);
        }
        let (store, now) = (context.store.clone(), context.now().await?);
        let minted = Minted {
            allocation_id: context.entropy.allocation_id(),
            request_id: context.entropy.request_id(now),
        };
        let bar = bar.clone();
        running.spawn(async move {
            let mut pause = FIRST_PAUSE;
            for _ in 1..PATIENCE {
                match store.adopt(&sandbox, &row, &adoption, minted, now).await {
                    Err(error) if error.is_retryable() => tokio::time::sleep(pause).await,
                    done => {
                        bar.inc(1);
                        return done;
                    }
                }
                pause *= 2;
            }
            store.adopt(&sandbox, &row, &adoption, minted, now).await
        });
    }
    while let Some(done) = running.join_next().await {
        tally(&done??, report);
    }
    bar.finish_and_clear();
    Ok(())
}

const fn tally(entered: &Entered, report: &mut Report) {
    match entered {
        Entered::Done => report.adopted += 1,
        // Or an attempt that was not answered took effect: the next run tells.
        Entered::MovedOn | Entered::AccountTaken { .. } => report.left += 1,
    }
}

/// Fails if anything is left to do.
fn judge(report: &Report, confirmed: bool) -> anyhow::Result<Done> {
    if !report.unreadable.is_empty() {
        bail!("{} sandboxes cannot be adopted: repair or remove their rows by hand", report.unreadable.len());
    }
    if !report.doubled.is_empty() {
        bail!(
            "{} sandboxes are accounts that others have: only people can tell which is which; remove or mend their rows",
            report.doubled.len()
        );
    }
    if report.dry_run {
        return Ok(Done::Ok);
    }
    if report.left > 0 {
        bail!("{} sandboxes changed meanwhile: run it again", report.left);
    }
    if !report.surplus.is_empty() && !confirmed {
        bail!(
            "{} sandboxes are surplus and were left: check them, then --apply --confirm",
            report.surplus.len()
        );
    }
    Ok(Done::Ok)
}

fn print(report: &Report) -> std::io::Result<()> {
    let kept = report.kept.iter().map(|(status, count)| [format!("to keep, {status}"), count.to_string()]);
    let rows = [["ours already".to_owned(), report.ours.to_string()]].into_iter().chain(kept);
    let surplus = ["surplus, to be deleted".to_owned(), report.surplus.len().to_string()];
    output::table(["", "SANDBOXES"], rows.chain([surplus]))?;
    for surplus in &report.surplus {
        let track = surplus.track.as_deref().unwrap_or("-");
        output::line(format_args!("surplus: {} of {track}: {}", surplus.sandbox_id, surplus.why))?;
    }
    for unreadable in &report.unreadable {
        output::line(format_args!("cannot be adopted: {unreadable}"))?;
    }
    for doubled in &report.doubled {
        output::line(format_args!("refused, another row is the same account: {doubled}"))?;
    }
    for undeletable in &report.undeletable {
        output::line(format_args!("warning, the provider will not delete it: {undeletable}"))?;
    }
    if report.dry_run {
        output::line("\nnothing was written without --apply")
    } else {
        output::line(format_args!("\n{} adopted", report.adopted))
    }
}
