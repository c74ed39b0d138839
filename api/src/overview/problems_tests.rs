//! Tests of what the overview calls a problem.

use std::collections::BTreeMap;

use super::*;
use crate::overview::{
    HeldRefill, HistoryMinute, HookTrouble, Letters, Pool, Processes, ProviderTrouble, Requests,
    ReservationAtRisk, ScheduledJob,
};
use broker_domain::{NamePrefix, ReservationId, TenantName};

const NOW: u64 = 1_000_000;

fn minute(visible: u64, refused: u64) -> HistoryMinute {
    HistoryMinute {
        at: NOW - 60,
        states: None,
        dead_letters: None,
        visible: Some(visible),
        in_flight: Some(0),
        oldest_age_ms: None,
        workers: None,
        created: 10,
        existing: 0,
        refused,
        failed: 0,
        p50_ms: None,
        p99_ms: None,
    }
}

fn scheduled(job: &'static str) -> ScheduledJob {
    let next_run_at = Some(NOW + 60);
    ScheduledJob { job, next_run_at, paused_at: None, paused_by: None, trouble: None, trouble_at: None }
}

fn held(paused_at: Option<u64>) -> HeldRefill {
    let paused_by = paused_at.map(|_| "maria".to_owned());
    HeldRefill { flavour: "small".to_owned(), paused_at, paused_by, next_try_at: None }
}

fn away(hook: &str) -> HookTrouble {
    HookTrouble { hook: hook.to_owned(), workers: 1, since: NOW - 90, why: "status 500".to_owned() }
}

/// Counts every six minutes, the last one a minute ago.
fn arriving(arriving: [u64; 4], available: [u64; 4]) -> Vec<HistoryMinute> {
    let counts = arriving.into_iter().zip(available).zip([19, 13, 7, 1]);
    let counted = counts.map(|((arriving, available), minutes)| HistoryMinute {
        at: NOW - minutes * 60,
        states: Some(BTreeMap::from([("arriving", arriving), ("available", available)])),
        ..minute(0, 0)
    });
    counted.collect()
}

fn at_risk() -> ReservationAtRisk {
    ReservationAtRisk {
        id: ReservationId::parse("0197c2b0-0000-7000-8000-000000000001").unwrap(),
        tenant: TenantName::new("platform").unwrap(),
        prefix: NamePrefix::new("lab-").unwrap(),
        missing: 2,
    }
}

fn fine() -> Overview {
    Overview {
        now: NOW,
        problems: Vec::new(),
        pool: Some(Pool {
            states: BTreeMap::from([("available", 200), ("allocated", 100)]),
            flavours: BTreeMap::new(),
            as_of: NOW - 60,
        }),
        requests: Some(Requests {
            visible: 0,
            in_flight: 3,
            oldest_age_ms: Some(20),
            backlog_per_worker: Some(0),
        }),
        processes: Processes { apis: 1, workers: 2 },
        dead_letters: Letters::default(),
        paused_since: None,
        jobs: vec![scheduled("sync"), scheduled("sweep")],
        provider_away: None,
        hooks_away: Vec::new(),
        refill_held: Vec::new(),
        at_risk: Vec::new(),
        history: vec![minute(0, 0)],
        caller: None,
    }
}

fn put(overview: &mut Overview, state: &'static str, count: u64) {
    overview.pool.as_mut().unwrap().states.insert(state, count);
}

#[test]
fn nothing_is_wrong_where_all_is_fine() {
    assert_eq!(of(&fine()), []);
}

#[test]
fn each_thing_that_is_wrong_is_told_once_with_a_section_of_the_runbook() {
    type Break = fn(&mut Overview);
    let cases: [(&str, Break); 27] = [
        ("pool_paused", |o| o.paused_since = Some(NOW)),
        ("no_worker", |o| o.processes.workers = 0),
        ("queue_silent", |o| o.requests = None),
        ("backlog", |o| o.requests.as_mut().unwrap().oldest_age_ms = Some(11_000)),
        ("no_worker_receives", |o| {
            let requests = o.requests.as_mut().unwrap();
            (requests.visible, requests.in_flight) = (4, 0);
            o.history = vec![minute(4, 0)];
        }),
        ("census_missing", |o| o.pool = None),
        ("census_old", |o| o.pool.as_mut().unwrap().as_of = NOW - 3_000),
        ("pool_empty", |o| put(o, "available", 0)),
        ("pool_low", |o| put(o, "available", 49)),
        ("deletions_behind", |o| put(o, "pending_deletion", 61)),
        ("deletion_failed", |o| put(o, "deletion_failed", 1)),
        ("stale", |o| put(o, "stale", 2)),
        ("refused", |o| o.history = vec![minute(0, 3)]),
        ("dead_letters", |o| o.dead_letters.open = 7),
        ("job_paused", |o| o.jobs[0].paused_at = Some(NOW)),
        ("job_overdue", |o| o.jobs[0].next_run_at = Some(NOW - 121)),
        ("provider_away", |o| {
            o.provider_away =
                Some(ProviderTrouble { workers: 1, since: NOW - 90, why: "status 500".to_owned() });
        }),
        ("gate_away", |o| o.hooks_away.push(away("gate"))),
        ("before_delete_away", |o| o.hooks_away.push(away("before_delete"))),
        ("sync_refused", |o| o.jobs[0].trouble = Some("the provider lists nothing at all".to_owned())),
        ("job_failed", |o| o.jobs[1].trouble = Some("the table did not answer".to_owned())),
        ("refill_paused", |o| o.refill_held.push(held(Some(NOW)))),
        ("refill_stopped", |o| o.refill_held.push(held(None))),
        ("quarantine_full", |o| put(o, "quarantined", 75)),
        ("quarantine_full", |o| {
            let small = BTreeMap::from([("available", 8), ("quarantined", 2), ("deleted", 90)]);
            o.pool.as_mut().unwrap().flavours.insert("small".to_owned(), small);
        }),
        ("arrivals_stuck", |o| o.history = arriving([4, 4, 5, 5], [9, 9, 8, 0])),
        ("reservation_at_risk", |o| o.at_risk.push(at_risk())),
    ];
    let runbook = include_str!("../../../infra/docs/RUNBOOK.md");
    let anchors: Vec<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    for (code, wrong) in cases {
        let mut overview = fine();
        wrong(&mut overview);
        let found = of(&overview);
        assert_eq!(found.iter().map(|problem| problem.code).collect::<Vec<_>>(), [code]);
        assert!(anchors.iter().any(|anchor| anchor == found[0].runbook), "{found:?}: {anchors:?}");
        assert!(found[0].text.ends_with('.'), "{found:?}");
    }
}

#[test]
fn arrivals_of_which_some_are_offered_are_not_stuck() {
    let quarter = [
        arriving([4, 4, 3, 5], [9, 9, 9, 9]),
        arriving([4, 4, 4, 4], [9, 9, 10, 9]),
        arriving([0, 4, 4, 4], [9, 9, 9, 9]),
        arriving([4, 4, 4, 4], [9, 9, 9, 9]).split_off(2),
    ];
    for history in quarter {
        assert_eq!(of(&Overview { history, ..fine() }), []);
    }
}

#[test]
fn an_old_census_hides_nothing_that_it_counted() {
    let mut overview = fine();
    overview.pool.as_mut().unwrap().as_of = NOW - 1_700;
    assert_eq!(of(&overview), [], "it may come once in half an hour");
    overview.pool.as_mut().unwrap().as_of = NOW - 3_000;
    put(&mut overview, "available", 0);
    put(&mut overview, "pending_deletion", 61);
    let codes: Vec<_> = of(&overview).into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["pool_empty", "census_old", "deletions_behind"]);
}

#[test]
fn the_worst_comes_first() {
    let mut overview = fine();
    overview.dead_letters.open = 1;
    overview.processes.workers = 0;
    let codes: Vec<_> = of(&overview).into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["no_worker", "dead_letters"]);
}
