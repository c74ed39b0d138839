//! RESULTS.md: every row, measured now, on this machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum as _};

use crate::rows::Row;

/// Which rows, how often, and where to.
#[derive(Debug, Args)]
pub(crate) struct Results {
    /// Only these; by default all
    rows: Vec<Row>,
    /// Runs of each, each on a broker of its own
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Write tests/load/RESULTS.md
    #[arg(long)]
    write: bool,
}

impl Results {
    /// Measures; fails if a run violated what the broker promises. A missed target is told, not failed: another machine
    /// is another machine.
    pub(crate) async fn run(self) -> ExitCode {
        let rows = if self.rows.is_empty() { Row::value_variants().to_vec() } else { self.rows };
        let mut text = head();
        for row in rows {
            println!("{}", row.title());
            let Ok(figures) = row.measure(self.runs).await else { return ExitCode::FAILURE };
            let _ = write!(text, "\n## {}\n\n", row.title());
            text.push_str("| figure | target | median | spread | |\n|---|---|---|---|---|\n");
            for figure in figures {
                println!("{figure}");
                let _ = writeln!(text, "{figure}");
            }
        }
        if self.write {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("load/RESULTS.md");
            std::fs::write(&path, text).expect("the tree can be written");
            println!("written: tests/load/RESULTS.md");
        }
        ExitCode::SUCCESS
    }
}

fn head() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("git and date are there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (commit, day) = (said("git", &["rev-parse", "--short", "HEAD"]), said("date", &["+%F"]));
    format!(
        "# Measured\n\n\
         {cores} cores, commit {commit}, {day}; users, endpoints, API and workers on the one machine; 1 API and 2 workers unless a row \
         says otherwise. Written by `target/release/broker-bench results --write`; each run ended with `broker pool verify`, which \
         found nothing.\n"
    )
}
