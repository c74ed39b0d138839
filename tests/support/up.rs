//! `broker up`, as a user starts it: one process with endpoints, API and workers of its own.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::api::{Api, TRACK_TOKEN};
use crate::binaries::binaries;
use crate::endpoint::{self, Urls};
use crate::process::Process;
use crate::queues::Queues;
use crate::setup::{Environment, as_on_aws};
use crate::wait::wait_for_condition;

/// A running `broker up`.
#[derive(Debug)]
pub struct Up {
    process: Process,
    api: Api,
    environment: Environment,
}

impl Up {
    /// Starts `broker up` with these arguments, on free ports, and waits until it is ready.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_with(Command::new(&binaries().broker), args).await
    }

    /// Waits until the index lists so many sandboxes as available.
    pub async fn lists(&self, available: usize) {
        let list = ["pool", "list", "--status", "available", "--json"];
        wait_for_condition("the index to list the pool", async || {
            let listed: Vec<Value> = self.environment.cli_ok(&list).await.json();
            if listed.len() == available { Ok(()) } else { Err(listed.len()) }
        })
        .await;
    }

    /// [`Up::start`] by a command that ends in running `broker` with its arguments.
    pub async fn start_with(mut command: Command, args: &[&str]) -> Self {
        endpoint::clean(&mut command).args(["up", "--port", "0"]).args(args);
        if as_on_aws() {
            command.arg("--aws-latency");
        }
        command.env("BROKER_TRACK_TOKENS", format!("platform={TRACK_TOKEN}"));
        command.env("BROKER_LOG", "info,dynoxide=error,rustack_sqs_core=error,broker_api=warn");
        command.env("BROKER_LOG_FORMAT", "json");
        let mut process = Process::start("broker-up", &mut command);
        let printed = wait_for_condition("broker up to tell its URLs", async || {
            process.must_run();
            let printed = process.printed();
            if printed.contains("Ctrl-C stops it") { Ok(printed) } else { Err(printed) }
        })
        .await;
        let told = |name: &str| {
            let after =
                printed.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {printed}")).1;
            after.split_whitespace().next().unwrap_or_default().to_owned()
        };
        let urls =
            Urls { dynamodb_url: told("AWS_ENDPOINT_URL_DYNAMODB"), sqs_url: told("AWS_ENDPOINT_URL_SQS") };
        let api = Api::new(told("URL").trim_start_matches("http://"));
        let up = Self { process, api, environment: Environment::named("broker", &urls) };
        wait_for_condition("broker up to be ready", async || match up.api.probe("/readyz").await {
            Some((200, _)) => Ok(()),
            other => Err(other),
        })
        .await;
        up
    }

    /// Its API.
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// The environment in which commands find its table and queues.
    pub const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Its queues.
    pub fn queues(&self) -> Queues {
        self.environment.queues()
    }

    /// Its child processes, the workers.
    pub fn workers(&self) -> Vec<Pid> {
        self.process.children()
    }

    /// Kills it (SIGKILL): nothing of it is drained, and it cannot tell its workers.
    pub fn kill(self) {
        drop(self.process);
    }

    /// The lines of its log with this message, those of its workers among them.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.process.logged(message)
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        self.process.printed()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops it by Ctrl-C and waits; it must end with exit code 0. All that it printed.
    pub async fn interrupt(mut self) -> String {
        self.process.signal(Signal::SIGINT);
        let status = self.process.ended().await;
        assert!(status.success(), "{status}\n{}", self.process.tail());
        self.process.printed()
    }

    /// Stops it as a supervisor does and waits; it must end with exit code 0.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}
