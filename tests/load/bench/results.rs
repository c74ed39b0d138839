//! Rows of RESULTS.md, each as it was last measured, with its commit and day.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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
    /// The `broker-bench` of the build at 819abd4, for `pair` and `k6`; its other binaries lie beside it
    #[arg(long, value_name = "BROKER_BENCH")]
    pair: Option<PathBuf>,
    /// Write them into tests/load/RESULTS.md; rows that were not measured stay as they are there
    #[arg(long)]
    write: bool,
}

impl Results {
    /// Measures; fails if a run violated a promise of the broker. A missed target is reported, not failed: another machine
    /// is another machine.
    pub(crate) async fn run(self) -> ExitCode {
        let rows = if self.rows.is_empty() { Row::value_variants().to_vec() } else { self.rows };
        let mut sections = Vec::new();
        for row in rows {
            println!("{}", row.title());
            let other = self.pair.as_deref();
            if row.needs_pair() && other.is_none() {
                println!("  not measured: it needs --pair");
                continue;
            }
            let Ok(figures) = row.measure(self.runs, other.unwrap_or(Path::new(""))).await else {
                return ExitCode::FAILURE;
            };
            let mut text = measured_on();
            text.push_str("\n\n| figure | target | median | spread | |\n|---|---|---|---|---|\n");
            for figure in figures {
                println!("{figure}");
                let _ = writeln!(text, "{figure}");
            }
            sections.push((row, text));
        }
        if self.write {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("load/RESULTS.md");
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            std::fs::write(&path, with(&sections, &before)).expect("the tree can be written");
            println!("written: tests/load/RESULTS.md");
        }
        ExitCode::SUCCESS
    }
}

/// The whole text: the sections that were measured now, the others as they stand in `before`.
fn with(measured: &[(Row, String)], before: &str) -> String {
    let mut text = "# Measured\n\nUsers, endpoints, API and workers on the one machine, an endpoint process of its own for each run; 1 API and 2 workers \
                    unless a row says otherwise. Written by `target/release/broker-bench results --write`; each run ended with `broker pool \
                    verify`, which found nothing.\n"
        .to_owned();
    for row in Row::value_variants() {
        let now = measured.iter().find(|(one, _)| one == row).map(|(_, section)| section.as_str());
        let then = || before.split("\n## ").find_map(|section| section.strip_prefix(row.title()));
        if let Some(section) = now.or_else(then) {
            let _ = write!(text, "\n## {}\n\n{}\n", row.title(), section.trim_matches('\n'));
        }
    }
    // Sections of other commands are written by hand.
    let of_a_row = |section: &&str| Row::value_variants().iter().any(|row| section.starts_with(row.title()));
    for section in before.split("\n## ").skip(1).filter(|section| !of_a_row(section)) {
        let _ = write!(text, "\n## {}\n", section.trim_matches('\n'));
    }
    text
}

/// A line that says on what a section was measured.
fn measured_on() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("git and date are there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (commit, day) = (said("git", &["rev-parse", "--short", "HEAD"]), said("date", &["+%F"]));
    format!("{cores} cores, commit {commit}, {day}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_now_stays_as_it_is() {
        let section = |text: &str| text.to_owned();
        let first = with(&[(Row::New, section("new, then")), (Row::Hops, section("hops, then"))], "");
        let then = with(&[(Row::Hops, section("hops, now")), (Row::Single, section("single, now"))], &first);
        assert_eq!(then, with(&[(Row::New, section("new, then"))], &then), "written twice, it is the same");
        let places = ["new, then", "single, now", "hops, now"].map(|text| then.find(text));
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{then}");
        assert!(!then.contains("hops, then"), "{then}");
    }
}
