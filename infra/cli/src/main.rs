//! `broker` command: the whole broker on one machine, each part alone, and the operator's tools.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or a bad setting, 3 found a violation.

mod args;
mod commands;
mod context;
mod done;
mod output;

use std::process::ExitCode;

use args::{Cli, Command, DeadLettersCommand, JobCommand, PoolCommand, SandboxCommand};
use context::Settings;
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

/// All commands.
fn run(cli: Cli, flags: args::Flags) -> anyhow::Result<Done> {
    let settings = Settings::new(flags, std::env::vars_os());
    match cli.command.unwrap_or_else(|| Command::Up(args::Up::default())) {
        Command::Up(up) => commands::up::run(&settings, up),
        Command::Endpoints(endpoints) => commands::endpoints::run(&settings, endpoints),
        Command::Provider(provider) => commands::provider::run(&settings, provider),
        Command::Api => Ok(commands::processes::api(&settings)),
        Command::Worker(worker) => Ok(commands::processes::worker(&settings, worker.until_stdin_closes)),
        Command::Init(init) => settings.once(async |context| commands::init::run(context, init).await),
        Command::Queues(out) => settings.once(async |context| commands::queues::run(context, out.json).await),
        Command::Audit(audit) => settings.once(async |context| commands::audit::run(context, audit).await),
        Command::Doctor(out) => commands::doctor::run(&settings, out.json),
        Command::Pool(pool) => settings.once(async |context| match pool {
            PoolCommand::Seed(seed) => commands::pool::seed::run(context, seed).await,
            PoolCommand::List(list) => commands::pool::list::run(context, list).await,
            PoolCommand::Stats(out) => commands::pool::stats::run(context, out.json).await,
            PoolCommand::Adopt(adopt) => commands::pool::adopt::run(context, adopt).await,
            PoolCommand::Pause(out) => commands::pool::pause::pause(context, out.json).await,
            PoolCommand::Resume(out) => commands::pool::pause::resume(context, out.json).await,
            PoolCommand::Reconcile(args) => commands::pool::reconcile::run(context, args).await,
            PoolCommand::Verify(out) => commands::pool::verify::run(context, out.json).await,
        }),
        Command::DeadLetters(letters) => settings.once(async |context| match letters {
            DeadLettersCommand::List(list) => commands::dead_letters::list::run(context, list).await,
            DeadLettersCommand::Show(show) => commands::dead_letters::show::run(context, show).await,
            DeadLettersCommand::Replay(replay) => {
                commands::dead_letters::action::replay(context, replay).await
            }
            DeadLettersCommand::Discard(discard) => {
                commands::dead_letters::action::discard(context, discard).await
            }
        }),
        Command::Job(job) => settings.once(async |context| match job {
            JobCommand::Run(run) => commands::job::run(context, run).await,
            JobCommand::Pause(name) => commands::job::pause(context, name).await,
            JobCommand::Resume(name) => commands::job::resume(context, name).await,
        }),
        Command::Sandbox(sandbox) => settings.once(async |context| match sandbox {
            SandboxCommand::Show(one) => commands::sandbox::show(context, one).await,
            SandboxCommand::Release(one) => commands::sandbox::release(context, one).await,
            SandboxCommand::Extend(extend) => commands::sandbox::extend(context, extend).await,
            SandboxCommand::RetryDelete(one) => commands::sandbox::retry_delete(context, one).await,
        }),
    }
}
