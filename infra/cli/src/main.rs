//! `broker` command: the whole broker on one machine, each part alone, and the operator's tools.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or a bad setting, 3 found a violation.

mod args;
mod commands;
mod context;
mod done;
mod output;

use std::process::ExitCode;

use args::{Cli, Command};
use broker_runtime::aws::Patience;
use commands::pool::PoolCommand;
use context::{Flags, Settings};
use done::Done;

fn main() -> ExitCode {
    let (cli, flags) = args::parse();
    match run(cli, flags) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Exit(code)) => code,
        Ok(Done::Misused) => ExitCode::from(2),
        Ok(Done::Failed) => ExitCode::FAILURE,
        Ok(Done::ViolationFound) => ExitCode::from(3),
        Err(error) => output::refuse(&error),
    }
}

/// Whether a command tells of names that are no settings in a way of its own: in its log, or as a finding.
const fn tells_of_unknown_names(command: &Command) -> bool {
    matches!(command, Command::Api | Command::Worker(_) | Command::Doctor(_))
}

/// All commands.
fn run(cli: Cli, flags: Flags) -> anyhow::Result<Done> {
    let settings = Settings::new(flags, cli.by, std::env::vars_os())?;
    let command = cli.command.unwrap_or_else(|| Command::Up(commands::up::Up::default()));
    if !tells_of_unknown_names(&command) {
        settings.unknown_names().iter().for_each(|unknown| output::complain(&unknown.to_string()));
    }
    match command {
        Command::Up(up) => commands::up::run(&settings, up),
        Command::Endpoints(endpoints) => commands::endpoints::run(&settings, endpoints),
        Command::Provider(provider) => commands::provider::run(&settings, provider),
        Command::Api => Ok(commands::processes::api(&settings)),
        Command::Worker(worker) => Ok(commands::processes::worker(&settings, worker.until_stdin_closes)),
        // It looks at the table first: one of another tool has no settings.
        Command::Init(init) => {
            settings.once_unbound(Patience::Long, async |context| commands::init::run(context, init).await)
        }
        Command::Queues(out) => settings.once(async |context| commands::queues::run(context, out.json).await),
        Command::Overview(args) => {
            settings.once(async |context| commands::overview::run(context, args).await)
        }
        Command::Audit(audit) => settings.once(async |context| commands::audit::run(context, audit).await),
        Command::Lease(args) => commands::lease::run(args, |name| settings.variable(name)),
        Command::Doctor(out) => commands::doctor::run(&settings, out.json),
        // With whatever number of shards the table has: it is what changes.
        Command::Pool(PoolCommand::Reshard(args)) => settings
            .once_unbound(Patience::Long, async |context| commands::pool::reshard::run(context, args).await),
        Command::Pool(command) => settings.once(async |context| commands::pool::run(context, command).await),
        Command::DeadLetters(command) => {
            settings.once(async |context| commands::dead_letters::run(context, command).await)
        }
        Command::Policy(command) => commands::policy::run(&settings, command),
        Command::Job(command) => settings.once(async |context| commands::job::run(context, command).await),
        Command::Refill(command) => {
            settings.once(async |context| commands::refill::run(context, command).await)
        }
        Command::Reservation(command) => {
            settings.once(async |context| commands::reservation::run(context, command).await)
        }
        Command::Hooks(command) => {
            settings.once(async |context| commands::hooks::run(context, command).await)
        }
        Command::Tenants(args) => settings.once(async |context| commands::tenants::run(context, args).await),
        Command::Track(track) => settings.once(async |context| commands::track::run(context, track).await),
        Command::Quarantine(command) => {
            settings.once(async |context| commands::quarantine::run(context, command).await)
        }
        Command::Waiting(command) => {
            settings.once(async |context| commands::waiting::run(context, command).await)
        }
        Command::Sandbox(command) => {
            settings.once(async |context| commands::sandbox::run(context, command).await)
        }
    }
}
