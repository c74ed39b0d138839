//! The `broker` command: everything on one machine, each part alone, and the operator's tools.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or a bad setting, 3 found a violation.

mod args;
mod commands;
mod context;
mod endpoints;
mod output;

use std::process::ExitCode;

use args::{Cli, Command, PoolCommand};
use commands::Done;
use context::Settings;

fn main() -> ExitCode {
    let (cli, flags) = args::parse();
    match run(cli, flags) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Exit(code)) => code,
        Ok(Done::ViolationFound) => ExitCode::from(3),
        Err(error) => output::refuse(&error),
    }
}

/// Every command on one screen.
fn run(cli: Cli, flags: args::Flags) -> anyhow::Result<Done> {
    let settings = Settings::new(flags);
    match cli.command.unwrap_or_else(|| Command::Up(args::Up::default())) {
        Command::Up(up) => commands::up::run(&settings, up),
        Command::Endpoints(endpoints) => commands::endpoints::run(&settings, endpoints),
        Command::Api => Ok(commands::processes::api(&settings)),
        Command::Worker => Ok(commands::processes::worker(&settings)),
        Command::Init => settings.once(commands::init::run),
        Command::Queues(out) => settings.once(async |context| commands::queues::run(context, out.json).await),
        Command::Pool(pool) => settings.once(async |context| match pool {
            PoolCommand::Seed(seed) => commands::pool::seed::run(context, seed).await,
            PoolCommand::List(list) => commands::pool::list::run(context, list).await,
            PoolCommand::Stats(out) => commands::pool::stats::run(context, out.json).await,
            PoolCommand::Verify(out) => commands::pool::verify::run(context, out.json).await,
        }),
    }
}
