//! `broker lease … -- COMMAND`: runs a command with a sandbox of its own, which it keeps by heartbeats and gives back.
//!
//! Invariants: COMMAND runs only while it has a sandbox, as far as the broker has said; a heartbeat that is told that the lease
//! is over ends it, and says so. What was allocated is given back when COMMAND has ended, however it ended, and when a signal comes before it began. If
//! this process dies without a word, the lease ends as abandoned after three heartbeats. It needs `BROKER_URL` and
//! `BROKER_TOKEN`, and nothing of AWS.

mod allocate;
mod client;
mod command;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use broker_domain::{FlavourName, Heartbeat, LabDuration, TrackId, TrackName};
use broker_runtime::clock::Clock;
use broker_runtime::config::ConfigError;
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use clap::Args;

use crate::done::Done;
use crate::output;

use client::{Client, HeldLease, NoSandbox, WantedLease};

/// Exit code: the lease ended under the command.
const LEASE_LOST: u8 = 70;
/// Exit code: no sandbox came in time.
const NOT_IN_TIME: u8 = 75;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: COMMAND's own (128 + the number of the signal that ended it, 127 if it did not start); \
70 the lease ended under it, 75 no sandbox came in time or before a signal, 1 refused, 2 usage.
COMMAND finds SANDBOX_ID, SANDBOX_NAME, SANDBOX_EXTERNAL_ID and SANDBOX_EXPIRES_AT (seconds since the epoch) in its \
environment, and attributes of the provider as SANDBOX_ and their names in capitals. BROKER_URL and BROKER_TOKEN say where the broker is and who calls."
)]
pub(crate) struct LeaseArgs {
    /// Only a sandbox of this flavour
    #[arg(long, value_name = "NAME", value_parser = |text: &str| FlavourName::new(text))]
    flavour: Option<FlavourName>,
    /// How long to wait for a sandbox, e.g. 90s, 10m, 2h; a broker that does not answer is tried for a minute at least
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_wait)]
    wait: Duration,
    /// How often the lease is renewed while COMMAND runs, 30s to 1h; three intervals without a renewal end it
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_heartbeat)]
    heartbeat: Heartbeat,
    /// The longest that the sandbox is kept, in hours, 1 to 168
    #[arg(long, value_name = "HOURS")]
    hours: Option<LabDuration>,
    /// Who the sandbox is for; without it, a name of its own for each run
    #[arg(long, value_name = "ID", value_parser = |text: &str| TrackId::new(text))]
    owner: Option<TrackId>,
    /// The lab or the job that it is for, as lists and the console show it
    #[arg(long, value_name = "ID", value_parser = |text: &str| TrackName::new(text))]
    lab: Option<TrackName>,
    /// The command to run, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `90s`, `10m`, `2h`, or so many seconds.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no time: write it as 90s, 10m or 2h");
    let unit = |letter: char| match letter {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        _ => None,
    };
    let (digits, unit) = match text.chars().last().and_then(unit) {
        Some(unit) => (&text[..text.len() - 1], unit),
        None => (text, 1),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

/// As long as a request can wait at most.
const LONGEST_WAIT_S: u64 = 86_400;

fn parse_wait(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        seconds @ 0..=LONGEST_WAIT_S => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("a request waits for {LONGEST_WAIT_S} s at most")),
    }
}

fn parse_heartbeat(text: &str) -> Result<Heartbeat, String> {
    Heartbeat::new(parse_time(text)?).map_err(|_| "a heartbeat is 30s to 1h".to_owned())
}

/// Runs the command; does not return before the sandbox is given back or that was tried for a minute.
pub(crate) fn run(lease: LeaseArgs, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Done> {
    let url = required(&variable, "BROKER_URL")?;
    let url = url.parse().map_err(|error| setting("BROKER_URL", error))?;
    let token = required(&variable, "BROKER_TOKEN")?;
    let runtime = tokio::runtime::Runtime::new().context("the async runtime did not start")?;
    runtime.block_on(async {
        let (clock, entropy) = (Clock::system(), Entropy::from_system());
        let lifecycle = Lifecycle::new();
        lifecycle.end_on_signals().context("signals cannot be received")?;
        let owner = match lease.owner.clone() {
            Some(owner) => owner,
            None => TrackId::new(format!("lease-{}", entropy.uuid()))?,
        };
        let client = Client::new(url, &token, owner, clock)?;
        with_sandbox(&lease, &client, &lifecycle).await
    })
}

fn required(variable: impl Fn(&str) -> Option<String>, name: &'static str) -> Result<String, ConfigError> {
    variable(name).filter(|value| !value.is_empty()).ok_or_else(|| setting(name, "is not set"))
}

fn setting(name: &'static str, problem: impl Display) -> ConfigError {
    ConfigError::new(name, problem.to_string())
}

async fn with_sandbox(lease: &LeaseArgs, client: &Client, lifecycle: &Lifecycle) -> anyhow::Result<Done> {
    let wanted = WantedLease {
        flavour: lease.flavour.as_ref(),
        heartbeat: lease.heartbeat,
        hours: lease.hours,
        lab: lease.lab.as_ref(),
        wait: lease.wait,
    };
    let held = match allocate::allocate(client, &wanted, &lifecycle.soft).await {
        Ok(held) => held,
        Err(NoSandbox::NotInTime(why)) => {
            output::complain(&format!("no sandbox within {} s: {why}", lease.wait.as_secs()));
            return Ok(Done::Exit(ExitCode::from(NOT_IN_TIME)));
        }
        Err(NoSandbox::Interrupted) => {
            output::complain("interrupted before there was a sandbox");
            return Ok(Done::Exit(ExitCode::from(NOT_IN_TIME)));
        }
        Err(NoSandbox::Refused(why)) => {
            output::complain(&format!("refused: {why}"));
            return Ok(Done::Failed);
        }
    };
    let HeldLease { sandbox_id, name, .. } = &held;
    output::complain(&format!("has {sandbox_id} ({name})"));
    let ended = if lifecycle.soft.is_cancelled() {
        None
    } else {
        Some(command::run(&lease.command, &held, client, lease.heartbeat).await)
    };
    match &ended {
        Some(Ok(ended)) if ended.lost.is_some() => {}
        Some(_) | None => client.give_back(&held.sandbox_id).await,
    }
    Ok(match ended {
        Some(Ok(ended)) if ended.lost.is_some() => Done::Exit(ExitCode::from(LEASE_LOST)),
        Some(Ok(ended)) => Done::Exit(ExitCode::from(ended.code)),
        Some(Err(error)) => {
            output::complain(&format!("{} did not start: {error}", lease.command[0]));
            Done::Exit(ExitCode::from(127))
        }
        None => Done::Exit(ExitCode::from(NOT_IN_TIME)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_minutes_or_hours() {
        let times = ["0", "90s", "10m", "2h", "45"].map(|text| parse_time(text).unwrap());
        assert_eq!(times, [0, 90, 600, 7_200, 45]);
        for wrong in ["", "s", "-1s", "+5", "1.5h", "ten", "5d", "5é", "99999999999999999999h"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        assert!(parse_wait("24h").is_ok() && parse_wait("25h").is_err());
        assert!(parse_heartbeat("30s").is_ok() && parse_heartbeat("1h").is_ok());
        assert!(parse_heartbeat("29").is_err() && parse_heartbeat("61m").is_err());
    }
}
