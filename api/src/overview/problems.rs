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
const CENSUS_S: u64 = 1_800;
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
        // What it counted is the best that is known.
        problems.push(ticket("census_old", text, "frozen-figures"));
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
        let text = format!(
            "{which}{of} out of {live} in quarantine: one more would pass a fifth, so none goes there by itself."
        );
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
#[path = "problems_tests.rs"]
mod tests;
