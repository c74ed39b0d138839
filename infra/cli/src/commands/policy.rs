//! `broker policy`: applies a policy file, shows the policy that stands, and compares the two.
//!
//! A file that is wrong anywhere changes nothing and is exit code 2; everything that is wrong is told, with line and column.

use std::io::Read as _;

use anyhow::Context as _;
use broker_domain::Limit;
use broker_domain::policy::{Change, Policy};
use broker_store::{Act, HeldPermits, PolicyPlan, PolicyWrite, StoredPolicy};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::context::{Context, Settings};
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Replace the policy by the one in a file; every process uses it within 5 s
    Apply(Apply),
    /// Show the current policy as TOML
    Show(Output),
    /// Show what a file would change
    Diff(Compared),
}

#[derive(Debug, Args)]
pub(crate) struct Compared {
    /// The policy, TOML; - is standard input
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    policy: Compared,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct PolicyShown {
    policy: String,
    digest: String,
    version: u64,
    applied_at: Option<u64>,
    applied_by: Option<String>,
}

#[derive(Serialize)]
struct Compare<'a> {
    digest: &'a str,
    version: u64,
    applied: bool,
    changes: &'a [Change],
    uncounted: Vec<Uncounted<'a>>,
}

#[derive(Serialize)]
struct Uncounted<'a> {
    tenant: &'a str,
    prefix: &'a str,
    held: u64,
}

impl<'a> From<&'a HeldPermits> for Uncounted<'a> {
    fn from(HeldPermits { limit, held }: &'a HeldPermits) -> Self {
        Self { tenant: limit.tenant.as_str(), prefix: limit.prefix.as_str(), held: *held }
    }
}

pub(crate) fn run(settings: &Settings, command: PolicyCommand) -> anyhow::Result<Done> {
    match command {
        PolicyCommand::Show(out) => settings.once(async |context| show(context, out.json).await),
        PolicyCommand::Diff(compared) => {
            // A file is judged before anything is connected to.
            let Some(policy) = read(&compared.file)? else { return Ok(Done::Misused) };
            settings.once(async |context| {
                let plan = PolicyPlan::new(&context.store, policy).await?;
                told(&plan, &plan.before, false, compared.output.json)
            })
        }
        PolicyCommand::Apply(apply) => {
            let Some(policy) = read(&apply.policy.file)? else { return Ok(Done::Misused) };
            settings.once(async |context| write(context, policy, apply).await)
        }
    }
}

/// The policy that stands in the table. One of a newer version is an error: half of it would be a lie.
pub(crate) async fn in_force(context: &Context) -> anyhow::Result<Policy> {
    let stands = context.store.policy.get().await?.unwrap_or_else(StoredPolicy::none);
    stands.policy().context("the policy in the table is of a newer version of this program")
}

/// The same for a command that goes on without it: of one that cannot be read, which is told, nothing is known.
pub(crate) async fn in_force_or_none(context: &Context) -> Policy {
    in_force(context).await.unwrap_or_else(|error| {
        output::complain(&format!("without the policy, flavours and limits are not known: {error:#}"));
        Policy::default()
    })
}

/// The policy for a command that goes on without it, unless it names a flavour.
pub(crate) async fn in_force_for(context: &Context, names_a_flavour: bool) -> anyhow::Result<Policy> {
    if names_a_flavour { in_force(context).await } else { Ok(in_force_or_none(context).await) }
}

/// What is said of a `--flavour` that the policy does not name.
pub(crate) fn no_such_flavour(flavour: &str) -> String {
    format!("--flavour {flavour}: the policy names no such flavour; see `broker policy show`")
}

/// The policy in `file`; none if it is wrong, which is told.
fn read(file: &str) -> anyhow::Result<Option<Policy>> {
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("standard input could not be read")?;
        bytes
    } else {
        std::fs::read(file).with_context(|| format!("{file} could not be read"))?
    };
    let Ok(text) = String::from_utf8(bytes) else {
        output::complain(&format!("{file} is not UTF-8 text"));
        return Ok(None);
    };
    match Policy::given(&text) {
        Ok(policy) => Ok(Some(policy)),
        Err(invalid) => {
            for problem in &invalid.problems {
                output::complain(&format!("{file}, {problem}"));
            }
            Ok(None)
        }
    }
}

async fn write(context: Context, policy: Policy, apply: Apply) -> anyhow::Result<Done> {
    let (json, digest) = (apply.policy.output.json, policy.digest());
    let plan = PolicyPlan::new(&context.store, policy).await?;
    if apply.dry_run || plan.is_done() {
        return told(&plan, &plan.before, false, json);
    }
    let count = u64::try_from(plan.changes.len()).ok();
    let applied = context.act((Act::ApplyPolicy, digest.as_str(), count), async |_| {
        match plan.apply(&context.store, &context.operator, context.now().await?).await? {
            PolicyWrite::Applied(after) => Ok(after),
            PolicyWrite::MovedOn => {
                anyhow::bail!(
                    "another policy was applied meanwhile: compare with `broker policy diff` and apply again"
                )
            }
        }
    });
    let after = applied.await?;
    told(&plan, &after, true, json)
}

fn told(plan: &PolicyPlan, stands: &StoredPolicy, applied: bool, json: bool) -> anyhow::Result<Done> {
    if json {
        let (digest, version, changes) = (&stands.digest, stands.version, &plan.changes);
        let uncounted = plan.uncounted.iter().map(Uncounted::from).collect();
        output::json(&Compare { digest, version, applied, changes, uncounted })?;
        return Ok(Done::Ok);
    }
    for change in &plan.changes {
        output::line(change)?;
    }
    for HeldPermits { limit: Limit { tenant, prefix }, held } in &plan.uncounted {
        output::complain(&format!(
            "tenant {tenant} holds {held} sandboxes under its limit of {prefix}, which is no more: no other limit counts them"
        ));
    }
    output::line(match (plan.changes.is_empty(), applied) {
        (_, true) => format!("applied: version {}, followed by every process within 5 s", stands.version),
        (true, false) => "no difference: nothing was written".to_owned(),
        (false, false) => "not applied: this shows what would change".to_owned(),
    })?;
    Ok(Done::Ok)
}

async fn show(context: Context, json: bool) -> anyhow::Result<Done> {
    let stored = context.store.policy.get().await?;
    let (at, by) =
        (stored.as_ref().map(|stored| stored.applied_at), stored.as_ref().map(|s| s.applied_by.clone()));
    let StoredPolicy { text, digest, version, .. } = stored.unwrap_or_else(StoredPolicy::none);
    if json {
        let applied_at = at.map(broker_domain::Timestamp::as_secs);
        output::json(&PolicyShown { policy: text, digest, version, applied_at, applied_by: by })?;
    } else if let (Some(at), Some(by)) = (at, by) {
        output::line(format_args!("# version {version}, applied by {by} at {}", at.date_and_time()))?;
        output::raw(&text)?;
    } else {
        output::line("# no policy was applied: any sandbox for every request")?;
    }
    Ok(Done::Ok)
}
