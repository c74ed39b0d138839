//! `broker api` and `broker worker`: the same processes as the binaries of those names, with flags.

use broker_runtime::process::{self, Process};
use clap::Args;

use crate::context::Settings;
use crate::done::Done;

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Drain when standard input closes, as it does when the parent process dies
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

pub(crate) fn api(settings: &Settings) -> Done {
    let run = |process: Process| async move {
        let address = process.config.listen;
        let listener = process::listen(address, "BROKER_LISTEN").await?;
        let admin = broker_api::listen_for_operators(&process.config).await?;
        broker_api::run(process, listener, admin).await
    };
    Done::Exit(settings.over(&[], |strings| process::run_with("broker api", strings, run)))
}

pub(crate) fn worker(settings: &Settings, until_stdin_closes: bool) -> Done {
    let run = |process: Process| async move {
        if until_stdin_closes {
            drain_when_stdin_closes(&process);
        }
        let address = process.config.metrics_listen;
        let ops = process::listen(address, "BROKER_METRICS_LISTEN").await?;
        broker_worker::run(process, Some(ops)).await
    };
    Done::Exit(settings.over(&[], |strings| process::run_with("broker worker", strings, run)))
}

/// A thread that is never joined: a read of standard input cannot be cancelled.
fn drain_when_stdin_closes(process: &Process) {
    let soft = process.lifecycle.soft.clone();
    std::thread::spawn(move || {
        // An error ends the input as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        soft.cancel();
    });
}
