//! `broker-api`: the API process, configured by the environment.

use std::process::ExitCode;

use anyhow::Context as _;
use broker_common::process;
use tokio::net::TcpListener;

fn main() -> ExitCode {
    process::main("broker-api", |process| async {
        let address = process.config.listen;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        broker_api::run(process, listener).await
    })
}
