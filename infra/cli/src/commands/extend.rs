//! `broker sandbox extend`: gives a lease more hours, or every live lease of a lab, a tenant or a flavour.
//!
//! Invariant: hours are added to the end that was read, or to none: a lease that changes at the same moment is read again. With
//! filters, each lease is extended once in a run, and a run that is cut off says how many were.

use anyhow::{Context as _, bail};
use broker_domain::policy::Policy;
use broker_domain::{
    FlavourName, LabDuration, Lease, LeaseKey, Sandbox, SandboxId, TenantName, Timestamp, TrackName,
};
use broker_store::scan_all::scan;
use broker_store::{Act, AuditLine, NotDone, Record, Store, retry_on_conflict};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

use super::policy::{self, no_such_flavour};
use super::record::{TRIES, live, print, read};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ProgressLine};

/// Leases that are extended at a time.
const AT_ONCE: usize = 16;
/// Why a lease is not extended by more.
const TOO_LONG: &str = "a lease may last 168 hours from now at most";

#[derive(Debug, Args)]
pub(crate) struct Extend {
    /// The id of the sandbox; instead of filters
    #[arg(value_parser = |text: &str| SandboxId::new(text))]
    id: Option<SandboxId>,
    /// The hours to add, 1 to 168
    #[arg(long)]
    hours: LabDuration,
    /// Every live lease of this lab
    #[arg(long, value_name = "LAB", value_parser = |text: &str| TrackName::new(text))]
    track_name: Option<TrackName>,
    /// Every live lease of this tenant
    #[arg(long, value_name = "TENANT", value_parser = |text: &str| TenantName::new(text))]
    tenant: Option<TenantName>,
    /// Every live lease of a sandbox of this flavour
    #[arg(long, value_name = "FLAVOUR", value_parser = |text: &str| FlavourName::new(text))]
    flavour: Option<FlavourName>,
    /// Only count what would be extended
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// What a run with filters did.
#[derive(Debug, Default, Serialize)]
struct Extended {
    /// Live leases that match.
    found: u64,
    /// Those that were extended.
    extended: u64,
    /// Those that would last too long.
    too_long: u64,
    /// Those that ended meanwhile.
    ended: u64,
    /// Those of which it is not known, where the run was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    dry_run: bool,
}

impl Extended {
    fn fails(&mut self) {
        *self.failed.get_or_insert_default() += 1;
    }
}

pub(super) async fn run(context: Context, args: Extend) -> anyhow::Result<Done> {
    let filters = args.track_name.is_some() || args.tenant.is_some() || args.flavour.is_some();
    match (&args.id, filters) {
        (Some(id), false) => one(&context, id, &args).await,
        (None, true) => all(&context, &args).await,
        (Some(_), true) | (None, false) => {
            output::complain("name a sandbox, or --track-name, --tenant, --flavour, and not both");
            Ok(Done::Misused)
        }
    }
}

async fn one(context: &Context, id: &SandboxId, args: &Extend) -> anyhow::Result<Done> {
    let record = read(context, id).await?;
    longer(&record, args.hours, context.now().await?)?;
    if args.dry_run {
        return report(args, &Extended { found: 1, dry_run: true, ..Extended::default() });
    }
    let act = (Act::Extend, id.as_str(), Some(args.hours.hours().into()));
    let record = context.act(act, async |_| extend_one(context, id, args.hours, record).await).await?;
    print(context, &record, args.output.json).await
}

async fn extend_one(
    context: &Context,
    id: &SandboxId,
    by: LabDuration,
    mut record: Record,
) -> anyhow::Result<Record> {
    for _ in 0..TRIES {
        let now = context.now().await?;
        let (allocation, expires_at) = (live(&record)?, longer(&record, by, now)?);
        let extend = || context.store.leases.extend(&record.sandbox.id, allocation, expires_at, now);
        let extended = retry_on_conflict(&context.entropy, extend).await?;
        record = read(context, id).await?;
        if extended.is_applied() {
            return Ok(record);
        }
    }
    bail!("{id} changes all the time: look again")
}

/// When a lease ends that is given so much longer.
fn longer(record: &Record, by: LabDuration, now: Timestamp) -> anyhow::Result<Timestamp> {
    live(record)?.extended(by, now).context(TOO_LONG)
}

async fn all(context: &Context, args: &Extend) -> anyhow::Result<Done> {
    let policy = policy::in_force_for(context, args.flavour.is_some()).await?;
    if let Some(flavour) = &args.flavour
        && !policy.flavours().contains_key(flavour)
    {
        output::complain(&no_such_flavour(flavour.as_str()));
        return Ok(Done::Misused);
    }
    let (matching, unreadable) = matching(context, args, &policy).await?;
    let mut told = Extended { found: matching.len() as u64, dry_run: args.dry_run, ..Extended::default() };
    if !args.dry_run && !matching.is_empty() {
        let of_all = context.audit(Act::Extend, &selection(args), Some(told.found)).await?;
        let extended = extend_each(context, args.hours, matching, &mut told).await;
        context.ended(&of_all, &serde_json::to_string(&told)?).await;
        extended.with_context(|| format!("{} of {} were extended", told.extended, told.found))?;
    }
    let done = report(args, &told)?;
    if unreadable.is_empty() {
        return Ok(done);
    }
    let (many, what) = (unreadable.len(), unreadable.join("; "));
    output::complain(&format!("{many} items cannot be read, what they hold was left alone: {what}"));
    Ok(Done::Failed)
}

/// What extends the leases, a few at a time.
type Extending = JoinSet<(AuditLine, anyhow::Result<Fate>)>;

/// Extends each; after the first failure none is begun any more. Counts all that were begun.
async fn extend_each(
    context: &Context,
    by: LabDuration,
    matching: Vec<Sandbox>,
    told: &mut Extended,
) -> anyhow::Result<()> {
    let mut progress = ProgressLine::new(told.found, "extending", context.clock.instant());
    let (mut running, mut so_far) = (Extending::new(), Ok(()));
    for sandbox in matching {
        if running.len() >= AT_ONCE {
            so_far = count(context, running.join_next().await, told).await;
            progress.at(told.extended, context.clock.instant());
        }
        if so_far.is_ok() {
            so_far = begin(context, by, sandbox, &mut running).await;
        }
        if so_far.is_err() {
            break;
        }
    }
    while !running.is_empty() {
        let counted = count(context, running.join_next().await, told).await;
        so_far = so_far.and(counted);
    }
    progress.end();
    so_far
}

async fn begin(
    context: &Context,
    by: LabDuration,
    sandbox: Sandbox,
    running: &mut Extending,
) -> anyhow::Result<()> {
    let line = context.audit(Act::Extend, sandbox.id.as_str(), Some(by.hours().into())).await?;
    let (store, entropy, now) = (context.store.clone(), context.entropy.clone(), context.now().await?);
    running.spawn(async move { (line, extend(store, entropy, sandbox, by, now).await) });
    Ok(())
}

/// How one lease of many fared.
enum Fate {
    Extended,
    TooLong,
    Ended,
}

async fn extend(
    store: Store,
    entropy: broker_runtime::entropy::Entropy,
    mut sandbox: Sandbox,
    by: LabDuration,
    now: Timestamp,
) -> anyhow::Result<Fate> {
    let seen = sandbox.allocation.as_ref().map(|allocation| allocation.id);
    for _ in 0..TRIES {
        let Some(allocation) = sandbox.live_allocation().filter(|allocation| Some(allocation.id) == seen)
        else {
            return Ok(Fate::Ended);
        };
        let Some(expires_at) = allocation.extended(by, now) else { return Ok(Fate::TooLong) };
        let write = || store.leases.extend(&sandbox.id, allocation, expires_at, now);
        if retry_on_conflict(&entropy, write).await?.is_applied() {
            return Ok(Fate::Extended);
        }
        let read = retry_on_conflict(&entropy, || store.sandboxes.get(&sandbox.id)).await?;
        let Some(read) = read else { return Ok(Fate::Ended) };
        sandbox = read;
    }
    bail!("{} changes all the time: look again", sandbox.id)
}

/// Counts how one lease fared, and says in its audit line if it was not extended.
async fn count(
    context: &Context,
    ended: Option<Result<(AuditLine, anyhow::Result<Fate>), tokio::task::JoinError>>,
    told: &mut Extended,
) -> anyhow::Result<()> {
    let Some(ended) = ended else { return Ok(()) };
    let (line, fate) = ended.inspect_err(|_| told.fails())?;
    let not_done = match &fate {
        Ok(Fate::Extended) => None,
        Ok(Fate::TooLong) => Some(NotDone::Refused(TOO_LONG.to_owned())),
        Ok(Fate::Ended) => Some(NotDone::Refused("its lease has ended".to_owned())),
        Err(error) => Some(NotDone::Failed(format!("{error:#}"))),
    };
    if let Some(how) = not_done {
        context.not_done(&line, &how).await;
    }
    match fate.inspect_err(|_| told.fails())? {
        Fate::Extended => told.extended += 1,
        Fate::TooLong => told.too_long += 1,
        Fate::Ended => told.ended += 1,
    }
    Ok(())
}

/// The sandboxes whose live leases match every filter, and why items cannot be read that may be of such.
async fn matching(
    context: &Context,
    args: &Extend,
    policy: &Policy,
) -> anyhow::Result<(Vec<Sandbox>, Vec<String>)> {
    let (mut sandboxes, mut leases) = (Vec::new(), BTreeMap::<LeaseKey, Lease>::new());
    let mut unreadable = Vec::new();
    scan(&context.store, |mut page| {
        unreadable.append(&mut page.unreadable);
        let of_lab = |sandbox: &Sandbox| {
            sandbox.live_allocation().is_some_and(|allocation| {
                args.track_name.is_none() || allocation.track_name == args.track_name
            })
        };
        let of_flavour = |sandbox: &Sandbox| {
            args.flavour.is_none() || policy.flavour_of(&sandbox.name) == args.flavour.as_ref()
        };
        let wanted = page.sandboxes.into_iter().filter(|sandbox| of_lab(sandbox) && of_flavour(sandbox));
        sandboxes.extend(wanted);
        let of_tenant =
            |lease: &Lease| args.tenant.is_some() && lease.end.is_none() && lease.tenant == args.tenant;
        leases.extend(page.leases.into_iter().filter(of_tenant).map(|lease| (lease.key.clone(), lease)));
        true
    })
    .await?;
    let of_tenant = |sandbox: &Sandbox| {
        let lease = sandbox.live_allocation().and_then(|allocation| leases.get(&allocation.lease_key));
        args.tenant.is_none() || lease.is_some_and(|lease| lease.grant.sandbox_id == sandbox.id)
    };
    sandboxes.retain(of_tenant);
    Ok((sandboxes, unreadable))
}

/// The filters, for the audit.
fn selection(args: &Extend) -> String {
    let filters = [
        args.track_name.as_ref().map(|name| format!("track_name={name}")),
        args.tenant.as_ref().map(|tenant| format!("tenant={tenant}")),
        args.flavour.as_ref().map(|flavour| format!("flavour={flavour}")),
    ];
    filters.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn report(args: &Extend, told: &Extended) -> anyhow::Result<Done> {
    if args.output.json {
        output::json(told)?;
    } else {
        let Extended { found, extended, too_long, ended, .. } = told;
        let cells = [found, extended, too_long, ended].map(ToString::to_string);
        output::table(["FOUND", "EXTENDED", "TOO LONG", "ENDED"], [cells])?;
    }
    Ok(if told.too_long == 0 { Done::Ok } else { Done::Failed })
}
