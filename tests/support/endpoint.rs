//! SQS and DynamoDB endpoints: a `broker endpoints` process, one for all stories of a test process.
//!
//! Stories share it and are separated by table and queue prefix.

use std::process::Command;

use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::binaries::binaries;
use crate::process::Process;

/// The region every process of the tests names.
pub const REGION: &str = "eu-central-1";

/// Where SQS and DynamoDB answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Urls {
    /// Of DynamoDB.
    pub dynamodb_url: String,
    /// Of SQS.
    pub sqs_url: String,
}

impl Urls {
    /// The same endpoints through the proxy of `infra/check/iam/record.py`, if the tests run under it.
    #[expect(
        clippy::disallowed_methods,
        reason = "no test depends on it: the calls are only seen on their way"
    )]
    fn through_recorder(self) -> Self {
        let Some(recorder) = std::env::var_os("BROKER_TEST_RECORDER") else { return self };
        let through = |url: &str| {
            let port = url.rsplit(':').next().unwrap_or_default();
            format!("{}/{port}", recorder.display())
        };
        Self { dynamodb_url: through(&self.dynamodb_url), sqs_url: through(&self.sqs_url) }
    }
}

/// A running endpoint process.
#[derive(Debug)]
pub struct Endpoints {
    process: Process,
    /// Where it answers.
    pub urls: Urls,
}

impl Endpoints {
    /// Their process.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Starts one on free ports.
    pub async fn start() -> Self {
        let mut command = Command::new(&binaries().broker);
        command.args(["endpoints", "--dynamodb-port", "0", "--sqs-port", "0"]);
        let mut process = Process::start("endpoints", clean(&mut command));
        let parse = |line: &serde_json::Value| Urls::deserialize(line).ok();
        let urls = process.stdout_line("{\"dynamodb_url\", \"sqs_url\"}", parse).await;
        Self { process, urls: urls.through_recorder() }
    }

    /// The one of this test process; the [`crate::warden`] ends it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Endpoints> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }
}

/// Takes out of the environment whatever could point a process of ours anywhere but to the endpoints of the test.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("AWS_") || upper.starts_with("BROKER_") || upper.ends_with("_PROXY") {
            command.env_remove(&name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true")
}
