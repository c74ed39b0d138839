//! Instructions of one allocation in an API and in a worker, counted by callgrind: a measure that does not depend on the load of
//! the machine.
//!
//! The processes run under `valgrind --tool=callgrind`, which counts from when they are ready. One user allocates one sandbox after
//! the other; then the processes wait, and what a second of that costs is taken out. The counts are of the build that runs, so
//! `tests/load/instructions.txt` is of the one that CI makes (`dev`), and names the compiler: of another one they say nothing.

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
/// Allocations before the count, and counted.
const FIRST: u64 = 20;
const COUNTED: u64 = 100;
/// How long the processes wait.
const IDLE: Duration = Duration::from_secs(8);
/// Counts, of which one must be as written: whatever else the machine does makes them more.
const TRIES: usize = 3;
/// How long callgrind may take to hear.
const CONTROL: Duration = Duration::from_secs(30);
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
    /// Counts; fails if one differs by more than a twentieth from what is written. The exit code is 2 where nothing can be counted.
    pub(crate) async fn run(self) -> ExitCode {
        match self.compared().await {
            Ok(code) => code,
            Err(reason) => {
                eprintln!("not counted: {reason}");
                ExitCode::from(2)
            }
        }
    }

    async fn compared(self) -> Result<ExitCode, String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("load/instructions.txt");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let compiler = compiler();
        if self.write {
            let mut text = format!("{compiler}\n");
            for (name, each) in PROCESSES.into_iter().zip(count().await?) {
                println!("{name}: {each} instructions an allocation");
                let _ = writeln!(text, "{name} {each}");
            }
            std::fs::write(&path, text).expect("the tree can be written");
            return Ok(ExitCode::SUCCESS);
        }
        if written.lines().next() != Some(&compiler) {
            println!("not compared: tests/load/instructions.txt is of another compiler than {compiler}");
            return Ok(ExitCode::SUCCESS);
        }
        for _ in 0..TRIES {
            let mut differs = false;
            for (name, each) in PROCESSES.into_iter().zip(count().await?) {
                let times = expected(&written, name).map_or(f64::INFINITY, |before| each / before);
                println!("{name}: {each} instructions an allocation, {times:.3} times what is written");
                differs |= (times - 1.0).abs() > MAY_DIFFER;
            }
            if !differs {
                return Ok(ExitCode::SUCCESS);
            }
        }
        eprintln!(
            "more or fewer than tests/load/instructions.txt says: if that is meant, run this with --write"
        );
        Ok(ExitCode::FAILURE)
    }
}

/// The compiler that cargo takes.
fn compiler() -> String {
    let told = Command::new("rustc").arg("--version").output().expect("rustc says its version");
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}

/// What is written of a process.
fn expected(written: &str, name: &str) -> Option<f64> {
    written.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Instructions of an allocation in each process; or the reason why callgrind counts none here.
async fn count() -> Result<[f64; 2], String> {
    // Empty polls are of the time, not of an allocation.
    let setup = Setup::new().alone().apis(0).workers(0).var("BROKER_POLL_WAIT_S", "3");
    let mut broker = Broker::start(setup.pool((FIRST + COUNTED) as usize + 100)).await;
    let each = count_on(&broker).await;
    broker.start_worker().await;
    broker.finish().await;
    each
}

async fn count_on(broker: &Broker) -> Result<[f64; 2], String> {
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
    let pids: Vec<String> = running.iter().map(|(process, ..)| process.id().to_string()).collect();
    let measured = measure(&running[0].1, &pids).await;
    let mut files = Vec::new();
    for (process, _, counts) in running {
        process.stop().await;
        files.push(counts);
    }
    let (took, waited) = measured?;
    let mut each = [0.0; 2];
    for (counts, each) in files.iter().zip(&mut each) {
        let [busy, idle] = [1, 2].map(|dump| total(counts, dump));
        *each = ((busy - idle / waited * took) / COUNTED as f64).round();
    }
    Ok(each)
}

/// Has the processes count allocations through the API at `address`, and then a wait; how many seconds each took.
async fn measure(address: &str, pids: &[String]) -> Result<(f64, f64), String> {
    control(&["--instr=on"], pids).await?;
    let mut user = User::connect(address).await;
    let mut allocate = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let sample = user.post("/v1/allocate", &format!("track-{number}"), Instant::now()).await;
            assert_eq!(sample.status, 201, "{}", String::from_utf8_lossy(&sample.body));
        }
    };
    allocate(0..FIRST).await;
    control(&["--zero"], pids).await?;
    let began = Instant::now();
    allocate(FIRST..FIRST + COUNTED).await;
    let took = began.elapsed().as_secs_f64();
    control(&["--dump"], pids).await?;
    let began = Instant::now();
    tokio::time::sleep(IDLE).await;
    let waited = began.elapsed().as_secs_f64();
    control(&["--dump"], pids).await?;
    Ok((took, waited))
}

/// Tells callgrind something of the processes with these ids. That needs the right to trace them.
async fn control(what: &[&str], pids: &[String]) -> Result<(), String> {
    let mut command = tokio::process::Command::new("callgrind_control");
    let told = tokio::time::timeout(CONTROL, command.args(what).args(pids).kill_on_drop(true).output()).await;
    let told = told.map_err(|elapsed| format!("callgrind_control: {elapsed}"))?;
    let told = told.map_err(|error| format!("callgrind_control, which comes with valgrind: {error}"))?;
    if told.status.success() { Ok(()) } else { Err(format!("callgrind_control: {told:?}")) }
}

/// The instructions of a dump.
fn total(counts: &Path, dump: u8) -> f64 {
    let file = format!("{}.{dump}", counts.display());
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let total = text.lines().find_map(|line| {
        let counted = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?;
        counted.trim().parse().ok()
    });
    total.expect("callgrind tells the total")
}

/// `command` under callgrind, which writes its counts there.
fn under_callgrind(command: &Command, counts: &Path) -> Command {
    let mut under = Command::new("valgrind");
    under.args(["--quiet", "--tool=callgrind", "--instr-atstart=no"]);
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
