//! The command line. Every setting of `broker_runtime::config` is a flag too, and wins over the environment.

mod dead_letters;

pub(crate) use dead_letters::{
    DeadLettersCommand, Discard, ListDeadLetters, Replay, Selected, ShowDeadLetter,
};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use broker_domain::{Job, STALE_GRACE_HOURS, Status};
use broker_runtime::config::SETTINGS;
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Settings given as flags, by the setting's name.
pub(crate) type Flags = BTreeMap<String, String>;

/// Child processes that one machine can be asked for; each is a process with a runtime of its own.
const MOST_WORKERS: u32 = 64;

/// Sandboxes out of a pool, through a queue. Without a command: `broker up`.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage or a bad setting, 3 found a violation.
AWS endpoints, region and credentials come from the usual AWS environment (AWS_ENDPOINT_URL_SQS, AWS_REGION, ...).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine: endpoints, API, workers, a seeded pool
    Up(Up),
    /// Run only the embedded SQS and DynamoDB endpoints; prints their URLs as a JSON line
    Endpoints(Endpoints),
    /// Run only the provider stand-in; prints its URL and token as a JSON line
    Provider(Provider),
    /// Create the table and the queues, or mend them; safe to repeat
    Init,
    /// Run one API process
    Api,
    /// Run one worker process
    Worker(Worker),
    /// Fill, list, count and check the pool
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Run a job now; pause and resume its schedule
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at one sandbox, take it back, extend its lease, delete it again
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// See, understand, replay and discard what could not be processed
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// How full the queues are
    Queues(Output),
    /// What operators did: a line each for job runs, pauses, releases, extensions, retries
    Audit(Audit),
    /// Look at everything that a broker needs: each a line, ok or what to do; exit code 1 if anything is wrong
    Doctor(Output),
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Run a job through the queue and tell what it did
    Run(JobRun),
    /// Keep a job from being started by its schedule
    Pause(JobName),
    /// Let a paused job be started again
    Resume(JobName),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Everything that is known of it
    Show(OneSandbox),
    /// End its lease now, as expiry would
    Release(OneSandbox),
    /// Let its owner keep it longer
    Extend(Extend),
    /// Make a deletion that failed or waits due now
    RetryDelete(OneSandbox),
}

#[derive(Debug, Args)]
pub(crate) struct JobRun {
    /// sync, expire, cleanup, purge-stale, census or sweep
    #[arg(value_parser = parse_job)]
    pub(crate) job: Job,
    /// Sync: make sandboxes stale however many they are
    #[arg(long)]
    pub(crate) accept_stale: bool,
    /// Purge-stale: how long a sandbox must have been stale
    #[arg(long, default_value_t = STALE_GRACE_HOURS)]
    pub(crate) grace_period_hours: u32,
    /// How long to wait for the end of the run
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout_s: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct JobName {
    /// sync, expire, cleanup, purge-stale, census or sweep
    #[arg(value_parser = parse_job)]
    pub(crate) job: Job,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct OneSandbox {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Extend {
    #[command(flatten)]
    pub(crate) one: OneSandbox,
    /// By how many hours
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=168))]
    pub(crate) hours: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Provider {
    /// Port of the stand-in (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// How many accounts it has; their ids are those of `broker pool seed`
    #[arg(long, default_value_t = 100)]
    pub(crate) accounts: usize,
    /// How many accounts are on a page
    #[arg(long, default_value_t = 100)]
    pub(crate) page_size: usize,
    /// After so many seconds a deleted account is followed by a new one
    #[arg(long)]
    pub(crate) regrow_s: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Put new sandboxes into the pool; those whose id is there already are left alone
    Seed(Seed),
    /// List sandboxes
    List(List),
    /// Count sandboxes by state (reads the whole table)
    Stats(Output),
    /// Read the whole table and report everything that breaks a promise; exit code 3 if anything does
    Verify(Output),
    /// Take over a pool that another tool filled; without --apply it only tells what it would do
    Adopt(Adopt),
    /// Let no worker take a message, until `resume`
    Pause(Output),
    /// Let the workers go on
    Resume(Output),
    /// Bring a restored table up to what was handed out since; without --apply it only tells what it would do
    Reconcile(Reconcile),
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Of which day (UTC): 0 is today, 1 yesterday
    #[arg(long, default_value_t = 0)]
    pub(crate) days_ago: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// JSON for programs instead of a table for people
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Port of the API (0 takes a free one)
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Workers: N in this process, or A..B as child processes scaled on the backlog
    #[arg(long, value_name = "N|A..B", default_value = "2")]
    pub(crate) workers: Workers,
    /// With A..B: messages that one worker may have before it
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) backlog_per_worker: u32,
    /// With A..B: for how many seconds fewer workers must have been enough before one is let go
    #[arg(long, default_value_t = 60)]
    pub(crate) scale_in_after_s: u64,
    /// Sandboxes to seed
    #[arg(long, default_value_t = 100)]
    pub(crate) pool: usize,
    #[command(flatten)]
    pub(crate) endpoints: Endpoints,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            port: 8080,
            workers: Workers::InProcess(2),
            backlog_per_worker: 100,
            scale_in_after_s: 60,
            pool: 100,
            endpoints: Endpoints::default(),
        }
    }
}

/// How many workers `broker up` runs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many, in its own process.
    InProcess(usize),
    /// As many child processes as the backlog asks for.
    Scaled {
        /// Never fewer.
        least: u32,
        /// Never more.
        most: u32,
    },
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("{text:?} is neither a number nor A..B with 1 <= A <= B <= {MOST_WORKERS}");
        let Some((least, most)) = text.split_once("..") else {
            return text.parse().map(Self::InProcess).map_err(|_not_a_number| form());
        };
        match (least.parse(), most.parse()) {
            (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= MOST_WORKERS => {
                Ok(Self::Scaled { least, most })
            }
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(form()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Drain when standard input closes, as it does when the parent process dies
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Endpoints {
    /// Port of the DynamoDB endpoint (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) dynamodb_port: u16,
    /// Port of the SQS endpoint (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) sqs_port: u16,
    /// Keep the table in this directory; without it nothing survives
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// How many
    #[arg(long, default_value_t = 100, required_unless_present = "cleanup")]
    pub(crate) count: usize,
    /// What their names begin with
    #[arg(long, default_value = "sandbox")]
    pub(crate) name_prefix: String,
    /// The number of the first; ids are seed-000000, seed-000001, …
    #[arg(long, default_value_t = 0)]
    pub(crate) start: usize,
    /// Remove what seed made and nobody used
    #[arg(long)]
    pub(crate) cleanup: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Reconcile {
    /// JSON lines of what was handed out since: {"sandbox_id", "track", "idempotency_key", "track_name", "expires_at",
    /// "returned"}, all but the first optional; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) handed_out: String,
    /// Write
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Write
    #[arg(long)]
    pub(crate) apply: bool,
    /// Delete surplus sandboxes too: what a dry run lists as surplus may be in somebody's hands
    #[arg(long, requires = "apply")]
    pub(crate) confirm: bool,
    /// The table is read twice, so many seconds apart, and nothing may change meanwhile
    #[arg(long, default_value_t = 10)]
    pub(crate) apart_s: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those in this state
    #[arg(long, value_parser = parse_status)]
    pub(crate) status: Option<Status>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn parse_job(text: &str) -> Result<Job, String> {
    Job::parse(text).ok_or_else(|| format!("is none of {}", Job::ALL.map(Job::as_str).join(", ")))
}

fn parse_status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| format!("is none of {}", Status::ALL.map(Status::as_str).join(", ")))
}

/// `BROKER_POLL_WAIT_S` is `--poll-wait-s`.
fn flag_of(setting: &str) -> String {
    setting.trim_start_matches("BROKER_").to_ascii_lowercase().replace('_', "-")
}

fn command() -> clap::Command {
    let settings = SETTINGS.iter().filter(|setting| !setting.secret).map(|setting| {
        Arg::new(setting.name)
            .long(flag_of(setting.name))
            .value_name(setting.unit)
            .help(format!("{} [{}, default: {}]", setting.doc, setting.name, setting.default))
            .help_heading("Settings")
            .hide_short_help(true)
            .global(true)
    });
    Cli::command().args(settings)
}

/// The command line of this process. Ends the process for `--help`, and with exit code 2 for a mistake.
pub(crate) fn parse() -> (Cli, Flags) {
    let matches = command().get_matches();
    // A global flag stands at the level of the command that it was given to.
    let mut flags = Flags::new();
    let mut level = Some(&matches);
    while let Some(matches) = level {
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            if let Ok(Some(value)) = matches.try_get_one::<String>(setting.name) {
                flags.insert(setting.name.to_owned(), value.clone());
            }
        }
        level = matches.subcommand().map(|(_, matches)| matches);
    }
    (Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()), flags)
}

#[cfg(test)]
mod tests {
    use super::Workers;

    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }

    #[test]
    fn workers_are_a_number_or_a_range() {
        let parse = |text: &str| text.parse::<Workers>();
        assert_eq!(parse("3"), Ok(Workers::InProcess(3)));
        assert_eq!(parse("1..8"), Ok(Workers::Scaled { least: 1, most: 8 }));
        for bad in ["", "x", "0..2", "3..2", "1..65", "1..", "..2", "1...3", "-1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
