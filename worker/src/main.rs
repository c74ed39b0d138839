//! The `broker-worker` process.

use std::process::ExitCode;

use broker_runtime::process;

fn main() -> ExitCode {
    process::main("broker-worker", std::env::vars_os(), |process| async move {
        let ops = process::listen(process.config.metrics_listen, "BROKER_METRICS_LISTEN").await?;
        broker_worker::run(process, Some(ops)).await
    })
}
