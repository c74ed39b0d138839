//! The `broker` command, run as the operator runs it.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::binaries::binaries;
use crate::endpoint;
use crate::setup::Environment;

/// How a `broker …` ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code: 0 done, 1 failed, 2 usage, 3 found a violation.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

impl Output {
    /// Its stdout as JSON of this shape.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// `broker pool stats --json`: how many sandboxes there are, in total and by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the states of a sandbox")]
pub struct Stats {
    pub total: u64,
    pub arriving: u64,
    pub available: u64,
    pub allocated: u64,
    pub pending_deletion: u64,
    pub stale: u64,
    pub quarantined: u64,
    #[serde(default)]
    pub reserved: u64,
    pub deleted: u64,
    pub deletion_failed: u64,
}

/// `broker job run --json`: what a run did.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of broker_domain::JobReport")]
pub struct JobReport {
    pub found: u64,
    pub changed: u64,
    pub skipped: u64,
    pub failed: u64,
    pub duration_ms: u64,
    #[serde(default)]
    pub details: BTreeMap<String, u64>,
    pub aborted: Option<String>,
}

/// `broker pool verify --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    /// What contradicts the promises.
    pub violations: Vec<Violation>,
    /// Live leases.
    pub live_leases: usize,
    /// Allocated sandboxes by lab.
    pub by_lab: BTreeMap<String, u64>,
}

/// One broken promise.
#[derive(Clone, Debug, Deserialize)]
pub struct Violation {
    /// What kind, as a word.
    pub kind: String,
    /// What exactly, for people.
    pub detail: Value,
}

impl Environment {
    /// Runs `broker` with these arguments.
    pub async fn cli(&self, args: &[&str]) -> Output {
        self.cli_with(args, &[]).await
    }

    /// What runs `broker` with these arguments.
    pub fn cli_command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&binaries().broker);
        endpoint::clean(&mut command).args(args).envs(self.vars());
        // `init` makes what Terraform makes on AWS; what is left is the operator's.
        let role = if args.first() == Some(&"init") { "broker-init" } else { "broker-operator" };
        command.env("AWS_SDK_UA_APP_ID", role);
        command
    }

    /// [`Environment::cli`] with more environment variables.
    pub async fn cli_with(&self, args: &[&str], vars: &[(&str, &str)]) -> Output {
        let mut command = self.cli_command(args);
        command.envs(vars.iter().copied());
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("broker starts");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `broker` with these arguments; it must exit with 0.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn cli_ok(&self, args: &[&str]) -> Output {
        let output = self.cli(args).await;
        assert_eq!(output.code, 0, "broker {args:?}: {output:#?}");
        output
    }

    /// `broker pool stats`.
    pub async fn stats(&self) -> Stats {
        self.cli_ok(&["pool", "stats", "--json"]).await.json()
    }

    /// `broker job run`, which must not give up.
    ///
    /// # Panics
    ///
    /// When it does.
    pub async fn job(&self, job: &str) -> JobReport {
        self.lists_are_current().await;
        let output = self.cli(&["job", "run", job, "--json"]).await;
        let report: JobReport = output.json();
        // What it left to the next run is the caller's to judge.
        let is_partial = output.code == 1 && report.failed > 0 && report.aborted.is_none();
        assert!(output.code == 0 || is_partial, "job run {job}: {output:#?}");
        // What is asked of the API next finds what the job did.
        self.lists_are_current().await;
        report
    }

    /// `broker job run`, which must give up; what it says.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn job_refused(&self, job: &str) -> JobReport {
        self.lists_are_current().await;
        let output = self.cli(&["job", "run", job, "--json"]).await;
        assert_eq!(output.code, 1, "job run {job}: {output:#?}");
        let report: JobReport = output.json();
        assert!(report.aborted.is_some(), "{report:?}");
        report
    }

    /// `broker sandbox show`.
    pub async fn shown(&self, sandbox: &str) -> Value {
        self.cli_ok(&["sandbox", "show", sandbox, "--json"]).await.json()
    }

    /// `broker pool verify`, which must find nothing.
    ///
    /// # Panics
    ///
    /// When it finds a violation.
    pub async fn verify(&self) -> Verdict {
        let output = self.cli(&["pool", "verify", "--json"]).await;
        assert_eq!(output.code, 0, "pool verify: {output:#?}");
        let verdict: Verdict = output.json();
        assert!(verdict.violations.is_empty(), "exit code 0 with {:#?}", verdict.violations);
        verdict
    }

    /// `broker pool verify`, which must find something.
    ///
    /// # Panics
    ///
    /// When it does not end with exit code 3.
    pub async fn violations(&self) -> Vec<Violation> {
        let output = self.cli(&["pool", "verify", "--json"]).await;
        assert_eq!(output.code, 3, "pool verify: {output:#?}");
        output.json::<Verdict>().violations
    }
}
