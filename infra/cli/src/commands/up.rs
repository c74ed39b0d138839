//! `broker up`: the whole broker on one machine. Messages cross SQS over HTTP here too.
//!
//! It ends in the order in which work flows: the API answers open requests, then the workers finish, then the endpoints end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker_domain::Scaling;
use broker_queue::{QueueNames, topology};
use broker_runtime::aws::{self, Aws};
use broker_runtime::clock::Clock;
use broker_runtime::config::{
    CRASH_SETTING, Config, ConfigError, HookSecret, ProviderConfig, SETTINGS, Token, UnknownName,
};
use broker_runtime::crash_points;
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::process::{self, Process};
use broker_runtime::{metrics, telemetry, trace};
use broker_store::scan_all::scan;
use broker_store::{Store, schema};
use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::endpoints::{EndpointsArgs, QUIET_LOG};
use super::{fleet, pool, provider, resend};
use crate::context::Settings;
use crate::done::Done;
use crate::output;
use broker_local::endpoints::Endpoints;
use broker_local::provider::StandInOptions;

/// When the stand-in replaces a deleted account.
const REGROW_AFTER: Duration = Duration::from_secs(20);

/// Deletions a second at the stand-in, slow enough to watch.
const RATE: &str = "10";

/// Defaults that are not those of the processes.
const DEFAULTS: [(&str, &str); 10] = [
    ("BROKER_LOG", QUIET_LOG),
    ("BROKER_LOG_FORMAT", "text"),
    ("BROKER_LOCAL", "true"),
    // A returned sandbox is deleted and replaced soon, while someone watches.
    ("BROKER_SYNC_EVERY_S", "10"),
    ("BROKER_CLEANUP_EVERY_S", "5"),
    ("BROKER_CENSUS_EVERY_S", "5"),
    ("BROKER_EXPIRE_EVERY_S", "10"),
    // Ends soon after Ctrl-C; an empty poll costs nothing here.
    ("BROKER_POLL_WAIT_S", "2"),
    // No load balancer in front.
    ("BROKER_LAME_DUCK_S", "0"),
    // The stand-in has hooks.
    ("BROKER_HOOK_NETWORKS", "127.0.0.0/8, ::1"),
];

/// The most child processes on one machine; each has a runtime of its own.
const MOST_WORKERS: u32 = 64;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Port of the API (0 takes a free one), in the place of that of BROKER_LISTEN [default: 8080]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Workers: N in this process, or A..B as child processes scaled on the backlog
    #[arg(long, value_name = "N|A..B", default_value = "2")]
    pub(crate) workers: Workers,
    /// With A..B: the backlog of one worker
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) backlog_per_worker: u32,
    /// With A..B: the seconds that fewer workers must have been enough before one is ended
    #[arg(long, default_value_t = 60)]
    pub(crate) scale_in_after_s: u64,
    /// The number of sandboxes to seed
    #[arg(long, default_value_t = 100)]
    pub(crate) pool: usize,
    #[command(flatten)]
    pub(crate) endpoints: EndpointsArgs,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            port: None,
            workers: Workers::InProcess(2),
            backlog_per_worker: 100,
            scale_in_after_s: 60,
            pool: 100,
            endpoints: EndpointsArgs::default(),
        }
    }
}

/// The workers of `broker up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// This many, in its own process.
    InProcess(usize),
    /// Child processes, scaled on the backlog.
    Scaled {
        /// The fewest.
        least: u32,
        /// The most.
        most: u32,
    },
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || {
            format!(
                "{text:?} is neither a number up to {MOST_WORKERS} nor A..B with 1 <= A <= B <= {MOST_WORKERS}"
            )
        };
        let Some((least, most)) = text.split_once("..") else {
            let count = text.parse().ok().filter(|count| *count <= MOST_WORKERS as usize);
            return count.map(Self::InProcess).ok_or_else(form);
        };
        match (least.parse(), most.parse()) {
            (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= MOST_WORKERS => {
                Ok(Self::Scaled { least, most })
            }
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(form()),
        }
    }
}

pub(crate) fn run(settings: &Settings, args: Up) -> anyhow::Result<Done> {
    // Not the source of the request ids, which are public.
    let read = ReadSettings::new(settings, &Entropy::from_system())?;
    telemetry::start(&read.config.log, read.config.log_format)?;
    settings.over(&[], |strings| crash_points::arm(strings.get(CRASH_SETTING).as_deref()));
    let is_set = |name: &str| settings.over(&[], |strings| strings.get(name)).is_some();
    if is_set("BROKER_METRICS_LISTEN") {
        output::complain("BROKER_METRICS_LISTEN has no effect here: the workers cannot share an address");
    }
    let threads = is_set("BROKER_THREADS").then_some(read.config.threads);
    let runtime = process::runtime(threads).context("the async runtime did not start")?;
    runtime.block_on(everything(args, read, Entropy::from_system()))
}

/// The settings of `broker up` and of its parts.
struct ReadSettings {
    config: Config,
    /// Those of the provider's stand-in, if no provider is configured.
    stand_in: Option<ProviderConfig>,
    /// Those that child processes are told.
    told: Vec<(String, String)>,
    /// Names that are no settings.
    unknown: Vec<UnknownName>,
}

impl ReadSettings {
    fn new(settings: &Settings, secrets: &Entropy) -> Result<Self, ConfigError> {
        let token = |role: &str| format!("{role}={}", secrets.uuid().simple());
        let (track_tokens, admin_tokens) = (token("platform"), token("operator"));
        let hook_key = [secrets.uuid().into_bytes(), secrets.uuid().into_bytes()].concat();
        let hook_secrets = HookSecret::text_of(&hook_key);
        let own = [
            ("BROKER_TRACK_TOKENS", track_tokens.as_str()),
            ("BROKER_ADMIN_TOKENS", admin_tokens.as_str()),
            ("BROKER_HOOK_SECRETS", hook_secrets.as_str()),
        ];
        let defaults = [&DEFAULTS[..], &own].concat();
        let config = settings.over(&defaults, Config::read)?;
        let told = settings.over(&defaults, |strings| {
            let open = SETTINGS.iter().filter(|setting| !setting.secret);
            open.filter_map(|setting| Some((setting.name.to_owned(), strings.get(setting.name)?))).collect()
        });
        let read = Self { config, stand_in: None, told, unknown: settings.unknown_names() };
        if read.config.provider.is_some() {
            return Ok(read);
        }
        let token = secrets.uuid().simple().to_string();
        let of_stand_in = [("BROKER_PROVIDER_RATE", RATE), ("BROKER_PROVIDER_TOKEN", token.as_str())];
        let (config, stand_in) = provider::read(settings, &[&defaults[..], &of_stand_in].concat())?;
        Ok(Self { config, stand_in: Some(stand_in), ..read })
    }
}

/// The address of the API, on loopback also in an image: the tokens are printed, and the check of `Host` needs a loopback address.
fn on_loopback(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_loopback() {
        listen
    } else {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port())
    }
}

async fn everything(args: Up, read: ReadSettings, entropy: Entropy) -> anyhow::Result<Done> {
    let ReadSettings { mut config, stand_in, told, unknown } = read;
    let listen = on_loopback(config.listen);
    if listen != config.listen {
        output::complain(&format!("BROKER_LISTEN: `broker up` is for one machine and listens at {listen}"));
    }
    let address = args.port.map_or(listen, |port| SocketAddr::new(listen.ip(), port));
    let listener = process::listen(address, "--port or --listen").await?;
    let keeps = args.endpoints.data_dir.clone();
    let below = Lifecycle::new();
    let endpoints = super::endpoints::start(args.endpoints, &below).await?;

    let exporter = trace::start(config.trace.as_ref(), "broker", &entropy)?;
    let clock = Clock::system();
    let aws = aws::connect_locally(&endpoints.dynamodb_url, &endpoints.sqs_url, &clock, config.poll_wait);
    let mut prepared = prepare(&config, &aws, &clock, &entropy, args.pool).await?;
    if let Some(stand_in) = stand_in {
        let started = start_stand_in(stand_in, &config, &aws, args.pool, &clock, &below).await?;
        prepared.stand_in = Some(started.url.to_string());
        config.provider = Some(started);
    }

    let metrics = metrics::install()?;
    tokio::spawn(metrics::upkeep(metrics.clone()));
    let process = |lifecycle| Process {
        config: Arc::new(config.clone()),
        clock: clock.clone(),
        entropy: entropy.clone(),
        aws: aws.clone(),
        lifecycle,
        metrics: metrics.clone(),
    };
    let (front, back) = (Lifecycle::new(), Lifecycle::new());
    front.end_on_signals()?;
    let mut parts = JoinSet::new();
    match args.workers {
        Workers::InProcess(workers) => {
            for _ in 0..workers {
                // Each worker has a tracker of its own, and all end together.
                let worker = Lifecycle { tracker: tokio_util::task::TaskTracker::new(), ..back.clone() };
                parts.spawn(broker_worker::run(process(worker), None));
            }
        }
        Workers::Scaled { least, most } => {
            let rule = Scaling {
                backlog_per_worker: args.backlog_per_worker,
                least,
                most,
                scale_in_after: Duration::from_secs(args.scale_in_after_s),
            };
            let plan = fleet::FleetPlan::new(rule, &config, told, unknown, &endpoints, &aws).await?;
            parts.spawn(fleet::run(plan, aws.clone(), clock.clone(), back.soft.clone()));
        }
    }
    let (api, early) = {
        let served =
            serve(process(front.clone()), listener, &config, &endpoints, &prepared, keeps.as_deref());
        let mut served = pin!(served);
        tokio::select! {
            served = &mut served => (served, None),
            // A worker that ends by itself ends the rest: a part of a broker must not look like a whole one.
            Some(ended) = parts.join_next() => {
                front.soft.cancel();
                (served.await, Some(ended))
            }
        }
    };
    back.soft.cancel();
    if let Some(worker) = early {
        worker.context("a worker ended badly")??;
    }
    while let Some(worker) = parts.join_next().await {
        worker.context("a worker ended badly")??;
    }
    exporter.end().await;
    below.soft.cancel();
    endpoints.stopped().await;
    api?;
    output::line(left(keeps.as_deref()))?;
    Ok(Done::Ok)
}

/// Starts a stand-in for the provider, which has the accounts of the pool (also of one that is kept from an earlier run) and
/// replaces each deleted account.
async fn start_stand_in(
    stand_in: ProviderConfig,
    config: &Config,
    aws: &Aws,
    accounts: usize,
    clock: &Clock,
    below: &Lifecycle,
) -> anyhow::Result<ProviderConfig> {
    let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
    let mut pool = Vec::new();
    scan(&store, |mut page| {
        pool.append(&mut page.sandboxes);
        true
    })
    .await?;
    let options = StandInOptions { accounts, page_size: 100, regrow_after: Some(REGROW_AFTER) };
    let (secrets, stop) = (&config.hooks.secrets, below.soft.clone());
    provider::start(0, stand_in, secrets, options, &pool, clock.clone(), stop).await
}

/// The result of the preparation.
struct Prepared {
    seeded: pool::seed::Seeded,
    /// The number of requests that were queued when the last run ended.
    resent: usize,
    /// Where the provider's stand-in is, if there is one.
    stand_in: Option<String>,
}

/// Prepares table, queues, queued requests and pool.
async fn prepare(
    config: &Config,
    aws: &Aws,
    clock: &Clock,
    entropy: &Entropy,
    count: usize,
) -> anyhow::Result<Prepared> {
    let names = QueueNames::new(&config.prefix)?;
    schema::ensure(&aws.dynamodb, &config.table).await?;
    topology::ensure(aws, &names, config.visibility).await?;
    let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
    let resent = resend::queued_requests(aws, &names, &store).await?;
    let seeded = pool::seed::seed(&store, entropy, 0, count, "sandbox", clock.now()).await?;
    Ok(Prepared { seeded, resent, stand_in: None })
}

/// Prints how to use it, and serves until the end.
async fn serve(
    process: Process,
    listener: TcpListener,
    config: &Config,
    endpoints: &Endpoints,
    prepared: &Prepared,
    keeps: Option<&Path>,
) -> anyhow::Result<()> {
    let url = format!("http://{}", listener.local_addr()?);
    let tokens =
        |tokens: &broker_runtime::config::Tokens| tokens.iter().next().map(shown).unwrap_or_default();
    let for_operators = broker_api::listen_for_operators(&process.config).await?;
    let console = match &for_operators {
        Some(listener) => format!("http://{}", listener.local_addr()?),
        None => url.clone(),
    };
    let (track, admin) = (tokens(&config.track_tokens), tokens(&config.admin_tokens));
    let Endpoints { dynamodb_url, sqs_url, .. } = endpoints;
    let notes = notes(prepared, keeps);
    output::line(format_args!(
        "Sandbox broker: {url}   ({} sandboxes seeded, {} were there)
{notes}
Console: {console}/console   (sign in with {admin})

Try it in another terminal:

  export URL={url} TOKEN={track} ADMIN_TOKEN={admin}
  curl -i -X POST $URL/v1/allocate -H \"Authorization: Bearer $TOKEN\" -H \"X-Instruqt-Sandbox-ID: student-1\"

The endpoints speak SQS and DynamoDB, for the AWS CLI, an SDK, or a second `broker`:

  export AWS_ENDPOINT_URL_DYNAMODB={dynamodb_url} AWS_ENDPOINT_URL_SQS={sqs_url}
  export AWS_REGION=local AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
  broker pool stats

Ctrl-C stops it: what was accepted is answered first, a second one does not wait.",
        prepared.seeded.inserted, prepared.seeded.existing
    ))?;
    broker_api::run(process, listener, for_operators).await
}

/// Notes on what will be kept, and what is missing.
fn notes(prepared: &Prepared, keeps: Option<&Path>) -> String {
    let mut notes = keeps.map_or_else(
        || "The table is in memory: nothing survives Ctrl-C (--data-dir keeps it).".to_owned(),
        |dir| {
            let (dir, resent) = (dir.display(), prepared.resent);
            format!("The table is kept in {dir}; {resent} requests that were queued were sent again.")
        },
    );
    if let Some(url) = &prepared.stand_in {
        let url = url.trim_end_matches('/');
        notes.push_str(&format!(
            "\nThe provider's stand-in has hooks for a policy (`broker policy apply FILE`): {url}/hooks/refill, {url}/hooks/gate, \
             {url}/hooks/before-delete."
        ));
    }
    if prepared.seeded.inserted + prepared.seeded.existing == 0 {
        notes.push_str(
            "\nThe pool is empty: every allocate is answered 409. Stop it, and start it with --pool 10.",
        );
    }
    notes
}

/// The last line.
fn left(keeps: Option<&Path>) -> String {
    keeps.map_or_else(
        || "Stopped. Nothing is left of it.".to_owned(),
        |dir| format!("Stopped. The table is left in {}.", dir.display()),
    )
}

/// A token for its user. Only `broker up` prints one, on the user's own machine.
fn shown(token: &Token) -> String {
    String::from_utf8_lossy(token.secret()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_runtime::entropy::Entropy;

    use super::{ReadSettings, Workers, on_loopback};
    use crate::context::{Flags, Settings};

    fn read(environment: &[(&str, &str)]) -> ReadSettings {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let settings = Settings::new(Flags::new(), "cli".to_owned(), environment).unwrap();
        ReadSettings::new(&settings, &Entropy::seeded(1)).unwrap()
    }

    #[test]
    fn what_is_for_one_machine_listens_on_loopback_whatever_an_image_says() {
        let listens = |at: &str| on_loopback(at.parse().unwrap()).to_string();
        let at = ["127.0.0.1:9", "127.8.0.1:9", "[::1]:9", "0.0.0.0:9", "[::]:9", "10.0.0.1:9"].map(listens);
        let local = "127.0.0.1:9";
        assert_eq!(at, [local, "127.8.0.1:9", "[::1]:9", local, local, local]);
    }

    #[test]
    fn the_settings_of_the_provider_are_those_of_its_stand_in_as_well() {
        let paced = |environment: &[(&str, &str)]| {
            let read = read(environment);
            let provider = read.stand_in.or(read.config.provider).unwrap();
            (provider.rate, provider.timeout)
        };
        assert_eq!(paced(&[]), (10, Duration::from_secs(15)));
        let (rate, timeout) = (("BROKER_PROVIDER_RATE", "3"), ("BROKER_PROVIDER_TIMEOUT_S", "7"));
        assert_eq!(paced(&[rate, timeout]), (3, Duration::from_secs(7)));
        let url = ("BROKER_PROVIDER_URL", "http://127.0.0.1:1");
        assert_eq!(paced(&[url]), (2, Duration::from_secs(15)), "slow enough to watch is the stand-in's");
        assert!(read(&[url]).stand_in.is_none() && read(&[("BROKER_PROVIDER_URL", "")]).stand_in.is_some());
    }

    #[test]
    fn workers_are_a_number_or_a_range() {
        let parse = |text: &str| text.parse::<Workers>();
        assert_eq!(parse("3"), Ok(Workers::InProcess(3)));
        assert_eq!(parse("1..8"), Ok(Workers::Scaled { least: 1, most: 8 }));
        for bad in ["", "x", "65", "0..2", "3..2", "1..65", "1..", "..2", "1...3", "-1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
