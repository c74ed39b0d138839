//! `broker refill`: how many sandboxes each flavour is short of and why; pauses and resumes asking for new ones.

use broker_domain::FlavourName;
use broker_domain::policy::Policy;
use broker_store::{Act, RefillStatus, pause_refill, resume_refill};
use clap::{Args, Subcommand};

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum RefillCommand {
    /// Show how many sandboxes each flavour is missing, and why
    Status(Output),
    /// Pause refill of a flavour: no new sandboxes are asked for
    Pause(RefillFlavour),
    /// Resume refill of a flavour, also after its breaker stopped it
    Resume(RefillFlavour),
}

#[derive(Debug, Args)]
pub(crate) struct RefillFlavour {
    /// The flavour
    flavour: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: Context, command: RefillCommand) -> anyhow::Result<Done> {
    match command {
        RefillCommand::Status(output) => status(&context, &policy::in_force(&context).await?, &output).await,
        RefillCommand::Pause(args) => change(&context, args, Act::PauseRefill).await,
        RefillCommand::Resume(args) => change(&context, args, Act::ResumeRefill).await,
    }
}

async fn status(context: &Context, policy: &Policy, output: &Output) -> anyhow::Result<Done> {
    let flavours = RefillStatus::all(&context.store, policy, context.now().await?).await?;
    if output.json {
        output::json(&flavours)?;
        return Ok(Done::Ok);
    }
    let rows = flavours.into_iter().map(|f| {
        let live = f.live.map_or_else(|| "-".to_owned(), |live| live.to_string());
        let numbers = [f.desired, f.available, f.arriving, f.tickets, f.missing];
        let [desired, available, arriving, tickets, missing] = numbers.map(|number| number.to_string());
        let (state, max) = (f.state.to_owned(), f.max.to_string());
        [f.flavour, state, desired, available, arriving, tickets, missing, live, max]
    });
    let header =
        ["FLAVOUR", "STATE", "DESIRED", "AVAILABLE", "ARRIVING", "TICKETS", "MISSING", "LIVE", "MAX"];
    output::table(header, rows)?;
    Ok(Done::Ok)
}

/// Whether a flavour is refilled. Beside a policy that cannot be read, which is told, it is one that was refilled before: a hook that
/// makes too many must be stopped all the same.
async fn is_refilled(context: &Context, name: &FlavourName) -> anyhow::Result<bool> {
    match policy::in_force(context).await {
        Ok(policy) => Ok(policy.flavours().get(name).is_some_and(|flavour| flavour.refill.is_some())),
        Err(error) => {
            output::complain(&format!("{error:#}"));
            Ok(context.store.refill.flow(name).await?.version > 0)
        }
    }
}

async fn change(context: &Context, args: RefillFlavour, act: Act) -> anyhow::Result<Done> {
    let name = match FlavourName::new(args.flavour.clone()) {
        Ok(name) if is_refilled(context, &name).await? => name,
        Ok(_) | Err(_) => {
            output::complain(&format!("the policy refills no flavour {:?}", args.flavour));
            return Ok(Done::Misused);
        }
    };
    let name = &name;
    let unchanged = context.act((act, name.as_str(), None), async |line| {
        let store = &context.store;
        if act == Act::PauseRefill {
            let paused = pause_refill(store, name, &context.operator, context.now().await?).await?;
            return Ok(context.already_paused(line, paused).await);
        }
        let resumed = resume_refill(store, name).await?.is_applied();
        Ok(if resumed { None } else { Some(context.unchanged(line, "nothing held it up").await) })
    });
    let unchanged = unchanged.await?;
    let state = if act == Act::PauseRefill { "paused" } else { "running" };
    if args.output.json {
        let changed = unchanged.is_none();
        output::json(&serde_json::json!({ "flavour": name, "state": state, "changed": changed }))?;
    } else {
        let why = unchanged.map(|why| format!("; {why}")).unwrap_or_default();
        output::line(format_args!("{name} is {state}{why}"))?;
    }
    Ok(Done::Ok)
}
