//! The list of settings: names, defaults, units and texts.

use std::ops::RangeInclusive;

/// The setting that arms a crash point, in builds that have them (see [`crash_points`](crate::crash_points)).
pub const CRASH_SETTING: &str = "BROKER_CRASH_AT";

/// The range of an interval, in seconds.
const EVERY: RangeInclusive<u64> = 1..=7 * 86_400;

/// One setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The environment variable; the flag is the same name without `BROKER_`, in kebab case.
    pub name: &'static str,
    /// The default.
    pub default: &'static str,
    /// The unit or form of the value.
    unit: &'static str,
    /// The range of a whole number.
    range: Option<RangeInclusive<u64>>,
    /// What it does.
    pub doc: &'static str,
    /// Whether it is a secret: never shown, and may come from a file named by `{name}_FILE`.
    pub secret: bool,
}

impl Setting {
    /// The unit or form of the value, with its range.
    pub fn form(&self) -> String {
        match &self.range {
            Some(range) => format!("{}, {} to {}", self.unit, range.start(), range.end()),
            None => self.unit.to_owned(),
        }
    }

    /// The range of a whole number; any number fits a setting that has none.
    pub(super) fn range(&self) -> RangeInclusive<u64> {
        self.range.clone().unwrap_or(0..=u64::MAX)
    }

    const fn new(name: &'static str, default: &'static str, unit: &'static str, doc: &'static str) -> Self {
        Self { name, default, unit, range: None, doc, secret: false }
    }

    const fn number(
        name: &'static str,
        default: &'static str,
        unit: &'static str,
        range: RangeInclusive<u64>,
        doc: &'static str,
    ) -> Self {
        Self { name, default, unit, range: Some(range), doc, secret: false }
    }

    const fn secret(name: &'static str, unit: &'static str, doc: &'static str) -> Self {
        Self { name, default: "", unit, range: None, doc, secret: true }
    }
}

/// Every setting, in the order of infra/docs/SETTINGS.md.
pub const SETTINGS: &[Setting] = &[
    Setting::new("BROKER_TABLE", "broker", "name", "DynamoDB table"),
    Setting::new("BROKER_PREFIX", "broker", "name", "the prefix of the names of the SQS queues"),
    Setting::new(
        "BROKER_REPLY_QUEUE_KMS_KEY",
        "",
        "key id, alias/… or ARN",
        "the KMS key that encrypts the reply queues, which the API makes; without it they have the key of the requests queue, else SQS's own",
    ),
    Setting::number(
        "BROKER_STATE_SHARDS",
        "16",
        "count",
        1..=50,
        "index partitions per state; the same for every process, changed by broker pool reshard",
    ),
    Setting::new(
        "BROKER_LOCAL",
        "false",
        "true or false",
        "development machine: the API may start without tokens",
    ),
    Setting::new(
        "BROKER_LISTEN",
        "127.0.0.1:8080",
        "address:port",
        "where the API listens; port 0 takes a free one",
    ),
    Setting::new(
        "BROKER_ADMIN_LISTEN",
        "",
        "address:port",
        "where the API serves operators and machines: admin routes, console, /metrics; BROKER_LISTEN then serves platforms only. Each also serves /healthz, /readyz and the docs of its own routes. Unset: one port for all",
    ),
    Setting::new(
        "BROKER_METRICS_LISTEN",
        "127.0.0.1:9090",
        "address:port",
        "where a worker serves /metrics, /healthz, /readyz",
    ),
    Setting::secret(
        "BROKER_TRACK_TOKENS",
        "name=token, …",
        "tokens of platforms; name@prefix=token binds one to tracks with that prefix, name:tenant=who=token (name:tenant=who@prefix=token) makes several one tenant's",
    ),
    Setting::secret(
        "BROKER_ADMIN_TOKENS",
        "name=token, …",
        "tokens of operators; name:ro=token may read and change nothing",
    ),
    Setting::number(
        "BROKER_WAIT_S",
        "10",
        "seconds",
        0..=50,
        "how long a synchronous call waits for its reply before it answers 503 STILL_QUEUED, or 202 to a client that sent Prefer",
    ),
    Setting::number(
        "BROKER_MAX_PENDING",
        "10000",
        "count",
        1..=1_000_000,
        "calls waiting for a reply in one API process; more are shed with 503",
    ),
    Setting::number(
        "BROKER_MAX_PENDING_PER_TENANT",
        "5000",
        "count",
        1..=1_000_000,
        "the same of one token (of all that are one tenant's), so that one cannot take every place; more are shed with 503",
    ),
    Setting::number(
        "BROKER_ASYNC_RATE",
        "100",
        "requests/s, 0 is no limit",
        0..=1_000_000,
        "respond-async requests of one tenant to one API process: nothing else holds them back; more are answered 429",
    ),
    Setting::number(
        "BROKER_ASYNC_BURST",
        "1000",
        "count",
        1..=1_000_000,
        "respond-async requests that may come at once under that rate",
    ),
    Setting::number(
        "BROKER_MAX_CONNECTIONS",
        "",
        "count",
        1..=1_000_000,
        "connections of one API process; more wait, and only probes are answered. Unset: what open files and memory suffice for (192 KiB each beyond 128 MiB), 20,000 at most",
    ),
    Setting::number(
        "BROKER_RATE_LIMIT",
        "0",
        "requests/s, 0 is off",
        0..=1_000_000,
        "requests of one token from one address to one API process; more are answered 429",
    ),
    Setting::number(
        "BROKER_RATE_BURST",
        "100",
        "count",
        1..=1_000_000,
        "requests that may come at once under the rate limit",
    ),
    Setting::new(
        "BROKER_TRUSTED_PROXIES",
        "",
        "address or network, …",
        "proxies whose X-Forwarded-For is trusted",
    ),
    Setting::new(
        "BROKER_CORS_ORIGINS",
        "",
        "origin, … or *",
        "web pages that may read responses, e.g. https://labs.example",
    ),
    Setting::number(
        "BROKER_LAB_DURATION_HOURS",
        "4",
        "hours",
        1..=168,
        "how long a sandbox is lent unless the request says",
    ),
    Setting::number(
        "BROKER_LEASE_MAX_HOURS",
        "168",
        "hours",
        1..=8_760,
        "how long a lease can last from its allocation, however often its owner renews it; an allocate that says a longer lab_duration_hours is 400",
    ),
    Setting::new(
        "BROKER_WAITING",
        "off",
        "on or off",
        "whether requests may wait in a line for a sandbox (max_wait_s); on only when every process is of this release or newer",
    ),
    Setting::number(
        "BROKER_WORKER_CONCURRENCY",
        "64",
        "count",
        1..=10_000,
        "messages that one worker handles at a time",
    ),
    Setting::number(
        "BROKER_VISIBILITY_S",
        "30",
        "seconds",
        2..=43_200,
        "how long a received request stays hidden from other workers",
    ),
    Setting::number(
        "BROKER_POLL_WAIT_S",
        "20",
        "seconds",
        1..=20,
        "how long one poll of a queue waits; 5 s less than BROKER_DRAIN_S at most, but at least 1 s",
    ),
    Setting::number(
        "BROKER_LAME_DUCK_S",
        "5",
        "seconds",
        0..=300,
        "how long an API still serves after SIGTERM, not ready any more, before its drain time begins",
    ),
    Setting::new(
        "BROKER_PROVIDER_URL",
        "",
        "URL",
        "the base URL of the provider's API; without it nothing is synchronised or deleted there",
    ),
    Setting::secret("BROKER_PROVIDER_TOKEN", "token", "the broker's token at the provider"),
    Setting::number(
        "BROKER_PROVIDER_RATE",
        "2",
        "per second",
        1..=100,
        "deletions at the provider, of all workers together",
    ),
    Setting::number(
        "BROKER_PROVIDER_TIMEOUT_S",
        "15",
        "seconds",
        1..=120,
        "timeout of one call to the provider",
    ),
    Setting::new(
        "BROKER_PROVIDER_ATTRIBUTES",
        "",
        "name, …",
        "members of the provider's rows that are kept with the sandbox and told in every answer about it, 16 at most, 1 KiB of one sandbox, e.g. region",
    ),
    Setting::secret(
        "BROKER_HOOK_SECRETS",
        "whsec_…, …",
        "secrets that sign what hooks are sent (Standard Webhooks); while one is replaced, the old and the new one",
    ),
    Setting::new(
        "BROKER_HOOK_NETWORKS",
        "",
        "address or network, …",
        "loopback, private and other special addresses that hooks may be at, e.g. 10.1.2.0/24; public ones always may",
    ),
    Setting::number(
        "BROKER_EXPIRY_GRACE_MINUTES",
        "30",
        "minutes",
        0..=10_080,
        "how long after its expiry a sandbox is left to its owner",
    ),
    Setting::number(
        "BROKER_DELETION_BACKOFF_S",
        "60",
        "seconds",
        1..=3_600,
        "the pause after the first failed deletion of a sandbox; it doubles with each",
    ),
    Setting::new(
        "BROKER_SCHEDULER",
        "workers",
        "workers or external",
        "what starts the jobs: the workers, or an external scheduler that sends a message for each",
    ),
    Setting::number(
        "BROKER_SYNC_EVERY_S",
        "600",
        "seconds",
        EVERY,
        "how often the pool is compared with the provider",
    ),
    Setting::number(
        "BROKER_EXPIRE_EVERY_S",
        "300",
        "seconds",
        EVERY,
        "how often leases past their time are ended",
    ),
    Setting::number("BROKER_CLEANUP_EVERY_S", "300", "seconds", EVERY, "how often deletions are planned"),
    Setting::number(
        "BROKER_PURGE_EVERY_S",
        "86400",
        "seconds",
        EVERY,
        "how often stale sandboxes are removed",
    ),
    Setting::number(
        "BROKER_CENSUS_EVERY_S",
        "60",
        "seconds",
        EVERY,
        "how often the pool is counted; less often where it is over 100,000",
    ),
    Setting::number(
        "BROKER_SWEEP_EVERY_S",
        "600",
        "seconds",
        EVERY,
        "how often leftovers of dead processes are removed",
    ),
    Setting::number(
        "BROKER_REFILL_EVERY_S",
        "5",
        "seconds",
        EVERY,
        "how often new sandboxes are asked for, where the policy refills a flavour",
    ),
    Setting::number(
        "BROKER_SERVE_EVERY_S",
        "5",
        "seconds",
        EVERY,
        "how often what is arriving is offered, if the process that brought it did not",
    ),
    Setting::number(
        "BROKER_THREADS",
        "1",
        "count",
        1..=1_024,
        "threads that an API or a worker works on; one takes the least processor time per request, so more processes come first",
    ),
    Setting::new(
        "BROKER_SPOOL_DIR",
        "/tmp",
        "directory",
        "where a worker keeps what the lists of a sync have beyond some MiB: unnamed files of up to 2 GB a million sandboxes",
    ),
    Setting::number(
        "BROKER_DRAIN_S",
        "30",
        "seconds",
        1..=600,
        "how long a process may take to finish its work after SIGTERM",
    ),
    Setting::new(
        "BROKER_OTLP_ENDPOINT",
        "",
        "URL",
        "the base URL of a collector for traces (OTLP over HTTP), e.g. http://127.0.0.1:4318; without it nothing is traced",
    ),
    Setting::new(
        "BROKER_TRACE_RATIO",
        "1",
        "0 to 1",
        "the part of the traces begun here that is recorded; in a caller's trace its sampled flag decides",
    ),
    Setting::new("BROKER_LOG", "info", "filter", "what is logged, e.g. info or broker_worker=debug,warn"),
    Setting::new("BROKER_LOG_FORMAT", "json", "json or text", "how it is logged, on standard error"),
];

/// The setting called `name`. A name that is not in the list is a bug in this crate, found by its tests.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::SETTINGS;

    #[test]
    fn the_readme_lists_every_setting() {
        let rows: String = SETTINGS
            .iter()
            .map(|s| {
                format!(
                    "| `{}` | {} | {} | {} |\n",
                    s.name,
                    if s.default.is_empty() { "-" } else { s.default },
                    s.form(),
                    s.doc
                )
            })
            .collect();
        let readme = include_str!("../../../../infra/docs/SETTINGS.md");
        assert!(
            readme.contains(&rows),
            "put these rows between the settings marks of infra/docs/SETTINGS.md:\n{rows}"
        );
    }
}
