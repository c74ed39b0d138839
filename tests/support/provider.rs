//! Provider stand-in of a story: a `broker provider` process, and its faults.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::binaries::binaries;
use crate::endpoint;
use crate::process::Process;
use crate::setup::Setup;

/// A requested deletion.
#[derive(Clone, Debug, Deserialize)]
pub struct Deletion {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Of which account.
    pub uuid: String,
    /// Its result: `deleted`, `unknown`, `lied`, `fault {status}`.
    pub outcome: String,
    /// The `traceparent` that came with it.
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// The secret of the stand-in's hooks, and of the brokers that [`Provider::setup`] sets up.
pub const HOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An event that a hook of the stand-in was sent.
#[derive(Clone, Debug, Deserialize)]
pub struct HookCall {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Its `webhook-id`.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it tells.
    pub data: Value,
    /// What was answered.
    pub status: u16,
}

/// The state of the stand-in.
#[derive(Clone, Debug, Deserialize)]
pub struct World {
    /// The sandbox ids of its accounts.
    pub accounts: Vec<String>,
    /// Every deletion it was asked for, in order.
    pub deletions: Vec<Deletion>,
    /// How many accounts it ever made.
    pub made: usize,
    /// How often its list was asked for, by page.
    pub lists: u32,
    /// How often it was asked to delete.
    pub deletes: u32,
    /// What its hooks were sent, in order.
    pub hooks: Vec<HookCall>,
}

impl World {
    /// The deletions that came to this end.
    pub fn deletions_that(&self, outcome: &str) -> usize {
        self.deletions.iter().filter(|deletion| deletion.outcome == outcome).count()
    }

    /// The events of this type that hooks were sent.
    pub fn hooked<'w>(&'w self, kind: &'w str) -> impl Iterator<Item = &'w HookCall> {
        self.hooks.iter().filter(move |call| call.kind == kind)
    }
}

/// A running stand-in. Dropped, it is gone.
#[derive(Debug)]
pub struct Provider {
    _process: Process,
    url: String,
    token: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Provider {
    /// One with this many accounts, the same that `Setup::pool` seeds.
    pub async fn start(accounts: usize) -> Self {
        Self::start_with(accounts, &[]).await
    }

    /// One with more arguments of `broker provider`.
    pub async fn start_with(accounts: usize, args: &[&str]) -> Self {
        let mut command = Command::new(&binaries().broker);
        command.args(["provider", "--accounts", &accounts.to_string()]).args(args);
        let command = endpoint::clean(&mut command).env("BROKER_HOOK_SECRETS", HOOK_SECRET);
        let mut process = Process::start("provider", command);
        let text = |line: &Value, key: &str| line[key].as_str().map(str::to_owned);
        let (url, token) = process
            .stdout_line("{\"provider_url\", \"token\"}", |line| {
                Some((text(line, "provider_url")?, text(line, "token")?))
            })
            .await;
        Self { _process: process, url, token, http: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Where it is, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A setup whose broker has this provider, and no patience with a failed deletion.
    pub fn setup(&self) -> Setup {
        Setup::new()
            .apis(2)
            .workers(3)
            .var("BROKER_PROVIDER_URL", &self.url)
            .var("BROKER_PROVIDER_TOKEN", &self.token)
            .var("BROKER_PROVIDER_RATE", "50")
            .var("BROKER_PROVIDER_TIMEOUT_S", "5")
            .var("BROKER_DELETION_BACKOFF_S", "1")
            .var("BROKER_HOOK_SECRETS", HOOK_SECRET)
            .var("BROKER_HOOK_NETWORKS", "127.0.0.1")
    }

    /// Its faults from now on; `{}` ends them.
    pub async fn misbehave(&self, faults: Value) {
        self.call(Method::PUT, "/stand-in/faults", faults).await;
    }

    /// It does as it should again.
    pub async fn behave(&self) {
        self.misbehave(json!({})).await;
    }

    /// More accounts.
    pub async fn grow(&self, count: usize) {
        self.call(Method::POST, "/stand-in/accounts", json!({ "count": count })).await;
    }

    /// Another account under this sandbox id, in the place of the one that has it.
    pub async fn remake(&self, sandbox: &str) {
        self.call(Method::POST, "/stand-in/accounts", json!({ "csp_id": sandbox })).await;
    }

    /// New labels of accounts, by those that they have: `{"seed-000001": "another"}`. Two may change places.
    pub async fn relabel(&self, labels: Value) {
        self.call(Method::POST, "/stand-in/accounts", json!({ "relabel": labels })).await;
    }

    /// A row as it is written here, beside the others.
    pub async fn list(&self, sandbox: &str, external_id: &str) {
        let rows = json!([{ "csp_id": sandbox, "id": external_id }]);
        self.call(Method::POST, "/stand-in/accounts", json!({ "rows": rows })).await;
    }

    /// Its state.
    pub async fn world(&self) -> World {
        let answer = self.call(Method::GET, "/stand-in", Value::Null).await;
        World::deserialize(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.body(Full::from(body.to_string())).expect("a request");
        let response = self.http.request(request).await.expect("the stand-in answers");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// That no more deletions were asked for than `rate` a second. A deletion may come up to `slack` after its slot.
///
/// # Panics
///
/// When there were more.
#[track_caller]
pub fn assert_paced(world: &World, rate: u64, slack: Duration) {
    let times: Vec<u64> = world.deletions.iter().map(|deletion| deletion.at_ms).collect();
    for (from, begin) in times.iter().enumerate() {
        for (to, end) in times.iter().enumerate().skip(from) {
            let within_ms = end - begin + u64::try_from(slack.as_millis()).expect("short");
            let most = rate * within_ms / 1_000 + 1;
            let count = (to - from + 1) as u64;
            assert!(count <= most, "{count} deletions within {within_ms} ms, at most {most}: {times:?}");
        }
    }
}
