//! Contract test: schemathesis on the document that the API itself serves.

use std::process::{Command, Stdio};

use broker_tests::api::{ADMIN_TOKEN, TRACK_TOKEN};
use broker_tests::{Broker, binaries, endpoint, warden};

/// Whether schemathesis can be started, or what to do about it.
pub(crate) fn is_installed() -> Result<(), String> {
    let version = Command::new("schemathesis").arg("--version").stdout(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => {
            Err("schemathesis is missing. Install it with\n\n    pip install schemathesis==4.32.5".to_owned())
        }
    }
}

/// Whether everything that the document promises was found to hold. What was not, schemathesis prints.
pub(crate) async fn holds(broker: &Broker, examples: u32, seed: Option<u64>) -> bool {
    let links = ["--phases", "stateful", "--include-tag", "tracks"];
    let runs = [
        ("schemathesis.toml", &[][..], ""),
        ("schemathesis-links.toml", &links[..], "wait=20"),
        ("schemathesis-links.toml", &links[..], "respond-async"),
    ];
    for (config, only, prefer) in runs {
        let mut command = Command::new("schemathesis");
        endpoint::clean(&mut command);
        command.arg("--config-file").arg(binaries::workspace().join("tests/docs").join(config)).arg("run");
        command.arg(format!("http://{}/v1/openapi.json", broker.api(0).address()));
        // All checks are on; `--checks all` would also turn on again what the file turns off.
        command.args(["--continue-on-failure", "--no-color"]).args(only);
        command.args(["--max-examples", &examples.to_string()]);
        command.args(seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
        command.env("BROKER_TRACK_TOKEN", TRACK_TOKEN).env("BROKER_ADMIN_TOKEN", ADMIN_TOKEN);
        // Its own files go with the logs.
        command.env("BROKER_PREFER", prefer).current_dir(warden::scratch()).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        if !command.kill_on_drop(true).status().await.expect("schemathesis starts").success() {
            return false;
        }
    }
    true
}
