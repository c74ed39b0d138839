//! Another build: its `broker-bench` and `broker-load`, run in turns with these, so that the ratios do not depend on the load of
//! the machine.

use std::fmt;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum as _;

use crate::figure::Figure;
use crate::figure::Target::{AtLeast, AtMost};
use crate::plan::Plan;
use crate::tally::Tally;

/// What its run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Theirs {
    per_second: f64,
    p99_ms: f64,
}

/// One run of `bench`, with the same scenario and users. It must be of a build that knows them.
pub(crate) fn measure(bench: &Path, plan: &Plan) -> Result<Theirs, String> {
    let scenario =
        plan.scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let numbers = [("--users", plan.users as u64), ("--seconds", plan.seconds), ("--rate", plan.rate)];
    let mut command = Command::new(bench);
    command.args(["run", &scenario, "--runs", "1"]);
    for (name, value) in numbers {
        command.args([name, &value.to_string()]);
    }
    let said = printed(command)?;
    let theirs = said.lines().find_map(|line| read(line.strip_prefix("run 1: ")?));
    let theirs = theirs.ok_or_else(|| format!("no run in what it printed: {said}"))?;
    println!("  of the other build: {:.0}/s, p99 {:.1} ms", theirs.per_second, theirs.p99_ms);
    Ok(theirs)
}

/// New allocations a second with 50 users that k6 plays, each of which allocates, repeats, looks and gives back: ours, times
/// as many as those of the other build, whose `broker-load` lies beside its `bench`. Both in turns.
pub(crate) fn by_k6(bench: &Path, runs: usize) -> Result<Figure, String> {
    let ours = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let [ours, theirs] = [k6_rate(&ours)?, k6_rate(bench)?];
        println!("  {ours:.0}/s, of the other build {theirs:.0}/s");
        ratios.push(ours / theirs);
    }
    Ok(Figure::new("new allocations/s, times the other build's", AtLeast(1.3), ratios))
}

fn k6_rate(bench: &Path) -> Result<f64, String> {
    let mut command = Command::new(bench.with_file_name("broker-load"));
    command.args(["load", "--apis", "1", "--workers", "2", "--users", "50", "--duration", "10s"]);
    command.args(["--think-time", "0", "--pool", "30000"]);
    let said = printed(command)?;
    said.lines().find_map(read_k6).ok_or_else(|| format!("no rate in what it printed: {said}"))
}

/// From a line of `broker-load`.
fn read_k6(line: &str) -> Option<f64> {
    let (_, rate) = line.strip_prefix("new allocations")?.split_once('(')?;
    rate.strip_suffix("/s)")?.parse().ok()
}

fn printed(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
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

    pub(crate) fn figures(&self) -> [Figure; 2] {
        [
            Figure::new("answers/s, times the other build's", AtLeast(1.2), self.rate.clone()),
            Figure::new("p99, times the other build's", AtMost(1.0), self.p99.clone()),
        ]
    }
}

/// Nothing without a pair.
impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rate.is_empty() {
            return Ok(());
        }
        self.figures().iter().try_for_each(|figure| writeln!(f, "{figure}"))
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

    #[test]
    fn what_k6_came_to_is_read_from_the_line_of_its_runner() {
        assert_eq!(read_k6("new allocations     7431 (743/s)"), Some(743.0));
        assert_eq!(read_k6("allocate answers    1486/s"), None);
    }
}
