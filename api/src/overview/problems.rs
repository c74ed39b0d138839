//! Problems of the broker at this moment, derived from an overview alone. One list for the API, the console and the command.
//!
//! Each problem names its section of the runbook. The bounds are those of the alerts (`infra/observability/alerts.yaml`),
//! without their waiting times: a person looks.

use broker_domain::policy::ANY_FLAVOUR;
use broker_domain::quarantine::is_full;
use broker_domain::{Job, Status};
use schemars::JsonSchema;
use serde::Serialize;

use super::Overview;
use std::collections::BTreeMap;

/// Fewer free sandboxes than this are few.
const FEW_FREE: u64 = 50;
/// A request that waited longer than this in the queue is old, in milliseconds.
const OLD_REQUEST_MS: u64 = 10_000;
/// How long a job may be overdue, in seconds: a worker claims a tick within one.
const OVERDUE_S: u64 = 120;
/// How long a census may be missing, in seconds, plus what a large pool takes.
const CENSUS_S: u64 = 300;
/// How much longer for each thousand sandboxes, in seconds.
const CENSUS_PER_THOUSAND_S: u64 = 2;
/// The recent minutes that are looked at.
const RECENT_S: u64 = 5 * 60;
/// Out of this many sandboxes in use one may wait for its deletion.
const DELETING_ONE_IN: u64 = 5;

/// How long sandboxes may arrive without one being offered, in seconds.
const ARRIVING_S: u64 = 15 * 60;
/// The minutes in which that is looked for: a census may be missing.
const ARRIVING_LOOKED_AT_S: u64 = ARRIVING_S + RECENT_S;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Callers notice it.
    Page,
    /// A person should look, but not at night.
    Ticket,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// A word for programs.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, for people.
    pub text: String,
    /// The section of the runbook (`infra/docs/RUNBOOK.md`) that says what to do.
    pub runbook: &'static str,
}

const fn page(code: &'static str, text: String, runbook: &'static str) -> Problem {
    Problem { code, severity: Severity::Page, text, runbook }
}

const fn ticket(code: &'static str, text: String, runbook: &'static str) -> Problem {
    Problem { code, severity: Severity::Ticket, text, runbook }
}

/// Everything that is wrong, the worst first.
pub fn of(overview: &Overview) -> Vec<Problem> {
    let mut problems = Vec::new();
    processes(overview, &mut problems);
    pool(overview, &mut problems);
    answers(overview, &mut problems);
    letters(overview, &mut problems);
    jobs(overview, &mut problems);
    supply(overview, &mut problems);
    quarantine(overview, &mut problems);
    arrivals(overview, &mut problems);
    reservations(overview, &mut problems);
    problems.sort_by_key(|problem| problem.severity);
    problems
}

fn processes(overview: &Overview, problems: &mut Vec<Problem>) {
    let workers = overview.processes.workers;
    if overview.paused_since.is_some() {
        let text = "The pool is paused or being reconciled: no worker takes a message.".to_owned();
        problems.push(page("pool_paused", text, "pause-allocations"));
    } else if workers == 0 {
        problems.push(page("no_worker", "No worker runs.".to_owned(), "nothing-works"));
    }
    let Some(requests) = &overview.requests else {
        let text = "The requests queue does not answer.".to_owned();
        return problems.push(page("queue_silent", text, "nothing-works"));
    };
    let waited = |visible: Option<u64>, in_flight: Option<u64>| visible > Some(0) && in_flight == Some(0);
    let before = overview.history.last().is_some_and(|minute| waited(minute.visible, minute.in_flight));
    if workers > 0 && before && waited(Some(requests.visible), Some(requests.in_flight)) {
        let text = format!("{} wait and no worker takes any.", some(requests.visible, "request"));
        problems.push(page("no_worker_receives", text, "no-worker-receives"));
    } else if let Some(age) = requests.oldest_age_ms.filter(|age| *age > OLD_REQUEST_MS) {
        let text = format!(
            "Requests wait {} s before a worker takes them; {} wait now.",
            age / 1_000,
            requests.visible
        );
        problems.push(page("backlog", text, "backlog-growing"));
    }
}

fn pool(overview: &Overview, problems: &mut Vec<Problem>) {
    let Some(pool) = &overview.pool else {
        let text = "The pool was never counted: the census has not run.".to_owned();
        return problems.push(ticket("census_missing", text, "frozen-figures"));
    };
    let count = |state: &str| pool.states.get(state).copied().unwrap_or(0);
    let total: u64 = pool.states.values().sum();
    let age = overview.now.saturating_sub(pool.as_of);
    if age > CENSUS_S + total / 1_000 * CENSUS_PER_THOUSAND_S {
        let text = format!("The pool was last counted {} min ago: its figures are old.", age / 60);
        return problems.push(ticket("census_old", text, "frozen-figures"));
    }
    let (free, taken) = (count("available"), count("allocated"));
    if free == 0 {
        problems.push(page("pool_empty", "No sandbox is free.".to_owned(), "pool-low"));
    } else if free < FEW_FREE && taken > free {
        let text = format!("{} left, {taken} are allocated.", some(free, "free sandbox"));
        problems.push(page("pool_low", text, "pool-low"));
    }
    let deleting = count("pending_deletion");
    if deleting > FEW_FREE && deleting > (free + taken) / DELETING_ONE_IN {
        let text = format!("{deleting} sandboxes wait for their deletion: more is given back than deleted.");
        problems.push(ticket("deletions_behind", text, "provider-down"));
    }
    let failed = count("deletion_failed");
    if failed > 0 {
        let text = format!("{} could not be deleted at the provider.", some(failed, "sandbox"));
        problems.push(ticket("deletion_failed", text, "provider-down"));
    }
    let stale = count("stale");
    if stale > 0 {
        let text = format!("{} no longer in the provider's list.", some(stale, "sandbox"));
        problems.push(ticket("stale", text, "pool-low"));
    }
}

fn answers(overview: &Overview, problems: &mut Vec<Problem>) {
    let recent = overview.history.iter().filter(|minute| minute.at + RECENT_S >= overview.now);
    let (mut refused, mut failed, mut calls) = (0, 0, 0);
    for minute in recent {
        refused += minute.refused;
        failed += minute.failed;
        calls += minute.created + minute.existing + minute.refused + minute.failed;
    }
    if refused > 0 {
        let text = format!("{refused} of {calls} allocate calls of the last minutes got no sandbox.");
        problems.push(page("refused", text, "pool-low"));
    }
    if failed > 0 {
        let text = format!("{failed} of {calls} allocate calls of the last minutes failed.");
        problems.push(page("failed", text, "backlog-growing"));
    }
}

fn letters(overview: &Overview, problems: &mut Vec<Problem>) {
    let open = overview.dead_letters.open;
    if open > 0 {
        let reasons = &overview.dead_letters.by_reason;
        let most = reasons.iter().max_by_key(|(_, count)| **count).filter(|_| reasons.len() > 1);
        let most = most.map(|(reason, count)| format!(", {count} of them {reason}")).unwrap_or_default();
        let text = format!("{} to be replayed or discarded{most}.", some(open, "dead letter"));
        problems.push(ticket("dead_letters", text, "dead-letters"));
    }
}

fn jobs(overview: &Overview, problems: &mut Vec<Problem>) {
    for job in &overview.jobs {
        if job.paused_at.is_some() {
            let by = job.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let text = format!("The job {} is paused{by}.", job.job);
            problems.push(ticket("job_paused", text, "provider-down"));
        } else if overview.paused_since.is_none()
            && job.next_run_at.is_some_and(|due| due + OVERDUE_S < overview.now)
        {
            let text = format!("The job {} is overdue.", job.job);
            problems.push(ticket("job_overdue", text, "no-worker-receives"));
        }
    }
}

/// What keeps sandboxes from coming and going: the provider, its list, the hooks.
fn supply(overview: &Overview, problems: &mut Vec<Problem>) {
    if let Some(away) = &overview.provider_away {
        let which = some(away.workers, "worker");
        let (workers, for_min) = (overview.processes.workers, overview.now.saturating_sub(away.since) / 60);
        let text = format!(
            "The provider does not answer {which} of {workers} since {for_min} min: no sync and no deletion there ({}).",
            away.why
        );
        problems.push(ticket("provider_away", text, "provider-down"));
    }
    for away in &overview.hooks_away {
        let (which, of) = (some(away.workers, "worker"), overview.processes.workers);
        let for_min = overview.now.saturating_sub(away.since) / 60;
        let (code, what, so) = match away.hook.as_str() {
            "gate" => ("gate_away", "gate", "new sandboxes are not offered"),
            "before_delete" => (
                "before_delete_away",
                "hook before deletions",
                "deletions wait, unless the policy says otherwise",
            ),
            _ => ("hook_away", "hook of a newer release", "what it is asked about waits"),
        };
        let why = &away.why;
        let text = format!("The {what} does not answer {which} of {of} since {for_min} min: {so} ({why}).");
        problems.push(ticket(code, text, "hooks"));
    }
    for job in &overview.jobs {
        let Some(why) = &job.trouble else { continue };
        let ago = job.trouble_at.map_or(0, |at| overview.now.saturating_sub(at) / 60);
        if job.job == Job::Sync.as_str() {
            let text = format!("The provider's list was not applied by the sync of {ago} min ago: {why}.");
            problems.push(ticket("sync_refused", text, "pool-low"));
        } else {
            let text = format!("The run of {} of {ago} min ago ended early: {why}.", job.job);
            problems.push(ticket("job_failed", text, "backlog-growing"));
        }
    }
    for held in &overview.refill_held {
        let flavour = &held.flavour;
        let problem = if held.paused_at.is_some() {
            let by = held.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let text = format!("Refill of {flavour} is paused{by}: no new sandboxes are asked for.");
            ticket("refill_paused", text, "refill")
        } else {
            let text = format!(
                "Refill of {flavour} is stopped: its hook does not answer, or nothing arrives that it has had made."
            );
            ticket("refill_stopped", text, "refill")
        };
        problems.push(problem);
    }
}

/// Flavours of which nothing more goes into quarantine by itself; the whole pool, if it is none of them.
fn quarantine(overview: &Overview, problems: &mut Vec<Problem>) {
    let Some(pool) = &overview.pool else { return };
    let full = |states: &BTreeMap<&'static str, u64>| {
        let count = |status: Status| states.get(status.as_str()).copied().unwrap_or(0);
        let live = states.values().sum::<u64>() - count(Status::Deleted);
        let quarantined = count(Status::Quarantined);
        is_full(quarantined, live).then_some((quarantined, live))
    };
    let named = pool.flavours.iter().filter(|(flavour, _)| *flavour != ANY_FLAVOUR);
    let mut found: Vec<_> =
        named.filter_map(|(name, states)| Some((format!(" of {name}"), full(states)?))).collect();
    if found.is_empty() {
        found.extend(full(&pool.states).map(|counts| (String::new(), counts)));
    }
    for (of, (quarantined, live)) in found {
        let which = some(quarantined, "sandbox");
        let text =
            format!("{which}{of} out of {live} in quarantine, a fifth: nothing more goes there by itself.");
        problems.push(page("quarantine_full", text, "quarantine"));
    }
}

/// Sandboxes that arrive while none is offered, as the counts of the last minutes show it: those that arrive get no fewer and
/// those that are free no more.
fn arrivals(overview: &Overview, problems: &mut Vec<Problem>) {
    let recent = overview.history.iter().filter(|minute| minute.at + ARRIVING_LOOKED_AT_S >= overview.now);
    let counted: Vec<_> = recent
        .filter_map(|minute| {
            let states = minute.states.as_ref()?;
            let count = |status: Status| states.get(status.as_str()).copied().unwrap_or(0);
            Some((minute.at, count(Status::Arriving), count(Status::Available)))
        })
        .collect();
    let lasts = counted.first().is_some_and(|(at, ..)| at + ARRIVING_S <= overview.now);
    let is_stuck = counted.iter().all(|(_, arriving, _)| *arriving > 0)
        && counted.windows(2).all(|two| two[0].1 <= two[1].1 && two[0].2 >= two[1].2);
    if overview.paused_since.is_none()
        && lasts
        && is_stuck
        && let Some((_, arriving, _)) = counted.last()
    {
        let text = format!(
            "{} arriving and none was offered for {} min: their gate does not answer, or refuses them.",
            some(*arriving, "sandbox"),
            ARRIVING_S / 60
        );
        problems.push(page("arrivals_stuck", text, "quarantine"));
    }
}

fn reservations(overview: &Overview, problems: &mut Vec<Problem>) {
    for risk in &overview.at_risk {
        let super::ReservationAtRisk { id, tenant, prefix, missing } = risk;
        let text = format!(
            "{} of the reservation {id} of {tenant} ({prefix}) will not be there in time.",
            some(*missing, "sandbox")
        );
        problems.push(page("reservation_at_risk", text, "reservations"));
    }
}

fn some(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ if what.ends_with('x') => format!("{count} {what}es"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
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
    fn the_worst_comes_first() {
        let mut overview = fine();
        overview.dead_letters.open = 1;
        overview.processes.workers = 0;
        let codes: Vec<_> = of(&overview).into_iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["no_worker", "dead_letters"]);
    }
}
