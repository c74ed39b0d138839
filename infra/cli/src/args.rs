//! Command line. Every setting of `broker_runtime::config` is a flag too, and overrides the environment.

use broker_runtime::config::SETTINGS;
use clap::{Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{
    audit, dead_letters, endpoints, hooks, init, job, lease, overview, policy, pool, processes, provider,
    quarantine, refill, reservation, sandbox, tenants, track, up, waiting,
};
use crate::context::Flags;
use crate::output::Output;

/// Hands out sandboxes from a pool, through a queue. Without a command: `broker up`.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The operator's name, for the audit of what a command changes
    #[arg(long, global = true, default_value = "cli", value_name = "NAME", value_parser = parse_operator)]
    pub(crate) by: String,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage or a bad setting, 3 found a violation.
AWS endpoints, region and credentials come from the usual AWS environment (AWS_ENDPOINT_URL_SQS, AWS_REGION, ...).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine: endpoints, API, workers, a seeded pool
    Up(up::Up),
    /// Run only the embedded SQS and DynamoDB endpoints; prints their URLs as a JSON line
    Endpoints(endpoints::EndpointsArgs),
    /// Run only the provider stand-in; prints its URL and token as a JSON line
    Provider(provider::ProviderArgs),
    /// Create the table and the queues, or correct them; safe to repeat
    Init(init::Init),
    /// Run one API process
    Api,
    /// Run one worker process
    Worker(processes::Worker),
    /// Fill, list, count and check the pool
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Apply, show and compare the policy: flavours, how many of each are kept, what tenants may hold
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Run a job now; pause and resume its schedule
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Show one sandbox, release it, extend its lease, retry its deletion
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Show a track's lease and requests, and what an allocate would be answered now
    Track(track::Track),
    /// List sandboxes in quarantine; add, release or delete them
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// List, show, replay and discard dead letters
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Show how many sandboxes flavours are missing; pause and resume refill
    #[command(subcommand)]
    Refill(refill::RefillCommand),
    /// Put sandboxes aside for a tenant, from a time until a time, or for good
    #[command(subcommand)]
    Reservation(reservation::ReservationCommand),
    /// Show the limits of tenants and their use, their waiting requests and reservations
    Tenants(tenants::TenantsArgs),
    /// Try out the hooks of the policy
    #[command(subcommand)]
    Hooks(hooks::HooksCommand),
    /// List requests that wait for a sandbox; cancel some
    #[command(subcommand)]
    Waiting(waiting::WaitingCommand),
    /// Show current problems, counts of the pool, and the last hour
    Overview(overview::OverviewArgs),
    /// Show the depth of the queues
    Queues(Output),
    /// Show the operations of operators: job runs, pauses, releases, extensions, retries
    Audit(audit::Audit),
    /// Run a command with a sandbox of its own: allocate, wait, renew while it runs, give back
    Lease(lease::LeaseArgs),
    /// Check everything that a broker needs, a line each: ok, or what to do; exit code 1 if anything is wrong
    Doctor(Output),
}

fn parse_operator(name: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits { Ok(name.to_owned()) } else { Err("is not a name of 1 to 64 characters".to_owned()) }
}

/// `BROKER_POLL_WAIT_S` is `--poll-wait-s`.
fn flag_of(setting: &str) -> String {
    setting.trim_start_matches("BROKER_").to_ascii_lowercase().replace('_', "-")
}

fn command() -> clap::Command {
    let settings = SETTINGS.iter().filter(|setting| !setting.secret).map(|setting| {
        Arg::new(setting.name)
            .long(flag_of(setting.name))
            .value_name(setting.form())
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
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
