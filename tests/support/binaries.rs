//! Executables under test.
//!
//! Cargo builds them once per test process and names the files; other files in the target directory are never run. The
//! profile is the one of the tests themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Paths of the freshly built executables.
#[derive(Debug)]
pub struct Binaries {
    /// The `broker` command.
    pub broker: PathBuf,
    /// The HTTP API.
    pub api: PathBuf,
    /// The worker.
    pub worker: PathBuf,
}

/// Builds the workspace's binaries, the first time it is called.
///
/// # Panics
///
/// When the build fails; cargo's own messages are on stderr.
pub fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(build)
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

fn build() -> Binaries {
    let mut cargo = Command::new(env!("CARGO"));
    // Of the whole workspace, so that dependencies have the features that `cargo test` compiled them with.
    cargo.current_dir(workspace()).args(["build", "--workspace"]);
    cargo.args(["--bin", "broker", "--bin", "broker-api", "--bin", "broker-worker"]);
    cargo.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo sets for the test process would look like a changed environment to build scripts.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if set_by_cargo.iter().any(|prefix| name.starts_with(prefix)) || name == "LD_LIBRARY_PATH" {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo build of the binaries failed: {}", output.status);

    let artifacts = executables(&String::from_utf8_lossy(&output.stdout));
    let find = |wanted: &str| {
        let found = artifacts.iter().find(|(name, _)| name == wanted);
        found.unwrap_or_else(|| panic!("cargo built no binary {wanted}; it built {artifacts:?}")).1.clone()
    };
    Binaries { broker: find("broker"), api: find("broker-api"), worker: find("broker-worker") }
}

/// Name and path of each executable in cargo's JSON messages.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}
