//! The configuration of all processes: one list of settings, read once and validated whole.
//!
//! Invariant: a bad value stops the start and is named; an unknown `BROKER_*` name gets a warning with the nearest known
//! one. Endpoints, region and credentials of AWS come from the usual AWS environment, not from here. This module alone reads
//! the environment.

#[cfg(test)]
mod fuzz;
mod hooks;
mod jobs;
mod network;
mod read;
mod settings;
mod tokens;
mod trace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use broker_domain::{AttributeNames, LabDuration};
use secrecy::ExposeSecret as _;
use tracing_subscriber::filter::Targets;

pub use hooks::HookSecret;
pub use jobs::{Intervals, ProviderConfig, Scheduler};
pub use network::{Networks, Origins, RateLimit};
pub use read::{ConfigError, Overlay, Strings, UnknownName, strings, unknown_names};
pub use settings::{CRASH_SETTING, SETTINGS, Setting};
pub use tokens::{Token, Tokens};
pub use trace::TraceConfig;

use jobs::provider;
use network::rate_limit;
use read::SettingsReader;
use trace::trace;

/// What is left of the drain time after the longest poll that began before it, for what that one brings: a poll that is cut off
/// can leave messages hidden.
const AFTER_THE_LAST_POLL: Duration = Duration::from_secs(5);
/// The shortest wait of a poll: without one an empty queue would be polled without a pause.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How hooks are called.
#[derive(Clone, Debug, Default)]
pub struct HooksConfig {
    /// The secrets, each of which signs every request.
    pub secrets: Vec<HookSecret>,
    /// The addresses that are not public and may be called all the same.
    pub networks: Networks,
}

/// The settings of a process. Durations are `Duration`s; the settings' names carry their unit.
#[derive(Clone, Debug)]
pub struct Config {
    /// The table's name.
    pub table: String,
    /// The prefix of the queues' names.
    pub prefix: String,
    /// The KMS key of the reply queues, if another than SQS's own.
    pub reply_queue_kms_key: Option<String>,
    /// The number of index partitions of each state.
    pub state_shards: u8,
    /// Whether this is a development machine: the API may start without tokens.
    pub local: bool,
    /// The address of the API.
    pub listen: SocketAddr,
    /// The address of the API for operators and machines, if they have one of their own.
    pub admin_listen: Option<SocketAddr>,
    /// The address of the worker's `/metrics`, `/healthz` and `/readyz`.
    pub metrics_listen: SocketAddr,
    /// Tokens of the platforms.
    pub track_tokens: Tokens,
    /// Tokens of the operators.
    pub admin_tokens: Tokens,
    /// How long a synchronous call waits by default.
    pub wait: Duration,
    /// The most calls that wait for a reply in one API process.
    pub max_pending: usize,
    /// The same of one tenant.
    pub max_pending_per_tenant: usize,
    /// The rate of `respond-async` requests of one tenant, if it is limited.
    pub async_limit: Option<RateLimit>,
    /// The most connections of one API process, if that is set.
    pub max_connections: Option<usize>,
    /// The rate limit per token and address, if any.
    pub rate_limit: Option<RateLimit>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Networks,
    /// The web pages that may read responses.
    pub cors_origins: Origins,
    /// How long a sandbox is lent unless the request says otherwise.
    pub lab_duration: LabDuration,
    /// Whether requests may wait in a line.
    pub waiting: bool,
    /// How long a lease can last from its allocation.
    pub lease_max: Duration,
    /// How many messages one worker handles at a time.
    pub worker_concurrency: usize,
    /// How long a received request stays hidden from other workers.
    pub visibility: Duration,
    /// How long one poll waits for a message; it ends before the drain time does.
    pub poll_wait: Duration,
    /// How long an API that received SIGTERM still serves as before, not ready any more; the drain time follows.
    pub lame_duck: Duration,
    /// The provider, if one is configured.
    pub provider: Option<ProviderConfig>,
    /// The members of the provider's rows that are kept with the sandboxes.
    pub provider_attributes: AttributeNames,
    /// How the policy's hooks are called.
    pub hooks: HooksConfig,
    /// How long after its expiry a sandbox is left to its owner.
    pub expiry_grace: Duration,
    /// The pause after the first failed deletion of a sandbox.
    pub deletion_backoff: Duration,
    /// What starts the jobs.
    pub scheduler: Scheduler,
    /// The interval of each job.
    pub every: Intervals,
    /// The number of threads of a process.
    pub threads: usize,
    /// Where the lists of a sync are kept.
    pub spool_dir: PathBuf,
    /// The time for a process to finish its work.
    pub drain: Duration,
    /// Where traces are exported, if anywhere.
    pub trace: Option<TraceConfig>,
    /// The log filter: levels by target.
    pub log: Targets,
    /// The log format.
    pub log_format: LogFormat,
}

impl Config {
    /// The configuration from `strings`, or the first setting that is wrong.
    pub fn read(strings: &dyn Strings) -> Result<Self, ConfigError> {
        let read = SettingsReader::new(strings);
        let mut config = Self {
            table: read.text("BROKER_TABLE", |name| {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
                ((3..=255).contains(&name.len()) && name.bytes().all(allowed))
                    .then_some(())
                    .ok_or("3 to 255 of A-Z a-z 0-9 _ . -")
            })?,
            prefix: read.text("BROKER_PREFIX", |prefix| {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
                ((1..=32).contains(&prefix.len()) && prefix.bytes().all(allowed))
                    .then_some(())
                    .ok_or("1 to 32 of A-Z a-z 0-9 _ -")
            })?,
            reply_queue_kms_key: Some(read.text("BROKER_REPLY_QUEUE_KMS_KEY", |key| {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b":/_-".contains(&b);
                (key.len() <= 2_048 && key.bytes().all(allowed))
                    .then_some(())
                    .ok_or("the id, the alias or the ARN of a KMS key")
            })?)
            .filter(|key| !key.is_empty()),
            state_shards: read.number("BROKER_STATE_SHARDS")?,
            local: read.flag("BROKER_LOCAL")?,
            listen: read.address("BROKER_LISTEN")?,
            admin_listen: read.optional("BROKER_ADMIN_LISTEN", SettingsReader::address)?,
            metrics_listen: read.address("BROKER_METRICS_LISTEN")?,
            track_tokens: read.platform_tokens("BROKER_TRACK_TOKENS")?,
            admin_tokens: read.tokens("BROKER_ADMIN_TOKENS")?,
            wait: read.seconds("BROKER_WAIT_S")?,
            max_pending: read.number("BROKER_MAX_PENDING")?,
            max_connections: read.optional("BROKER_MAX_CONNECTIONS", SettingsReader::number)?,
            max_pending_per_tenant: read.number("BROKER_MAX_PENDING_PER_TENANT")?,
            async_limit: rate_limit(&read, "BROKER_ASYNC_RATE", "BROKER_ASYNC_BURST")?,
            rate_limit: rate_limit(&read, "BROKER_RATE_LIMIT", "BROKER_RATE_BURST")?,
            trusted_proxies: read.list("BROKER_TRUSTED_PROXIES", Networks::parse)?,
            cors_origins: read.list("BROKER_CORS_ORIGINS", Origins::parse)?,
            lab_duration: read.number("BROKER_LAB_DURATION_HOURS")?,
            waiting: read.either("BROKER_WAITING", [("on", true), ("off", false)])?,
            lease_max: Duration::from_secs(3_600 * read.number::<u64>("BROKER_LEASE_MAX_HOURS")?),
            worker_concurrency: read.number("BROKER_WORKER_CONCURRENCY")?,
            visibility: read.seconds("BROKER_VISIBILITY_S")?,
            poll_wait: read.seconds("BROKER_POLL_WAIT_S")?,
            lame_duck: read.seconds("BROKER_LAME_DUCK_S")?,
            provider: provider(&read)?,
            provider_attributes: read.list("BROKER_PROVIDER_ATTRIBUTES", AttributeNames::parse)?,
            hooks: HooksConfig {
                secrets: read.hook_secrets("BROKER_HOOK_SECRETS")?,
                networks: read.list("BROKER_HOOK_NETWORKS", Networks::parse)?,
            },
            expiry_grace: Duration::from_secs(60 * read.number::<u64>("BROKER_EXPIRY_GRACE_MINUTES")?),
            deletion_backoff: read.seconds("BROKER_DELETION_BACKOFF_S")?,
            scheduler: read.either(
                "BROKER_SCHEDULER",
                [("workers", Scheduler::Workers), ("external", Scheduler::External)],
            )?,
            every: Intervals {
                sync: read.seconds("BROKER_SYNC_EVERY_S")?,
                expire: read.seconds("BROKER_EXPIRE_EVERY_S")?,
                cleanup: read.seconds("BROKER_CLEANUP_EVERY_S")?,
                purge: read.seconds("BROKER_PURGE_EVERY_S")?,
                census: read.seconds("BROKER_CENSUS_EVERY_S")?,
                sweep: read.seconds("BROKER_SWEEP_EVERY_S")?,
                refill: read.seconds("BROKER_REFILL_EVERY_S")?,
                serve: read.seconds("BROKER_SERVE_EVERY_S")?,
            },
            threads: read.number("BROKER_THREADS")?,
            spool_dir: read.directory("BROKER_SPOOL_DIR")?,
            drain: read.seconds("BROKER_DRAIN_S")?,
            trace: trace(&read)?,
            log: read.log_filter("BROKER_LOG")?,
            log_format: read
                .either("BROKER_LOG_FORMAT", [("json", LogFormat::Json), ("text", LogFormat::Text)])?,
        };
        config.check_lab_duration(&read)?;
        let before_the_end = config.drain.saturating_sub(AFTER_THE_LAST_POLL).max(SHORTEST_POLL);
        config.poll_wait = config.poll_wait.min(before_the_end);
        Ok(config)
    }

    /// Checks that the usual lease is not longer than the longest. Of the two settings the one that is set is named.
    fn check_lab_duration(&self, read: &SettingsReader<'_>) -> Result<(), ConfigError> {
        const USUAL: &str = "BROKER_LAB_DURATION_HOURS";
        const LONGEST: &str = "BROKER_LEASE_MAX_HOURS";
        if self.lab_duration.as_duration() <= self.lease_max {
            return Ok(());
        }
        let (usual, longest) = (self.lab_duration.hours(), self.lease_max.as_secs() / 3_600);
        let (name, problem) = if read.is_set(USUAL) {
            (USUAL, format!("{usual} is more than {LONGEST}, which is {longest}"))
        } else {
            (LONGEST, format!("{longest} is less than {USUAL}, which is {usual}: set that, too"))
        };
        Err(ConfigError::new(name, problem))
    }

    /// What is unwise about it, each in a sentence with the setting's name: nothing that stops a start.
    pub fn doubts(&self) -> Vec<String> {
        let of = |name: &'static str, tokens: &Tokens| {
            tokens.doubts().map(|doubt| format!("{name}: {doubt}")).collect::<Vec<_>>()
        };
        [of("BROKER_TRACK_TOKENS", &self.track_tokens), of("BROKER_ADMIN_TOKENS", &self.admin_tokens)]
            .concat()
    }

    /// What is unwise about how the provider is called, as [`Config::doubts`] says it. Of workers: no other process calls it.
    pub fn provider_doubt(&self) -> Option<&'static str> {
        let provider = self.provider.as_ref()?;
        provider.token.expose_secret().is_empty().then_some(
            "BROKER_PROVIDER_TOKEN: is not set, but BROKER_PROVIDER_URL is: the provider is called without a token",
        )
    }

    /// Checks that some token is configured (an API without one starts in local mode only), and that each has one role.
    pub fn require_tokens(&self) -> Result<(), ConfigError> {
        let differ = self.admin_tokens.must_differ_from(&self.track_tokens);
        differ.map_err(|problem| ConfigError::new("BROKER_ADMIN_TOKENS", problem))?;
        let has_none = self.track_tokens.is_empty() && self.admin_tokens.is_empty();
        let listeners = [("BROKER_LISTEN", Some(self.listen)), ("BROKER_ADMIN_LISTEN", self.admin_listen)];
        let is_open =
            |address: &Option<SocketAddr>| address.is_some_and(|address| !address.ip().is_loopback());
        let open = listeners.iter().find(|(_, address)| is_open(address));
        if let Some((name, _)) = open.filter(|_| has_none && self.local) {
            let problem = "without tokens anybody who reaches it may do everything: listen on a loopback address, or set BROKER_TRACK_TOKENS and BROKER_ADMIN_TOKENS";
            Err(ConfigError::new(name, problem))
        } else if self.local || !has_none {
            Ok(())
        } else {
            let problem = "no token is configured: set it, BROKER_ADMIN_TOKENS, or BROKER_LOCAL=true on your own machine";
            Err(ConfigError::new("BROKER_TRACK_TOKENS", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn with(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_defaults_of_the_list_are_a_valid_configuration() {
        let config = Config::read(&with(&[])).unwrap();
        assert_eq!(config.wait, Duration::from_secs(10));
        assert_eq!(config.state_shards, 16);
        assert!(config.require_tokens().is_err(), "no tokens outside local mode");
    }

    #[test]
    fn without_tokens_a_local_broker_listens_on_loopback_only() {
        let starts = |listen: &str, more: &[(&str, &str)]| {
            let own = [("BROKER_LOCAL", "true"), ("BROKER_LISTEN", listen)];
            Config::read(&with(&[&own[..], more].concat())).unwrap().require_tokens()
        };
        assert!(starts("127.0.0.1:0", &[]).is_ok() && starts("[::1]:0", &[]).is_ok());
        let error = starts("0.0.0.0:8080", &[]).unwrap_err().to_string();
        assert!(error.contains("BROKER_LISTEN"), "{error}");
        assert!(starts("0.0.0.0:8080", &[("BROKER_ADMIN_TOKENS", "a=0123456789abcdef")]).is_ok());
    }

    #[test]
    fn every_setting_of_the_list_is_read() {
        for setting in SETTINGS {
            let bad = with(&[(setting.name, "\u{0}")]);
            let accepts_any_text = ["BROKER_LOG"].contains(&setting.name);
            assert_eq!(Config::read(&bad).is_err(), !accepts_any_text, "{}", setting.name);
        }
    }

    #[test]
    fn a_log_filter_is_levels_by_target() {
        let read = |filter| Config::read(&with(&[("BROKER_LOG", filter)]));
        assert!(read("info").is_ok() && read("broker_worker=debug,warn").is_ok());
        let error = read("info,broker_worker=loud").unwrap_err();
        assert!(error.name == "BROKER_LOG" && error.problem.contains("loud"), "{error}");
    }

    #[test]
    fn a_setting_that_is_no_text_is_refused_and_what_nobody_reads_is_not() {
        let read = |name: &str| {
            let value = OsString::from_vec(b"pr\xffd".to_vec());
            strings([("PATH".into(), "/bin".into()), (name.into(), value)])
        };
        for name in ["BROKER_TABLE", "BROKER_ADMIN_TOKENS_FILE", "BROKER_URL", "AWS_PROFILE"] {
            let error = read(name).unwrap_err();
            assert!(error.name == name && error.problem.contains("UTF-8"), "{error}");
        }
        for name in ["LS_COLORS", "BROKER_TABEL"] {
            assert!(read(name).unwrap().contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_bad_value_is_named_and_a_secret_is_not_shown() {
        let error = Config::read(&with(&[("BROKER_WAIT_S", "soon")])).unwrap_err().to_string();
        assert!(error.contains("BROKER_WAIT_S") && error.contains("soon"), "{error}");
        let error = Config::read(&with(&[("BROKER_TRACK_TOKENS", "hunter2")])).unwrap_err().to_string();
        assert!(error.contains("BROKER_TRACK_TOKENS") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_poll_that_does_not_wait_is_refused() {
        let error = Config::read(&with(&[("BROKER_POLL_WAIT_S", "0")])).unwrap_err();
        assert_eq!(error.name, "BROKER_POLL_WAIT_S", "an empty queue would be polled without a pause");
        assert!(Config::read(&with(&[("BROKER_POLL_WAIT_S", "1")])).is_ok());
    }

    #[test]
    fn a_poll_ends_before_the_drain_time_does() {
        let wait = |pairs: &[(&str, &str)]| Config::read(&with(pairs)).unwrap().poll_wait.as_secs();
        assert_eq!(wait(&[]), 20, "the defaults fit");
        let with_drain = |s| wait(&[("BROKER_DRAIN_S", s)]);
        assert_eq!(["25", "15", "6", "1"].map(with_drain), [20, 10, 1, 1]);
        assert_eq!(wait(&[("BROKER_DRAIN_S", "15"), ("BROKER_POLL_WAIT_S", "3")]), 3);
    }

    #[test]
    fn a_provider_without_a_token_is_a_doubt() {
        let doubt = |pairs: &[(&str, &str)]| Config::read(&with(pairs)).unwrap().provider_doubt();
        let url = ("BROKER_PROVIDER_URL", "https://provider.example");
        assert!(doubt(&[url]).is_some_and(|told| told.contains("BROKER_PROVIDER_TOKEN")));
        assert_eq!(doubt(&[]), None, "no provider is called");
        assert_eq!(doubt(&[url, ("BROKER_PROVIDER_TOKEN", "secret")]), None);
    }

    #[test]
    fn the_usual_lease_is_not_longer_than_the_longest() {
        let read = |pairs: &[(&str, &str)]| Config::read(&with(pairs));
        let (usual, longest) = ("BROKER_LAB_DURATION_HOURS", "BROKER_LEASE_MAX_HOURS");
        assert!(read(&[(usual, "8"), (longest, "8")]).is_ok() && read(&[(longest, "4")]).is_ok());
        assert_eq!(read(&[(usual, "9"), (longest, "8")]).unwrap_err().name, usual);
        let error = read(&[(longest, "3")]).unwrap_err();
        assert!(error.name == longest && error.problem.contains(usual), "{error}");
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_not_from_both() {
        let path = std::env::temp_dir().join(format!("broker-config-test-{}", std::process::id()));
        std::fs::write(&path, "a=0123456789abcdef\nb@lab-=fedcba9876543210\n").unwrap();
        let file = path.to_str().unwrap();
        let config = Config::read(&with(&[("BROKER_TRACK_TOKENS_FILE", file)])).unwrap();
        assert_eq!(config.track_tokens.iter().map(Token::name).collect::<Vec<_>>(), ["a", "b"]);
        let both = with(&[("BROKER_TRACK_TOKENS_FILE", file), ("BROKER_TRACK_TOKENS", "c=0123456789abcdef")]);
        assert!(Config::read(&both).is_err());
        std::fs::remove_file(&path).unwrap();
        let gone = Config::read(&with(&[("BROKER_TRACK_TOKENS_FILE", file)])).unwrap_err();
        assert!(gone.name == "BROKER_TRACK_TOKENS_FILE" && gone.problem.contains(file), "{gone}");
    }

    #[test]
    fn a_secret_in_the_place_of_its_file_is_not_shown() {
        for setting in SETTINGS.iter().filter(|setting| setting.secret) {
            let name = format!("{}_FILE", setting.name);
            let error = Config::read(&with(&[(&name, "ops=hunter2-0123456789")])).unwrap_err();
            assert!(error.name == name && !error.problem.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_known_one() {
        let of_clients = [("BROKER_URL", "u"), ("BROKER_TOKEN", "t"), ("BROKER_SMOKE_TOKEN", "s")];
        assert_eq!(unknown_names(&with(&of_clients)), []);
        let names = with(&[("BROKER_WIAT_S", "1"), ("BROKER_ADMIN_TOKENS_FILE", "x"), ("PATH", "y")]);
        let unknown = unknown_names(&names);
        assert_eq!(unknown.len(), 1);
        assert_eq!((unknown[0].name.as_str(), unknown[0].nearest), ("BROKER_WIAT_S", "BROKER_WAIT_S"));
        assert_eq!(unknown_names(&with(&[("BROKER_TOKE", "t")]))[0].nearest, "BROKER_TOKEN");
    }

    #[test]
    fn debug_output_of_a_configuration_has_no_secret() {
        let config = Config::read(&with(&[("BROKER_TRACK_TOKENS", "a=0123456789abcdef")])).unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }
}
