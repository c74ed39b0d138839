//! Command line. Every setting of `broker_runtime::config` is a flag too, and overrides the environment.

mod dead_letters;

pub(crate) use dead_letters::{
    DeadLettersCommand, Discard, ListDeadLetters, Replay, Selected, ShowDeadLetter,
};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use broker_domain::{Job, LONGEST_STALE_GRACE_HOURS, LabDuration, STALE_GRACE_HOURS, Status};
use broker_runtime::config::SETTINGS;
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Settings given as flags, by name.
pub(crate) type Flags = BTreeMap<String, String>;

/// The most child processes on one machine; each has a runtime of its own.
const MOST_WORKERS: u32 = 64;

/// Hands out sandboxes from a pool, through a queue. Without a command: `broker up`.
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
    /// Create the table and the queues, or correct them; safe to repeat
    Init(Init),
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
    /// Show one sandbox, release it, extend its lease, retry its deletion
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// List, show, replay and discard dead letters
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Show the depth of the queues
    Queues(Output),
    /// Show the operations of operators: job runs, pauses, releases, extensions, retries
    Audit(Audit),
    /// Check everything that a broker needs, a line each: ok, or what to do; exit code 1 if anything is wrong
    Doctor(Output),
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Run a job through the queue and print its report
    Run(JobRun),
    /// Pause a job: its schedule does not start it
    Pause(JobName),
    /// Resume a paused job
    Resume(JobName),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Show the full record
    Show(OneSandbox),
    /// End its lease now, as expiry would
    Release(OneSandbox),
    /// Extend its lease
    Extend(Extend),
    /// Make a deletion that failed or waits due now
    RetryDelete(OneSandbox),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Add the index (and expiry) to a table that another tool made, while it is in use; waits until it is built
    #[arg(long)]
    pub(crate) adopt_table: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JobRun {
    /// sync, expire, cleanup, purge-stale, census or sweep
    #[arg(value_parser = parse_job)]
    pub(crate) job: Job,
    /// Sync: make missing sandboxes stale, however many there are
    #[arg(long)]
    pub(crate) accept_stale: bool,
    /// Purge-stale: how long a sandbox must have been stale
    #[arg(long, default_value_t = STALE_GRACE_HOURS,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(LONGEST_STALE_GRACE_HOURS)))]
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
    /// The id of the sandbox
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Extend {
    #[command(flatten)]
    pub(crate) one: OneSandbox,
    /// The hours to add, 1 to 168
    #[arg(long)]
    pub(crate) hours: LabDuration,
}

#[derive(Debug, Args)]
pub(crate) struct Provider {
    /// Port of the stand-in (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// The number of accounts; their ids are those of `broker pool seed`
    #[arg(long, default_value_t = 100)]
    pub(crate) accounts: usize,
    /// The number of accounts of a page
    #[arg(long, default_value_t = 100)]
    pub(crate) page_size: usize,
    /// The seconds after which a deleted account is replaced by a new one
    #[arg(long)]
    pub(crate) regrow_s: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Put seeds into the pool; existing ids are left alone
    Seed(Seed),
    /// List sandboxes
    List(List),
    /// Count sandboxes by state (reads the whole table)
    Stats(Output),
    /// Read the whole table and report every violation; exit code 3 if there is any
    Verify(Output),
    /// Adopt a pool that another tool filled; without --apply it only reports what it would do
    Adopt(Adopt),
    /// Stop the workers from taking messages, until `resume`
    Pause(Output),
    /// Resume a paused pool
    Resume(Output),
    /// Reconcile a restored table with what was handed out since; without --apply it only reports what it would do
    Reconcile(Reconcile),
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// The day (UTC): 0 is today, 1 yesterday
    #[arg(long, default_value_t = 0)]
    pub(crate) days_ago: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Print JSON instead of a table
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
    /// Keep the table in this directory; without it, it is lost at the end
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Behave as AWS does: hops of 4 to 25 ms with tails, an index that lags, conflicts, hot partitions, queues that linger
    #[arg(long)]
    pub(crate) aws_latency: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// The number of seeds
    #[arg(long, default_value_t = 100, required_unless_present = "cleanup")]
    pub(crate) count: usize,
    /// The prefix of their names
    #[arg(long, default_value = "sandbox")]
    pub(crate) name_prefix: String,
    /// The number of the first; ids are seed-000000, seed-000001, …
    #[arg(long, default_value_t = 0)]
    pub(crate) start: usize,
    /// Remove unused seeds
    #[arg(long)]
    pub(crate) cleanup: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Reconcile {
    /// What was handed out, as `broker pool list --handed-out` prints it: JSON lines {"sandbox_id", "name", "external_id",
    /// "track", "idempotency_key", "track_name", "allocated_at", "expires_at", "returned"}, all but the first optional;
    /// - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) handed_out: String,
    /// Also with fewer lines than the table's last census says are allocated
    #[arg(long)]
    pub(crate) accept_fewer: bool,
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
    /// Delete surplus sandboxes too; those that a dry run lists may be in use
    #[arg(long, requires = "apply")]
    pub(crate) confirm: bool,
    /// The seconds between two reads of the table, which must not change meanwhile
    #[arg(long, default_value_t = 10)]
    pub(crate) apart_s: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this state
    #[arg(long, value_parser = parse_status)]
    pub(crate) status: Option<Status>,
    /// The most sandboxes to list [default: 50]
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// Everything that was ever handed out, whole, as JSON lines for `broker pool reconcile`
    #[arg(long, conflicts_with_all = ["status", "limit", "json"])]
    pub(crate) handed_out: bool,
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

/// The command line of this process. Ends the process for `--help`, and with exit code 2 for an invalid one.
pub(crate) fn parse() -> (Cli, Flags) {
    let matches = command().get_matches();
    // A global flag is stored at the level of the command that it was given to.
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
