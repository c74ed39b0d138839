//! `broker-chaos`: hundreds of tracks on a whole broker under faults, and a verdict on the responses.
//!
//! For some minutes tracks allocate, repeat, look, poll, cancel and return over several APIs, while workers are killed or
//! frozen every second (or `--strike-every-s`) and APIs every ten, the proxy before AWS injects faults, endpoints disappear for seconds, and sync
//! runs against a provider that renames, doubles, reorders and forgets. Then the faults end, the tracks finish, and the
//! history of responses is judged together with the table: exclusive ownership in time, one live sandbox per key, no
//! accepted request without an end, queues empty, nothing stuck. With `--supply`, a flavour of the policy asks for its
//! sandboxes itself, its gate is asked about each, and its hooks misbehave (`flavour`). With `--other`, half of the processes are of another build:
//! any order of a rollout or a rollback. With `--waiting` the pool is mostly empty and half of the requests wait in lines. With
//! `--tenants` there are three: one may hold no more than its limit, and for another sandboxes are reserved again and again
//! (`tenants`). The seed repeats the run's choices; the machine chooses the interleaving. Exit codes: 0 all as promised, 1 not.

mod cast;
mod flavour;
mod history;
mod judge;
mod report;
mod saboteur;
mod settle;
mod supply;
mod tenants;
mod track;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use broker_tests::{Broker, Provider};
use clap::Parser;
use tokio::sync::watch;
use tokio::task::JoinSet;

use cast::Cast;
use history::History;
use supply::Supply;
use track::Track;

/// Runs faults under load and checks the responses of the clients.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// The duration in minutes
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Repeats the choices of another run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keys that allocate and give back; every other two share a track
    #[arg(long, default_value_t = 300)]
    keys: usize,
    /// API processes
    #[arg(long, default_value_t = 2)]
    apis: usize,
    /// Worker processes
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// A worker is killed or frozen so often, in seconds
    #[arg(long, default_value_t = 1)]
    strike_every_s: u64,
    /// Ends early once there were so many allocations (0: never)
    #[arg(long, default_value_t = 0)]
    allocations: usize,
    /// The pool is mostly empty and sandboxes arrive from the provider in small numbers: half of the requests wait in a line, some
    /// are cancelled there, and leases are renewed
    #[arg(long)]
    waiting: bool,
    /// Nothing is killed and nothing fails: the same load in peace, to know what the faults cost
    #[arg(long)]
    peace: bool,
    /// A `broker` of another build: every other process that starts is one of it, as in a rollout or a rollback. The
    /// provider behaves: the other build may not be proof against its moods. With `--waiting` only workers are of it: its API may
    /// not know how to wait
    #[arg(long, value_name = "BROKER", conflicts_with = "supply")]
    other: Option<PathBuf>,
    /// A flavour with gate, refill and quarantine beside the others, whose hooks misbehave, too
    #[arg(long)]
    supply: bool,
    /// Three tenants: one with a limit, one with reservations, one with neither
    #[arg(long, conflicts_with = "other")]
    tenants: bool,
}

/// The visibility timeout: short, so that the messages of a dead worker come back soon.
const VISIBILITY_S: &str = "5";
/// So many violations of each sort are printed.
const SHOWN: usize = 25;
/// Enough to know where an API listens and which reply queue is whose.
const LOG: &str = "warn,broker_api=info,broker_api::access_log=warn,broker_api::readiness=warn";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{arguments:?}");
    let margin = if arguments.waiting { supply::scarce(arguments.keys) } else { supply::PLENTY };
    let provider = Arc::new(supply::provider(margin).await);
    let setup = provider.setup().apis(0).workers(0).faults(arguments.seed);
    let setup =
        setup.var("BROKER_VISIBILITY_S", VISIBILITY_S).var("BROKER_LOG", LOG).var("BROKER_WAIT_S", "10");
    let setup = setup.var("BROKER_PROVIDER_RATE", "100");
    let setup = match arguments.waiting {
        true => setup.var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1"),
        false => setup,
    };
    let setup = if arguments.tenants { setup.var("BROKER_TRACK_TOKENS", &tenants::tokens()) } else { setup };
    let mut broker = Broker::start(setup).await;
    let history = Arc::new(History::new());
    let (other, other_apis) = (arguments.other.clone(), !arguments.waiting);
    // Before there is a process that could lend without it: a worker that has read no policy claims nothing.
    let limit = arguments.tenants.then(|| tenants::limit(arguments.keys));
    apply_policy(&broker, &provider, &arguments, limit).await;
    let mut cast = Cast::start(&broker, arguments.apis, arguments.workers, other, other_apis).await;
    let by_sync = arguments.supply;
    let supply = Supply::new(&broker, Arc::clone(&provider), Arc::clone(&history), margin, by_sync);
    supply.first().await;
    let supplying = tokio::spawn(supply.run());

    let (end, ended) = watch::channel(false);
    let mut tracks = JoinSet::new();
    for index in 0..arguments.keys {
        let (apis, history) = (cast.apis(), Arc::clone(&history));
        let token = arguments.tenants.then(|| tenants::token_of(index));
        let track = Track::new(index, arguments.seed, arguments.waiting, token, apis, history);
        tracks.spawn(track.run(ended.clone()));
    }
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let deeds = saboteur::rage(&broker, &provider, &mut cast, &history, &arguments, length).await;

    println!("calm after {:?}; everybody settles", history.elapsed());
    broker.proxy().calm();
    provider.behave().await;
    cast.complete(&broker).await;
    let events = history.so_far();
    // Everybody shall have a sandbox in the end.
    apply_policy(&broker, &provider, &arguments, None).await;
    end.send_replace(true);
    let mut settled = settle::everybody(tracks).await;
    supplying.abort();
    let (told, cancelled) = (history.allocations(), history.cancellations());
    let waited = history.waits();
    let mut faults = judge::history(&history.take());
    if let Some(limit) = limit {
        faults.extend(judge::above(&events, &tenants::limited_tracks(arguments.keys), limit));
        tenants::settle(&broker).await;
    }
    // Told before the table is asked: a broker that is broken enough may never come to rest for that.
    faults.iter().take(SHOWN).for_each(|fault| println!("VIOLATION {fault}"));
    let known = faults.len();
    if arguments.supply {
        faults.extend(flavour::judge(&broker, &provider).await);
    }
    if arguments.other.is_some() {
        // The last step of a roll-out: an older build may not know everything that a sandbox has beside it.
        broker.cli_ok(&["init"]).await;
    }
    faults.extend(settle::table(&mut broker, &cast, &mut settled, told).await);
    report::print(&settled, &deeds, (cancelled, waited), &broker.proxy().tallies(), &cast);
    if faults.is_empty() {
        cast.stop().await;
        broker.finish().await;
        println!("\nAll as promised: 0 violations.");
        return ExitCode::SUCCESS;
    }
    println!();
    faults[known..].iter().take(SHOWN).for_each(|fault| println!("VIOLATION {fault}"));
    println!("{} violations", faults.len());
    broker.abandon();
    ExitCode::FAILURE
}

/// Applies what the run's policy says, if it has one, with this limit.
async fn apply_policy(broker: &Broker, provider: &Provider, arguments: &Arguments, limit: Option<usize>) {
    let mut text = String::new();
    if arguments.supply {
        text.push_str(&flavour::policy(provider));
    }
    if arguments.tenants {
        text.push_str(&tenants::policy(limit));
    }
    if text.is_empty() {
        return;
    }
    let path = broker_tests::warden::scratch().join("chaos-policy.toml");
    std::fs::write(&path, text).expect("the file is written");
    broker.cli_ok(&["policy", "apply", path.to_str().expect("a path of text")]).await;
}
