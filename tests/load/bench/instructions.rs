//! Instructions of one allocation in an API and in a worker, counted by callgrind: a measure that does not depend on the load of
//! the machine.
//!
//! The processes run under `valgrind --tool=callgrind`, one user allocates one sandbox after the other, and what few and many
//! allocations took is subtracted: start, end and first reads are in both. What a process does all the time is taken out, too:
//! a third run waits, and tells what a second of it costs. The counts are of the build that runs, so
//! `tests/load/instructions.txt` is of the one that CI makes (`dev`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use broker_tests::process::Process;
use broker_tests::{Api, Broker, Setup, wait_for_condition, warden};
use clap::Args;
use tokio::time::Instant;

use crate::user::User;

const PROCESSES: [&str; 2] = ["broker-api", "broker-worker"];
/// Allocations of the two runs.
const FEW: u64 = 20;
const MANY: u64 = 120;
/// How long the third run waits.
const IDLE: Duration = Duration::from_secs(8);
/// A count may differ by this part.
const MAY_DIFFER: f64 = 0.05;

/// What becomes of the counts.
#[derive(Debug, Args)]
pub(crate) struct Instructions {
    /// Write them into tests/load/instructions.txt instead of comparing them with it
    #[arg(long)]
    write: bool,
}

impl Instructions {
    /// Counts; fails if one differs by more than a twentieth from what is written.
    pub(crate) async fn run(self) -> ExitCode {
        let few = count(FEW, Duration::ZERO).await;
        let (idle, many) = (count(FEW, IDLE).await, count(MANY, Duration::ZERO).await);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("load/instructions.txt");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let (mut text, mut differs) = (String::new(), false);
        for (position, name) in PROCESSES.into_iter().enumerate() {
            let beyond = |run: &Counted| {
                (run.instructions[position] - few.instructions[position], run.seconds - few.seconds)
            };
            let ((idle, waited), (many, took)) = (beyond(&idle), beyond(&many));
            let each = ((many - idle / waited * took) / (MANY - FEW) as f64).round();
            let _ = writeln!(text, "{name} {each}");
            let Some(before) = expected(&written, name) else {
                println!("{name}: {each} instructions an allocation");
                differs = true;
                continue;
            };
            let times = each / before;
            println!("{name}: {each} instructions an allocation, {times:.3} times what is written");
            differs |= (times - 1.0).abs() > MAY_DIFFER;
        }
        if self.write {
            std::fs::write(&path, text).expect("the tree can be written");
            return ExitCode::SUCCESS;
        }
        if differs {
            eprintln!(
                "more or fewer than tests/load/instructions.txt says: if that is meant, run this with --write"
            );
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

/// What is written of a process.
fn expected(written: &str, name: &str) -> Option<f64> {
    written.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// What the processes executed from start to end, and the seconds from when both were ready.
struct Counted {
    instructions: [f64; 2],
    seconds: f64,
}

/// A run with so many allocations, and then a wait.
async fn count(allocations: u64, idle: Duration) -> Counted {
    // Empty polls are of the time, not of an allocation.
    let setup = Setup::new().alone().apis(0).workers(0).var("BROKER_POLL_WAIT_S", "3");
    let mut broker = Broker::start(setup.pool(MANY as usize + 100)).await;
    let commands = [broker.api_command(), broker.worker_command()];
    let said = ["api listening", "worker listening"];
    let mut running = Vec::new();
    for ((name, command), said) in PROCESSES.into_iter().zip(commands).zip(said) {
        let counts = warden::scratch().join(broker.queues().name(&format!("callgrind-{name}")));
        let mut process = Process::start(name, &mut under_callgrind(&command, &counts));
        let address = process.listening(said).await;
        let api = Api::new(&address);
        wait_for_condition(&format!("{name} to be ready"), async || match api.probe("/readyz").await {
            Some((200, _)) => Ok(()),
            probed => Err(format!("{probed:?}")),
        })
        .await;
        running.push((process, address, counts));
    }
    let began = Instant::now();
    let mut user = User::connect(&running[0].1).await;
    for number in 0..allocations {
        let sample = user.post("/v1/allocate", &format!("track-{number}"), Instant::now()).await;
        assert_eq!(sample.status, 201, "{}", String::from_utf8_lossy(&sample.body));
    }
    tokio::time::sleep(idle).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut instructions = [0.0; 2];
    for ((process, _, counts), counted) in running.into_iter().zip(&mut instructions) {
        process.stop().await;
        let text = std::fs::read_to_string(&counts).expect("callgrind wrote its counts");
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
        *counted = total.expect("callgrind tells the total");
    }
    broker.start_worker().await;
    broker.finish().await;
    Counted { instructions, seconds }
}

/// `command` under callgrind, which writes its counts there.
fn under_callgrind(command: &Command, counts: &Path) -> Command {
    let mut under = Command::new("valgrind");
    under.args(["--quiet", "--tool=callgrind"]);
    under.arg(format!("--callgrind-out-file={}", counts.display()));
    under.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => under.env(name, value),
            None => under.env_remove(name),
        };
    }
    under
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_process_is_found_by_its_name() {
        let written = "broker-api 1200000\nbroker-worker 2400000\n";
        assert_eq!(PROCESSES.map(|name| expected(written, name)), [Some(1.2e6), Some(2.4e6)]);
        assert_eq!(expected("", "broker-api"), None);
    }
}
