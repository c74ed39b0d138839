//! The `broker-worker` process.

use std::process::ExitCode;

use anyhow::Context as _;
use broker_common::process;
use tokio::net::TcpListener;

fn main() -> ExitCode {
    process::main("broker-worker", |process| async move {
        let address = process.config.metrics_listen;
        let ops = TcpListener::bind(address)
            .await
            .with_context(|| format!("BROKER_METRICS_LISTEN: cannot listen on {address}"))?;
        broker_worker::run(process, Some(ops)).await
    })
}
