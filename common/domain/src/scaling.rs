//! Scaling rule: the number of workers for a backlog, the same in `broker up --workers A..B`, in Terraform's target
//! tracking and in the KEDA trigger.
//!
//! Invariant: the table in `infra/check/scaling-cases.json` is what this computes; `infra/check/scaling.py` computes it
//! again from what Terraform and the chart render. Nothing is measured, started or ended here.

use std::time::Duration;

/// The parameters of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The backlog of one worker.
    pub backlog_per_worker: u32,
    /// The fewest workers.
    pub least: u32,
    /// The most workers.
    pub most: u32,
    /// How long fewer workers must have been enough before one is ended.
    pub scale_in_after: Duration,
}

/// The backlog of a queue that workers receive from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages waiting to be received.
    pub visible: u64,
    /// Messages received and not done. A worker that is ended while it has work only hands it on.
    pub in_flight: u64,
}

impl Backlog {
    /// The backlog of each of so many running workers, rounded up; none if none runs.
    pub fn per_worker(self, workers: u64) -> Option<u64> {
        (workers > 0).then(|| self.messages().div_ceil(workers))
    }

    fn messages(self) -> u64 {
        self.visible.saturating_add(self.in_flight)
    }
}

impl Scaling {
    /// The number of workers for this backlog, within the bounds.
    pub fn wanted(&self, backlog: Backlog) -> u32 {
        let workers = backlog.messages().div_ceil(u64::from(self.backlog_per_worker.max(1)));
        u32::try_from(workers).unwrap_or(u32::MAX).min(self.most).max(self.least)
    }

    /// The number of workers for now, where `workers` run and fewer have been enough for `calm`: scales out at once, in late.
    pub fn desired(&self, backlog: Backlog, workers: u32, calm: Duration) -> u32 {
        let wanted = self.wanted(backlog);
        if wanted < workers && calm < self.scale_in_after { workers.min(self.most) } else { wanted }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Table {
        rule: Rule,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Rule {
        per_worker: u32,
        min: u32,
        max: u32,
        cooldown_s: u64,
    }

    #[derive(Debug, Deserialize)]
    struct Case {
        visible: u64,
        in_flight: u64,
        workers: u32,
        wanted: u32,
        desired_calm: u32,
        desired_restless: u32,
    }

    #[test]
    fn the_table_that_the_infrastructure_is_checked_with_is_this_rule() {
        let table = include_str!("../../../infra/check/scaling-cases.json");
        let Table { rule, cases } = serde_json::from_str(table).unwrap();
        let scaling = Scaling {
            backlog_per_worker: rule.per_worker,
            least: rule.min,
            most: rule.max,
            scale_in_after: Duration::from_secs(rule.cooldown_s),
        };
        assert!(cases.len() > 50, "a table that says nothing proves nothing");
        for case in cases {
            let backlog = Backlog { visible: case.visible, in_flight: case.in_flight };
            assert_eq!(scaling.wanted(backlog), case.wanted, "{case:?}");
            let calm = scaling.scale_in_after;
            assert_eq!(scaling.desired(backlog, case.workers, calm), case.desired_calm, "{case:?}");
            let restless = calm - Duration::from_secs(1);
            assert_eq!(scaling.desired(backlog, case.workers, restless), case.desired_restless, "{case:?}");
        }
    }

    #[test]
    fn what_is_in_flight_is_backlog_of_a_worker_as_well() {
        let backlog = Backlog { visible: 31, in_flight: 7 };
        assert_eq!([0, 1, 3].map(|workers| backlog.per_worker(workers)), [None, Some(38), Some(13)]);
        assert_eq!(Backlog::default().per_worker(3), Some(0));
    }

    #[test]
    fn no_number_overflows() {
        let scaling =
            Scaling { backlog_per_worker: 0, least: 0, most: u32::MAX, scale_in_after: Duration::ZERO };
        let backlog = Backlog { visible: u64::MAX, in_flight: u64::MAX };
        assert_eq!(scaling.wanted(backlog), u32::MAX);
        assert_eq!(backlog.per_worker(1), Some(u64::MAX));
        assert_eq!(scaling.wanted(Backlog::default()), 0);
    }
}
