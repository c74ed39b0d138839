//! Tally of a run.

use std::collections::BTreeMap;
use std::fmt;

use crate::metrics::Costs;
use crate::user::Sample;

/// The broker's words for what it reads; everything else is written.
const READS: [&str; 5] = ["browse", "by_state", "candidates", "count", "read"];

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) by_status: BTreeMap<u16, usize>,
    pub(crate) per_second: f64,
    /// Milliseconds: p50, p95, p99, the longest.
    pub(crate) latency: [f64; 4],
    /// AWS calls per answer, empty polls apart.
    calls: BTreeMap<String, f64>,
    /// Consumed capacity per answer, by the broker's word for the operation.
    capacity: BTreeMap<String, f64>,
    /// Claims that lost their candidate, per answer.
    pub(crate) lost_races: f64,
    /// Each process; the endpoints' is the last.
    pub(crate) processes: Vec<Process>,
}

/// What one process took.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    /// Resident memory in MiB before anything was asked.
    pub(crate) idle_mib: f64,
    /// And after all was answered.
    pub(crate) mib: f64,
    /// Processor time in microseconds per answer.
    micros: f64,
}

/// Name, resident memory in MiB and processor seconds of each process.
type Resources = Vec<(String, f64, f64)>;

/// What was spent at AWS, and what the processes took, up to some moment.
type Spent = (Costs, Resources);

impl Tally {
    pub(crate) fn new(
        samples: &[Sample],
        idle: &Resources,
        (before, began): &Spent,
        (after, ended): &Spent,
    ) -> Self {
        let mut by_status = BTreeMap::new();
        for sample in samples {
            *by_status.entry(sample.status).or_default() += 1;
        }
        let mut micros: Vec<u64> = samples.iter().map(|sample| sample.micros).collect();
        micros.sort_unstable();
        let at = |part: f64| {
            micros.get(((micros.len() as f64 * part) as usize).min(micros.len().saturating_sub(1)))
        };
        let ms = |part| at(part).copied().unwrap_or_default() as f64 / 1_000.0;
        let first = samples.iter().map(|s| s.at - std::time::Duration::from_micros(s.micros)).min();
        let span = first
            .zip(samples.iter().map(|s| s.at).max())
            .map_or(1.0, |(first, last)| (last - first).as_secs_f64());
        let answers = samples.len().max(1) as f64;
        let each = |before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>| {
            let spent = after.iter().map(|(operation, count)| {
                (operation.clone(), (count - before.get(operation).unwrap_or(&0.0)) / answers)
            });
            spent.filter(|(_, each)| *each > 0.0).collect()
        };
        let processes = idle.iter().zip(began).zip(ended).map(|((idle, began), ended)| Process {
            name: ended.0.clone(),
            idle_mib: idle.1,
            mib: ended.1,
            micros: (ended.2 - began.2) * 1e6 / answers,
        });
        Self {
            by_status,
            per_second: samples.len() as f64 / span,
            latency: [ms(0.5), ms(0.95), ms(0.99), ms(1.0)],
            calls: each(&before.calls, &after.calls),
            capacity: each(&before.capacity, &after.capacity),
            lost_races: (after.lost_races - before.lost_races) / answers,
            processes: processes.collect(),
        }
    }

    /// AWS calls per answer, of those operations or, if none is named, of all.
    pub(crate) fn calls_of(&self, operations: &[&str]) -> f64 {
        let is_meant = |operation: &str| operations.is_empty() || operations.contains(&operation);
        self.calls.iter().filter(|(operation, _)| is_meant(operation)).map(|(_, each)| each).sum()
    }

    /// Capacity units per answer: read, written.
    pub(crate) fn units(&self) -> (f64, f64) {
        let of = |reads: bool| -> f64 {
            let units =
                self.capacity.iter().filter(|(operation, _)| READS.contains(&operation.as_str()) == reads);
            units.map(|(_, each)| each).sum()
        };
        (of(true), of(false))
    }

    /// The part of the answers with this status.
    pub(crate) fn share_of(&self, status: u16) -> f64 {
        let all: usize = self.by_status.values().sum();
        self.by_status.get(&status).copied().unwrap_or_default() as f64 / all.max(1) as f64
    }

    /// The run in the middle by answers per second.
    pub(crate) fn median(tallies: &[Self]) -> Option<&Self> {
        let mut sorted: Vec<_> = tallies.iter().collect();
        sorted.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        sorted.get(sorted.len() / 2).copied()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99, longest] = self.latency;
        let statuses: Vec<_> =
            self.by_status.iter().map(|(status, count)| format!("{count}×{status}")).collect();
        writeln!(
            f,
            "{:.0}/s, p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {longest:.0} ms  ({})",
            self.per_second,
            statuses.join(" ")
        )?;
        let ((read, written), lost) = (self.units(), self.lost_races);
        write!(f, "  per answer: {read:.2} read and {written:.2} write units, {lost:.3} lost races, ")?;
        write!(f, "{:.2} AWS calls  (", self.calls_of(&[]))?;
        let calls = self.calls.iter().filter(|(_, each)| **each >= 0.005);
        let calls = calls.map(|(operation, each)| format!("{operation} {each:.2}"));
        write!(f, "{})", calls.collect::<Vec<_>>().join(", "))?;
        for Process { name, idle_mib, mib, micros } in &self.processes {
            write!(
                f,
                "\n  {name}: {idle_mib:.0} MiB idle, {mib:.0} after, {micros:.0} µs of processor time per answer"
            )?;
        }
        Ok(())
    }
}
