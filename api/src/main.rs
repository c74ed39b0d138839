//! `broker-api`: the API process, configured by the environment.

use std::process::ExitCode;

use broker_runtime::process;

fn main() -> ExitCode {
    process::main("broker-api", std::env::vars_os(), |process| async {
        let listener = process::listen(process.config.listen, "BROKER_LISTEN").await?;
        let admin = broker_api::listen_for_operators(&process.config).await?;
        broker_api::run(process, listener, admin).await
    })
}
