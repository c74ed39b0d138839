//! What a run comes to.

use std::collections::BTreeMap;
use std::fmt;

use crate::metrics::Costs;
use crate::user::Sample;

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    by_status: BTreeMap<u16, usize>,
    per_second: f64,
    /// Milliseconds: p50, p95, p99, the longest.
    latency: [f64; 4],
    /// AWS calls per answer, empty polls apart.
    calls: f64,
    calls_by_operation: BTreeMap<String, f64>,
    /// Consumed capacity per answer, reads and writes.
    capacity: f64,
    /// Claims that lost their candidate, per answer.
    lost_races: f64,
    /// Name, resident memory in MiB, processor time in microseconds per answer, of each process.
    processes: Vec<(String, f64, f64)>,
}

/// What was spent at AWS, and what the processes took, up to some moment.
type Spent = (Costs, Vec<(String, f64, f64)>);

impl Tally {
    pub(crate) fn new(samples: &[Sample], (before, began): &Spent, (after, ended): &Spent) -> Self {
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
        let calls_by_operation: BTreeMap<_, _> = after
            .calls
            .iter()
            .map(|(operation, count)| {
                (operation.clone(), (count - before.calls.get(operation).unwrap_or(&0.0)) / answers)
            })
            .filter(|(_, each)| *each >= 0.005)
            .collect();
        let spent = |costs: &Costs| costs.capacity.values().sum::<f64>();
        Self {
            by_status,
            per_second: samples.len() as f64 / span,
            latency: [ms(0.5), ms(0.95), ms(0.99), ms(1.0)],
            calls: calls_by_operation.values().sum(),
            calls_by_operation,
            capacity: (spent(after) - spent(before)) / answers,
            lost_races: (after.lost_races - before.lost_races) / answers,
            processes: began
                .iter()
                .zip(ended)
                .map(|((_, _, cpu_before), (name, mib, cpu))| {
                    (name.clone(), *mib, (cpu - cpu_before) * 1e6 / answers)
                })
                .collect(),
        }
    }

    /// The run in the middle by answers per second.
    pub(crate) fn median(tallies: &[Self]) -> Self {
        let mut sorted = tallies.to_vec();
        sorted.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        sorted.swap_remove(sorted.len() / 2)
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
        write!(
            f,
            "  per answer: {:.2} AWS calls, {:.2} capacity units, {:.3} lost races  (",
            self.calls, self.capacity, self.lost_races
        )?;
        let calls = self.calls_by_operation.iter().map(|(operation, each)| format!("{operation} {each:.2}"));
        write!(f, "{})", calls.collect::<Vec<_>>().join(", "))?;
        for (process, mib, micros) in &self.processes {
            write!(f, "\n  {process}: {mib:.0} MiB, {micros:.0} µs of processor time per answer")?;
        }
        Ok(())
    }
}
