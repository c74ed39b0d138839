//! How many workers there should be: the one rule of `broker up --workers A..B`, of Terraform's target tracking and of the
//! KEDA trigger.
//!
//! Invariant: the table in `infra/check/scaling-cases.json` is what this computes; `infra/check/scaling.py` computes it
//! again from what Terraform and kustomize render. What it does not do: measure, wait, start or end anything.

use std::time::Duration;

/// The rule's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Messages that one worker may have before it.
    pub backlog_per_worker: u32,
    /// Never fewer workers.
    pub least: u32,
    /// Never more.
    pub most: u32,
    /// For how long fewer must have been enough before one is let go.
    pub scale_in_after: Duration,
}

/// How full the requests queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Waiting to be received.
    pub visible: u64,
    /// Received and not done. A worker that is let go while it has work would only hand it on.
    pub in_flight: u64,
}

impl Scaling {
    /// How many workers this backlog asks for, within the bounds.
    pub fn wanted(&self, backlog: Backlog) -> u32 {
        let messages = backlog.visible.saturating_add(backlog.in_flight);
        let workers = messages.div_ceil(u64::from(self.backlog_per_worker.max(1)));
        u32::try_from(workers).unwrap_or(u32::MAX).min(self.most).max(self.least)
    }

    /// How many there should be now, where `workers` are and fewer have been enough for `calm`: out at once, in late.
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
    fn no_number_overflows() {
        let scaling =
            Scaling { backlog_per_worker: 0, least: 0, most: u32::MAX, scale_in_after: Duration::ZERO };
        let backlog = Backlog { visible: u64::MAX, in_flight: u64::MAX };
        assert_eq!(scaling.wanted(backlog), u32::MAX);
        assert_eq!(scaling.wanted(Backlog::default()), 0);
    }
}
