//! `broker hooks test`: sends one signed test event to a hook of the policy and prints what it answers.
//!
//! Exit codes: 0 it says yes, 1 it does not, 2 the policy has no such hook or there is no secret to sign with.

use broker_domain::FlavourName;
use broker_domain::policy::{Hook, Policy};
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind, Hooks};
use broker_runtime::config::ConfigError;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum HooksCommand {
    /// Send one signed test event to a hook of the policy and print its answer
    Test(HooksTest),
}

#[derive(Debug, Args)]
pub(crate) struct HooksTest {
    /// The hook: FLAVOUR.gate, FLAVOUR.before_delete or FLAVOUR.refill
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    output: Output,
}

/// What a hook answered.
#[derive(Serialize)]
struct HookResult<'a> {
    hook: &'a str,
    url: &'a str,
    answer: &'a str,
    status: Option<u16>,
    milliseconds: u64,
    reason: Option<String>,
}

pub(crate) async fn run(context: Context, command: HooksCommand) -> anyhow::Result<Done> {
    match command {
        HooksCommand::Test(args) => test(context, args).await,
    }
}

async fn test(context: Context, args: HooksTest) -> anyhow::Result<Done> {
    let stored = context.store.policy.get().await?;
    let policy = stored.map(|stored| stored.policy()).transpose()?.unwrap_or_default();
    let Some(hook) = hook(&policy, &args.name) else {
        let names = names(&policy).join(", ");
        let names = if names.is_empty() { "it has none".to_owned() } else { format!("it has {names}") };
        output::complain(&format!("the policy has no hook {:?}: {names}", args.name));
        return Ok(Done::Misused);
    };
    let hooks = Hooks::new(&context.config.hooks, context.clock.clone());
    if !hooks.can_sign() {
        let problem = "is not set: nothing is sent to a hook unsigned";
        return Err(ConfigError::new("BROKER_HOOK_SECRETS", problem).into());
    }
    let at = context.clock.now();
    let id = format!("test_{}", context.entropy.uuid());
    let event = HookEvent { id, kind: HookKind::Test, at, data: json!({ "hook": args.name }) };
    let began = context.clock.instant();
    let answer = hooks.call(hook, &event).await;
    let took = context.clock.instant().duration_since(began);
    let told = HookResult {
        hook: &args.name,
        url: hook.url.as_str(),
        answer: answer.as_str(),
        status: answer.status(),
        milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        reason: answer.reason(),
    };
    show(&told, args.output.json)?;
    Ok(if matches!(answer, HookAnswer::Yes { .. }) { Done::Ok } else { Done::Failed })
}

fn show(told: &HookResult<'_>, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(told);
    }
    let status = told.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let reason = told.reason.clone().unwrap_or_else(|| "-".to_owned());
    let (hook, url, answer) = (told.hook.to_owned(), told.url.to_owned(), told.answer.to_owned());
    let row = [hook, url, answer, status, told.milliseconds.to_string(), reason];
    output::table(["HOOK", "URL", "ANSWER", "STATUS", "MS", "REASON"], [row])
}

/// The hook called `FLAVOUR.gate`, `FLAVOUR.before_delete` or `FLAVOUR.refill`.
fn hook<'p>(policy: &'p Policy, name: &str) -> Option<&'p Hook> {
    let (flavour, which) = name.rsplit_once('.')?;
    let flavour = policy.flavours().get(&FlavourName::new(flavour).ok()?)?;
    match which {
        "gate" => flavour.gate.as_ref().map(|gate| &gate.hook),
        "before_delete" => flavour.before_delete.as_ref().map(|before| &before.hook),
        "refill" => flavour.refill.as_ref()?.hook.as_ref(),
        _ => None,
    }
}

fn names(policy: &Policy) -> Vec<String> {
    let each = policy
        .flavours()
        .keys()
        .flat_map(|flavour| ["gate", "before_delete", "refill"].map(|which| format!("{flavour}.{which}")));
    each.filter(|name| hook(policy, name).is_some()).collect()
}
