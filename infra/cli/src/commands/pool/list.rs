//! `broker pool list`: sandboxes, of one state or of all; with `--handed-out` everything that was ever handed out, as
//! `broker pool reconcile` reads it.
//!
//! Invariant: what is not whole says so ([`ShownRows`]); a list of what was handed out is never cut off.

use std::collections::BTreeMap;

use anyhow::bail;
use broker_domain::policy::{ANY_FLAVOUR, Policy};
use broker_domain::reconcile::HandedOut;
use broker_domain::{FlavourName, ProviderAttributes, Sandbox, SandboxId, Status};
use clap::Args;
use serde::Serialize;

use crate::commands::policy::{self, no_such_flavour};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ShownRows};
use broker_store::scan_all::scan;

#[derive(Serialize)]
struct SandboxRow {
    #[serde(flatten)]
    attributes: ProviderAttributes,
    sandbox_id: String,
    name: String,
    external_id: String,
    status: &'static str,
    flavour: Option<String>,
    track: Option<String>,
    idempotency_key: Option<String>,
    track_name: Option<String>,
    allocated_at: Option<u64>,
    expires_at: Option<u64>,
}

impl SandboxRow {
    fn new(sandbox: &Sandbox, policy: &Policy) -> Self {
        let allocation = sandbox.allocation.as_ref();
        Self {
            attributes: sandbox.attributes.clone(),
            sandbox_id: sandbox.id.to_string(),
            name: sandbox.name.to_string(),
            external_id: sandbox.external_id.to_string(),
            status: sandbox.status.as_str(),
            flavour: policy.flavour_of(&sandbox.name).map(ToString::to_string),
            track: allocation.map(|a| a.lease_key.track.to_string()),
            idempotency_key: allocation.map(|a| a.lease_key.key.to_string()),
            track_name: allocation.and_then(|a| a.track_name.as_ref()).map(ToString::to_string),
            allocated_at: allocation.map(|a| a.allocated_at.as_secs()),
            expires_at: allocation.map(|a| a.expires_at.as_secs()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this state
    #[arg(long, value_parser = parse_status)]
    pub(crate) status: Option<Status>,
    /// Only this flavour of the policy; any: sandboxes without one
    #[arg(long)]
    pub(crate) flavour: Option<String>,
    #[command(flatten)]
    pub(crate) rows: ShownRows,
    /// All sandboxes that were ever handed out, as JSON lines for `broker pool reconcile`
    #[arg(long, conflicts_with_all = ["status", "flavour", "limit", "json"])]
    pub(crate) handed_out: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn parse_status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| format!("is none of {}", Status::ALL.map(Status::as_str).join(", ")))
}

pub(crate) async fn run(context: Context, args: List) -> anyhow::Result<Done> {
    if args.handed_out {
        return handed_out(&context).await;
    }
    let policy = policy::in_force_for(&context, args.flavour.is_some()).await?;
    if let Some(flavour) = args.flavour.as_deref()
        && flavour != ANY_FLAVOUR
        && policy.flavours().keys().all(|known| known.as_str() != flavour)
    {
        output::complain(&no_such_flavour(flavour));
        return Ok(Done::Misused);
    }
    let of_flavour = |sandbox: &Sandbox| {
        let own = policy.flavour_of(&sandbox.name).map_or(ANY_FLAVOUR, FlavourName::as_str);
        args.flavour.as_deref().is_none_or(|wanted| wanted == own)
    };
    let limit = args.rows.most();
    let (mut rows, mut left_out) = (Vec::<SandboxRow>::new(), Vec::new());
    scan(&context.store, |mut page| {
        left_out.append(&mut page.left_out);
        let in_state = |sandbox: &Sandbox| args.status.is_none_or(|status| sandbox.status == status);
        let wanted = page.sandboxes.iter().filter(|sandbox| in_state(sandbox) && of_flavour(sandbox));
        // One more than is shown tells whether there are more.
        rows.extend(
            wanted
                .take(limit.saturating_add(1) - rows.len())
                .map(|sandbox| SandboxRow::new(sandbox, &policy)),
        );
        rows.len() <= limit
    })
    .await?;
    let there_are_more = rows.len() > limit;
    rows.truncate(limit);
    rows.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.sandbox_id.cmp(&b.sandbox_id)));
    if args.output.json {
        output::json(&rows)?;
    } else {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let cells = rows.into_iter().map(|row| {
            [
                row.sandbox_id,
                row.name,
                row.status.to_owned(),
                or_dash(row.flavour),
                or_dash(row.track),
                or_dash(row.track_name),
                or_dash(row.expires_at.map(|at| at.to_string())),
            ]
        });
        output::table(["SANDBOX", "NAME", "STATUS", "FLAVOUR", "TRACK", "LAB", "EXPIRES AT"], cells)?;
    }
    let told = args.rows.told(there_are_more, &args.output);
    // A program takes the list for whole.
    if !output::whole(&left_out) && args.output.json { Ok(Done::Failed) } else { Ok(told) }
}

/// Everything that was ever handed out, by sandbox.
async fn handed_out(context: &Context) -> anyhow::Result<Done> {
    let mut lines: BTreeMap<SandboxId, HandedOut> = BTreeMap::new();
    let mut live = Vec::new();
    let mut unreadable = Vec::new();
    scan(&context.store, |mut page| {
        let of_sandboxes = page.sandboxes.iter().filter_map(HandedOut::of_sandbox);
        lines.extend(of_sandboxes.map(|line| (line.sandbox_id.clone(), line)));
        live.extend(page.leases.iter().filter(|lease| lease.end.is_none()).map(HandedOut::of_lease));
        unreadable.append(&mut page.unreadable);
        true
    })
    .await?;
    // A sandbox may have been read before it was claimed, and its lease after.
    for line in live {
        lines.entry(line.sandbox_id.clone()).or_insert(line);
    }
    for line in lines.values() {
        output::line(serde_json::to_string(line)?)?;
    }
    if !unreadable.is_empty() {
        bail!(
            "{} items cannot be read, so this is not everything: {}",
            unreadable.len(),
            unreadable.join("; ")
        );
    }
    Ok(Done::Ok)
}
