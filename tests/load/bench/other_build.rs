//! Other build: its own `broker-bench`, run in turns with this one, for ratios that a wandering machine does not move.

use std::fmt;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum as _;

use crate::Run;
use crate::figure::Figure;
use crate::figure::Target::{AtLeast, AtMost};
use crate::tally::Tally;

/// What its run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Theirs {
    per_second: f64,
    p99_ms: f64,
}

/// One run of `bench`, with the same scenario and users. It must be of a build that knows them.
pub(crate) fn measure(bench: &Path, run: &Run) -> Result<Theirs, String> {
    let scenario =
        run.scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let numbers = [("--users", run.users as u64), ("--seconds", run.seconds), ("--rate", run.rate)];
    let mut command = Command::new(bench);
    command.args(["run", &scenario, "--runs", "1"]);
    for (name, value) in numbers {
        command.args([name, &value.to_string()]);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let theirs = said.lines().find_map(|line| read(line.strip_prefix("run 1: ")?));
    let theirs = theirs.ok_or_else(|| format!("no run in what it printed: {said}"))?;
    println!("  of the other build: {:.0}/s, p99 {:.1} ms", theirs.per_second, theirs.p99_ms);
    Ok(theirs)
}

/// From the first line of a [`Tally`].
fn read(line: &str) -> Option<Theirs> {
    let (per_second, rest) = line.split_once("/s")?;
    let (_, p99) = rest.split_once("p99 ")?;
    Some(Theirs { per_second: per_second.parse().ok()?, p99_ms: p99.split(' ').next()?.parse().ok()? })
}

/// Our figures, times as much as theirs; run by run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ratios {
    rate: Vec<f64>,
    p99: Vec<f64>,
}

impl Ratios {
    pub(crate) fn add(&mut self, ours: &Tally, theirs: &Theirs) {
        self.rate.push(ours.per_second / theirs.per_second);
        self.p99.push(ours.latency[2] / theirs.p99_ms);
    }
}

/// Nothing without a pair.
impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rate.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{}",
            Figure::new("answers/s, times the other build's", AtLeast(1.2), self.rate.clone())
        )?;
        writeln!(f, "{}", Figure::new("p99, times the other build's", AtMost(1.0), self.p99.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_p99_are_read_from_the_line_of_a_run() {
        let line = "2944/s, p50 16.1 ms, p95 21.0 ms, p99 27.8 ms, max 60 ms  (29440×201)";
        assert_eq!(read(line), Some(Theirs { per_second: 2_944.0, p99_ms: 27.8 }));
        assert_eq!(read("no such line"), None);
    }
}
