//! Setup of a broker, and the environment of its processes and commands.

use std::sync::atomic::{AtomicU64, Ordering};

use broker_local::aws_shape::Shaper;

use crate::endpoint::{REGION, Urls};
use crate::queues::Queues;
use crate::table::Table;
use crate::wait::wait_until;

/// The options of a story's broker.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) apis: usize,
    pub(crate) workers: usize,
    pub(crate) pool: usize,
    pub(crate) vars: Vec<(String, String)>,
    pub(crate) faults: Option<u64>,
    pub(crate) alone: bool,
    pub(crate) aws: bool,
}

impl Setup {
    /// One API, one worker, an empty pool. A story that is about races asks for more.
    pub fn new() -> Self {
        // A test is not about how fast a busy machine is: a story that is about the wait names it.
        let vars = [
            ("BROKER_WAIT_S", "45"),
            ("BROKER_POLL_WAIT_S", "1"),
            // Nor about the load balancer that a lame duck waits for, unless there is one.
            ("BROKER_LAME_DUCK_S", "0"),
            // Jobs run when a story runs them; a story that is about the schedule names it.
            ("BROKER_SCHEDULER", "external"),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { apis: 1, workers: 1, pool: 0, vars, faults: None, alone: false, aws: as_on_aws() }
    }

    /// This many APIs.
    pub fn apis(self, apis: usize) -> Self {
        Self { apis, ..self }
    }

    /// This many workers.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// This many sandboxes, `sandbox-000000` and on.
    pub fn pool(self, pool: usize) -> Self {
        Self { pool, ..self }
    }

    /// With a [`FaultProxy`](crate::FaultProxy) between the processes and AWS, which repeats its choices for the same seed.
    pub fn faults(self, seed: u64) -> Self {
        Self { faults: Some(seed), ..self }
    }

    /// With an endpoint process of its own, which nothing was asked of before: for measuring.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// With AWS as it is, whether or not every story meets it: an index that lags, conflicts, hops that take their time.
    pub fn on_aws(self) -> Self {
        Self { aws: true, ..self }
    }

    /// With this environment variable, over a default.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether every story meets AWS as it is: `BROKER_TEST_AWS=1 cargo test …`. What each story proves must hold there, too.
#[expect(
    clippy::disallowed_methods,
    reason = "one command runs every story under it; no story depends on it"
)]
pub fn as_on_aws() -> bool {
    std::env::var_os("BROKER_TEST_AWS").is_some_and(|value| value != "0")
}

/// The environment of every process of one broker: table, queues and settings.
#[derive(Clone, Debug)]
pub struct Environment {
    urls: Urls,
    /// Where the processes find AWS: behind the fault proxy, if there is one.
    process_urls: Urls,
    name: String,
    vars: Vec<(String, String)>,
    /// What shapes the calls of the processes, if anything does.
    shaper: Option<Shaper>,
    /// Where the processes find their credentials, if that is slow.
    credentials: Option<String>,
}

impl Environment {
    pub(crate) fn new(urls: &Urls, process_urls: &Urls, vars: Vec<(String, String)>) -> Self {
        static BROKERS: AtomicU64 = AtomicU64::new(0);
        let number = BROKERS.fetch_add(1, Ordering::Relaxed);
        let (urls, process_urls) = (urls.clone(), process_urls.clone());
        let name = format!("t{}-{number}", std::process::id());
        Self { urls, process_urls, name, vars, shaper: None, credentials: None }
    }

    /// The same, where the calls of the processes are shaped and their credentials come from that address.
    pub(crate) fn shaped(self, shaper: Shaper, credentials: String) -> Self {
        Self { shaper: Some(shaper), credentials: Some(credentials), ..self }
    }

    /// Waits until index and lists show all that the processes wrote and made: a job finds its work there.
    pub async fn lists_are_current(&self) {
        let Some(shaper) = &self.shaper else { return };
        wait_until("index and lists to follow", || shaper.is_current()).await;
    }

    /// Of a broker that was started otherwise, with this table and prefix.
    pub(crate) fn named(name: &str, urls: &Urls) -> Self {
        let (urls, process_urls) = (urls.clone(), urls.clone());
        let (name, vars) = (name.to_owned(), Vec::new());
        Self { urls, process_urls, name, vars, shaper: None, credentials: None }
    }

    /// The name of its table, which is also the prefix of its queues.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its table is.
    pub(crate) fn dynamodb_url(&self) -> &str {
        &self.urls.dynamodb_url
    }

    /// The environment variables of commands, later ones over earlier ones. A command meets no faults.
    pub fn vars(&self) -> Vec<(String, String)> {
        self.vars_at(&self.urls)
    }

    /// The environment variables of APIs and workers.
    pub fn process_vars(&self) -> Vec<(String, String)> {
        let mut vars = self.vars_at(&self.process_urls);
        if let Some(source) = &self.credentials {
            vars.retain(|(name, _)| !["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name.as_str()));
            vars.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), source.clone()));
        }
        vars
    }

    fn vars_at(&self, urls: &Urls) -> Vec<(String, String)> {
        let fixed = [
            ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb_url.as_str()),
            ("AWS_ENDPOINT_URL_SQS", &urls.sqs_url),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("BROKER_PREFIX", &self.name),
            ("BROKER_TABLE", &self.name),
        ];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        fixed.into_iter().chain(self.vars.iter().cloned()).collect()
    }

    /// Its queues.
    pub fn queues(&self) -> Queues {
        Queues::new(&self.urls, &self.name)
    }

    /// Its table.
    pub fn table(&self) -> Table {
        Table::new(&self.urls, &self.name)
    }
}
