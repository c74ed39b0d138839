//! The command that `broker lease` runs, and the heartbeats while it runs.
//!
//! Invariants: it is told to end when the broker says that the lease is over, and never because the broker cannot be reached;
//! where answers say nothing of the lease (a token that is refused, a load balancer's page), when its last known end is past.
//! Signals to this process go on to it. Without a terminal it leads a process group of its own, so that what it started ends
//! with it.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use broker_domain::Heartbeat;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Beat, Client, HeldLease};
use crate::output;

/// How long a command may take to end after it was told to.
const TO_END: Duration = Duration::from_secs(10);
/// Until a heartbeat that was not answered is tried again, at most.
const AGAIN: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code.
    pub(super) code: u8,
    /// Why its lease was over, if that ended it.
    pub(super) lost: Option<String>,
}

/// Runs `command` with `held` in its environment until it ends, or its lease does.
pub(super) async fn run(
    command: &[String],
    held: &HeldLease,
    client: &Client,
    heartbeat: Heartbeat,
) -> io::Result<Ended> {
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let mut child = start(command, held)?;
    let mut beats = Beats { client, held, heartbeat, expires_at: held.expires_at, said_end: false };
    let lost = {
        let beating = beats.until_over();
        tokio::pin!(beating);
        loop {
            let [terminate, interrupt, hangup] = &mut signals;
            tokio::select! {
                biased;
                status = child.process.wait() => return Ok(Ended { code: code(status?), lost: None }),
                why = &mut beating => break why,
                () = received(terminate) => child.tell(Signal::SIGTERM),
                () = received(interrupt) => if child.leads { child.tell(Signal::SIGINT) },
                () = received(hangup) => child.tell(Signal::SIGHUP),
            }
        }
    };
    output::complain(&format!("the lease of {} is over: {lost}. The command is ended.", held.sandbox_id));
    child.tell(Signal::SIGTERM);
    let status = match tokio::time::timeout(TO_END, child.process.wait()).await {
        Ok(status) => status?,
        Err(_elapsed) => {
            output::complain("the command did not end: it is killed");
            child.tell(Signal::SIGKILL);
            child.process.wait().await?
        }
    };
    Ok(Ended { code: code(status), lost: Some(lost) })
}

async fn received(signal: &mut io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => {
            signal.recv().await;
        }
        Err(_unavailable) => std::future::pending().await,
    }
}

/// A command that runs.
struct RunningCommand {
    process: Child,
    /// Whether it leads a process group.
    leads: bool,
}

fn start(command: &[String], held: &HeldLease) -> io::Result<RunningCommand> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    // In a group of its own it could not read a terminal.
    let leads = !io::stdin().is_terminal();
    let mut command = Command::new(program);
    command
        .args(arguments)
        // An attribute takes the place of none of the others.
        .envs(held.attributes.iter().map(|(name, value)| (name, value)))
        .env("SANDBOX_ID", &held.sandbox_id)
        .env("SANDBOX_NAME", &held.name)
        .env("SANDBOX_EXTERNAL_ID", &held.external_id)
        .env("SANDBOX_EXPIRES_AT", held.expires_at.to_string());
    if leads {
        command.process_group(0);
    }
    Ok(RunningCommand { process: command.spawn()?, leads })
}

impl RunningCommand {
    /// Sends it a signal, if it still runs.
    fn tell(&self, signal: Signal) {
        let Some(pid) = self.process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else {
            return;
        };
        let sent = if self.leads { killpg(pid, signal) } else { kill(pid, signal) };
        if let Err(error) = sent {
            output::complain(&format!("the command was not sent {signal}: {error}"));
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The heartbeats of one lease.
struct Beats<'a> {
    client: &'a Client,
    held: &'a HeldLease,
    heartbeat: Heartbeat,
    /// When the lease ends, as was last told, in seconds since the epoch.
    expires_at: u64,
    /// Whether it was said that the lease cannot be renewed any further.
    said_end: bool,
}

impl Beats<'_> {
    /// Beats until the lease is over; why.
    async fn until_over(&mut self) -> String {
        let every = self.heartbeat.as_duration();
        let mut pause = every;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.client.beat(&self.held.sandbox_id).await {
                Beat::Over(why) => return why,
                Beat::Live { expires_at, max_expires_at } => {
                    self.expires_at = expires_at;
                    self.tell_of_the_end(expires_at, max_expires_at);
                    every
                }
                Beat::Denied(why) => {
                    let left = self.expires_at.saturating_sub(self.client.clock.now().as_secs());
                    if left == 0 {
                        return format!("its end is past, and no heartbeat was taken: {why}");
                    }
                    output::complain(&format!(
                        "a heartbeat was not taken, the lease ends in {left} s: {why}"
                    ));
                    AGAIN.min(every / 3).min(Duration::from_secs(left))
                }
                Beat::Unknown(why) => {
                    output::complain(&format!("a heartbeat was not answered: {why}"));
                    AGAIN.min(every / 3)
                }
            };
        }
    }

    /// Says once that the lease will not last.
    fn tell_of_the_end(&mut self, expires_at: u64, max_expires_at: u64) {
        if expires_at >= max_expires_at && !self.said_end {
            self.said_end = true;
            let left = expires_at.saturating_sub(self.client.clock.now().as_secs());
            output::complain(&format!(
                "the lease of {} ends in {left} s and cannot be renewed further",
                self.held.sandbox_id
            ));
        }
    }
}
