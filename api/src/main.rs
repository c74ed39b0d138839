//! `broker-api`: the API process, configured by the environment.

use std::process::ExitCode;

use broker_runtime::process;

fn main() -> ExitCode {
    process::main("broker-api", std::env::vars_os(), |process| async {
        let listener = process::listen(process.config.listen, "BROKER_LISTEN").await?;
        let admin = match process.config.admin_listen {
            Some(address) => Some(process::listen(address, "BROKER_ADMIN_LISTEN").await?),
            None => None,
        };
        broker_api::run(process, listener, admin).await
    })
}
