//! `broker refill`: how many sandboxes each flavour is short of and why; pauses and resumes asking for new ones.

use broker_domain::policy::{Flavour, Policy, Refill};
use broker_domain::refill::{Counted, Flow, HookBreaker, Round};
use broker_domain::{FlavourName, Status, Timestamp};
use broker_store::{Act, Write};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum RefillCommand {
    /// Show what each flavour is short of, and what holds it up
    Status(Output),
    /// Ask for no more sandboxes of a flavour
    Pause(RefillFlavour),
    /// Ask again, also after the hook failed so often that it is not called
    Resume(RefillFlavour),
}

#[derive(Debug, Args)]
pub(crate) struct RefillFlavour {
    /// The flavour
    flavour: String,
    #[command(flatten)]
    output: Output,
}

/// One flavour.
#[derive(Debug, Serialize)]
struct FlavourStatus {
    flavour: String,
    state: &'static str,
    desired: u64,
    available: u64,
    arriving: u64,
    tickets: u64,
    missing: u64,
    max: u32,
    /// How many there are in whatever state, by the census; null if it is older than the flavour.
    live: Option<u64>,
    /// When the next call is made, in seconds since the epoch; null if nothing holds it up.
    next_call_at: Option<u64>,
}

pub(crate) async fn run(context: Context, command: RefillCommand) -> anyhow::Result<Done> {
    let stored = context.store.policy.get().await?;
    let policy = stored.map(|stored| stored.policy()).transpose()?.unwrap_or_default();
    match command {
        RefillCommand::Status(output) => status(&context, &policy, &output).await,
        RefillCommand::Pause(args) => change(&context, &policy, args, Act::PauseRefill).await,
        RefillCommand::Resume(args) => change(&context, &policy, args, Act::ResumeRefill).await,
    }
}

async fn status(context: &Context, policy: &Policy, output: &Output) -> anyhow::Result<Done> {
    let mut flavours = Vec::new();
    for (name, flavour) in policy.flavours() {
        if let Some(refill) = &flavour.refill {
            flavours.push(of_flavour(context, name, refill).await?);
        }
    }
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

async fn of_flavour(context: &Context, name: &FlavourName, refill: &Refill) -> anyhow::Result<FlavourStatus> {
    let (store, now) = (&context.store, context.now().await?);
    let flow = store.refill.flow(name).await?;
    let census = store.census.get().await?;
    let counts = census.as_ref().and_then(|census| census.by_flavour.get(name.as_str()));
    let live = counts.map(|counts| {
        counts.iter().filter(|(status, _)| **status != Status::Deleted).map(|(_, count)| count).sum::<u64>()
    });
    let tickets = store.refill.tickets(name).await?;
    let count = |status| counts.and_then(|counts| counts.get(&status)).copied().unwrap_or_default();
    let (available, arriving) = (count(Status::Available), count(Status::Arriving));
    let as_of = census.map_or(Timestamp::from_ms(0), |census| census.as_of);
    let counted = Counted { available, arriving, live: live.unwrap_or_default(), as_of };
    let need = Round { refill, flow: &flow, tickets: &tickets, counted, now }.need();
    let next_call_at = flow.breaker.probe_at.max(flow.rests_until.filter(|until| now < *until));
    Ok(FlavourStatus {
        flavour: name.to_string(),
        state: state(refill, &flow, live, now),
        desired: need.desired,
        available,
        arriving,
        tickets: tickets.iter().filter(|ticket| ticket.is_open()).count() as u64,
        missing: need.missing,
        max: refill.max,
        live,
        next_call_at: next_call_at.map(Timestamp::as_secs),
    })
}

fn state(refill: &Refill, flow: &Flow, live: Option<u64>, now: Timestamp) -> &'static str {
    if flow.paused_at.is_some() {
        "paused"
    } else if flow.breaker.is_open() {
        "stopped"
    } else if refill.hook.is_none() {
        "signal"
    } else if live.is_none() {
        "not counted yet"
    } else if flow.rests_until.is_some_and(|until| now < until) {
        "slowed"
    } else {
        "running"
    }
}

async fn change(context: &Context, policy: &Policy, args: RefillFlavour, act: Act) -> anyhow::Result<Done> {
    let name = FlavourName::new(args.flavour.clone()).ok();
    let flavour = name.and_then(|name| policy.flavours().get_key_value(&name));
    let Some((name, Flavour { refill: Some(_), .. })) = flavour else {
        output::complain(&format!("the policy refills no flavour {:?}", args.flavour));
        return Ok(Done::Misused);
    };
    context.audit(act, name.as_str(), None).await?;
    loop {
        let (now, flow) = (context.now().await?, context.store.refill.flow(name).await?);
        let (paused_at, version) = (flow.paused_at, flow.version + 1);
        let after = if act == Act::PauseRefill {
            Flow { version, paused_at: paused_at.or(Some(now)), ..flow }
        } else {
            Flow { version, paused_at: None, rests_until: None, breaker: HookBreaker::default(), ..flow }
        };
        if context.store.refill.write_flow(name, &after).await? == Write::Applied {
            break;
        }
    }
    let state = if act == Act::PauseRefill { "paused" } else { "running" };
    if args.output.json {
        output::json(&serde_json::json!({ "flavour": name, "state": state }))?;
    } else {
        output::line(format_args!("{name} is {state}"))?;
    }
    Ok(Done::Ok)
}
