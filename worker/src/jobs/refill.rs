//! Refill job: asks for new sandboxes of each flavour that is short of them (ARCHITECTURE.md, "Refill").
//!
//! Order of effects of a round: read flow, census, tickets → **write tickets → call the hook → write the answers**. A worker
//! that dies in between leaves tickets that count, and that the next round sends again with the same id. Rounds follow each
//! other as fast as rate and hook allow, for some seconds or until another policy is applied; the next run goes on. The
//! decisions are the domain's ([`broker_domain::refill`]). What it does not do: insert what arrives; sync does, and takes
//! the tickets.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_domain::policy::{Flavour, Hook, Policy, Refill};
use broker_domain::refill::{
    Answers, AppliedList, Counted, Flow, Need, Plan, Round, Ticket, TicketAnswer, TicketEnd,
};
use broker_domain::{FlavourName, Job, JobReport, NamePrefix, TicketId, Timestamp};
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Candidate, StoreError, Write, reservations};
use serde_json::json;
use tokio::task::JoinSet;

use super::{JobError, Jobs, census, serve};

/// How long one run goes on with rounds.
const RUN: Duration = Duration::from_secs(20);
/// The pause of a round that found no token.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// What a round may take beyond its hook's time.
const MARGIN: Duration = Duration::from_secs(10);
/// The pause before a ticket is sent again after a failure; the breaker has pauses of its own.
const SENT_AGAIN: Duration = Duration::from_secs(30);
/// How often a need is told that no hook hears of.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The longest time between two runs that is counted: what was before it is not known.
const COUNTED_AT_MOST: Duration = Duration::from_secs(300);

/// Also those whose gate is asked later.
const EVER: Timestamp = Timestamp::from_secs(999_999_999_999);

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let Some(stored) = jobs.store.policy.get().await? else { return Ok(()) };
    let policy =
        stored.policy().map_err(|_| JobError::Refused("the policy is of a newer version".to_owned()))?;
    let since_last_run = since_last_run(jobs).await?;
    let mut running = JoinSet::new();
    for (name, flavour, refill) in refilled(&policy) {
        report.found += 1;
        let keeper = FlavourRefill {
            jobs: jobs.clone(),
            name: name.clone(),
            flavour: flavour.clone(),
            refill: refill.clone(),
            policy_version: stored.version,
            counted_after: stored.applied_at.plus(census::FOLLOWED),
            since_last_run,
        };
        running.spawn(async move { keeper.keep().await });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(made)) => {
                report.changed += made.tickets;
                report.detail("tickets", made.tickets);
                report.detail("calls", made.calls);
            }
            Ok(Err(error)) => {
                tracing::warn!("a flavour was not refilled: {error}");
                report.failed += 1;
            }
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
    Ok(())
}

/// How long ago the run before this one was, about: each process counts the time before its own runs.
async fn since_last_run(jobs: &Jobs) -> Result<Duration, StoreError> {
    if let Some(every) = jobs.settings.refill_every {
        return Ok(every);
    }
    let now = jobs.clock.now();
    let tick = jobs.store.schedule.tick(Job::Refill, Duration::ZERO, now).await?;
    Ok(counted_since(tick.ran_for, now))
}

/// The time since `last` as it is counted.
fn counted_since(last: Option<Timestamp>, now: Timestamp) -> Duration {
    last.map_or(Duration::ZERO, |last| now.since(last).min(COUNTED_AT_MOST))
}

/// The flavours that are refilled.
pub(crate) fn refilled(policy: &Policy) -> impl Iterator<Item = (&FlavourName, &Flavour, &Refill)> {
    policy.flavours().iter().filter_map(|(name, flavour)| Some((name, flavour, flavour.refill.as_ref()?)))
}

/// How many sandboxes with `prefix` are arriving: one call, as long as few are.
pub(super) async fn arriving(jobs: &Jobs, prefix: &NamePrefix) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = jobs.store.sandboxes.arriving(EVER, after, serve::TOGETHER).await?;
        let is_of_it = |arrival: &&Candidate| arrival.name.as_str().starts_with(prefix.as_str());
        count += page.items.iter().filter(is_of_it).count() as u64;
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

/// What a run made.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    tickets: u64,
    calls: u64,
}

/// What a round came to.
enum Went {
    /// Another one may find something to do at once.
    On(Made),
    /// Tokens are missing.
    Slow,
    /// There is nothing to do for now.
    Done,
}

/// One flavour in one run.
struct FlavourRefill {
    jobs: Jobs,
    name: FlavourName,
    flavour: Flavour,
    refill: Refill,
    /// The version of the policy that says so.
    policy_version: u64,
    counted_after: Timestamp,
    since_last_run: Duration,
}

impl FlavourRefill {
    async fn keep(&self) -> Result<Made, StoreError> {
        let (began, mut made, mut first) = (self.jobs.clock.instant(), Made::default(), true);
        loop {
            let went = self.round(first).await?;
            first = false;
            match went {
                Went::On(more) => {
                    made.tickets += more.tickets;
                    made.calls += more.calls;
                }
                Went::Slow => {
                    let slept = self.jobs.stop.run_until_cancelled(tokio::time::sleep(self.pause())).await;
                    if slept.is_none() {
                        return Ok(made);
                    }
                }
                Went::Done => return Ok(made),
            }
            let ran = self.jobs.clock.instant().duration_since(began);
            // What a newer policy says is for the next run.
            let is_superseded = self.jobs.policy.version() > self.policy_version;
            if self.jobs.stop.is_cancelled() || is_superseded || ran >= RUN {
                return Ok(made);
            }
        }
    }

    /// About as long as the next token takes.
    fn pause(&self) -> Duration {
        let (shortest, longest) = PAUSES;
        (Duration::from_secs(60) / self.refill.rate_per_minute.max(1)).clamp(shortest, longest)
    }

    async fn round(&self, first: bool) -> Result<Went, StoreError> {
        let (store, now) = (&self.jobs.store.refill, self.jobs.clock.now());
        let flow = store.flow(&self.name).await?;
        if flow.is_busy(now) {
            return Ok(Went::Done);
        }
        let counted = census::live(&self.jobs, &self.name, self.counted_after).await?;
        let Some((live, as_of)) = counted else { return Ok(Went::Done) };
        let tickets = store.tickets(&self.name).await?;
        let reserved = reservations::wanted(&self.jobs.store, &self.name, &self.flavour, now).await?;
        let min = u64::from(self.refill.min_at(now));
        let desired = min + reserved;
        // In this order: what is admitted in between is counted twice, and not missed.
        let arriving = arriving(&self.jobs, &self.flavour.prefix).await?;
        let available = store.available(&self.flavour.prefix, desired).await?;
        let counted = Counted { available, arriving, live, as_of };
        if first {
            self.count_below(available < min);
        }
        let listed = self.listed(&tickets, now).await?;
        let round =
            Round { refill: &self.refill, flow: &flow, tickets: &tickets, counted, reserved, listed, now };
        let hook_time = self.refill.hook.as_ref().map_or(Duration::ZERO, |hook| hook.timeout);
        let plan = round.plan(hook_time + MARGIN);
        self.show(&plan.need, &counted, &flow, &tickets);
        if plan.is_empty() {
            return self.nothing_to_write(&plan.need, &flow, now).await;
        }
        let mint = || Ticket::new(TicketId::from_uuid(self.jobs.entropy.uuid()), now);
        let new: Vec<Ticket> = (0..plan.new).map(|_| mint()).collect();
        if store.write_round(&self.name, &plan, &new).await? == Write::Rejected(()) {
            return Ok(Went::Done);
        }
        crash_points::point(Point::TicketsWritten);
        self.count("made", new.len() as u64);
        // Said again with each further one: an alarm that goes by the line goes on.
        if plan.flow.breaker.nothing_arrives() && !plan.overdue.is_empty() {
            tracing::error!(flavour = %self.name, "refill stopped: nothing arrives that its hook has had made");
        }
        for id in &plan.overdue {
            self.end(*id, TicketEnd::Overdue).await?;
        }
        let sent: Vec<TicketId> =
            plan.send.iter().copied().chain(new.iter().map(|ticket| ticket.id)).collect();
        let made = Made { tickets: new.len() as u64, calls: sent.len() as u64 };
        if let Some(hook) = &self.refill.hook
            && !sent.is_empty()
        {
            self.call(hook, &sent, &tickets, &plan).await?;
        }
        Ok(Went::On(made))
    }

    /// The last list that sync applied; it is read only if a ticket is late. Without a provider there are no lists, and its age alone
    /// ends a ticket.
    async fn listed(&self, tickets: &[Ticket], now: Timestamp) -> Result<Option<AppliedList>, StoreError> {
        if self.jobs.provider.is_none() {
            return Ok(Some(AppliedList { began: now, hidden: 0 }));
        }
        match tickets.iter().any(|ticket| ticket.is_late(now)) {
            true => self.jobs.store.schedule.listed().await,
            false => Ok(None),
        }
    }

    async fn nothing_to_write(&self, need: &Need, flow: &Flow, now: Timestamp) -> Result<Went, StoreError> {
        if need.missing == 0 || flow.rests(now).is_some() || flow.paused.is_some() {
            return Ok(Went::Done);
        }
        if self.refill.hook.is_some() {
            let waits = need.room > 0 && flow.breaker.unanswered == 0 && !flow.breaker.is_open();
            return Ok(if waits { Went::Slow } else { Went::Done });
        }
        // No hook is called: the log line and the metric tell. The pause is kept in the flow, so that one worker tells.
        let told = Flow { version: flow.version + 1, ..flow.clone() }.resting(TOLD_EVERY, now);
        if self.jobs.store.refill.write_flow(&self.name, &told).await? == Write::Applied {
            let (missing, desired) = (need.missing, need.desired);
            tracing::info!(flavour = %self.name, missing, desired, "refill needed");
        }
        Ok(Went::Done)
    }

    async fn call(
        &self,
        hook: &Hook,
        sent: &[TicketId],
        tickets: &[Ticket],
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let mut calls = JoinSet::new();
        for id in sent {
            let (hooks, hook, id) = (self.jobs.hooks.clone(), hook.clone(), *id);
            let now = self.jobs.clock.now();
            let made_at = tickets.iter().find(|ticket| ticket.id == id).map_or(now, |ticket| ticket.made_at);
            let event = self.event(id, made_at);
            calls.spawn(async move { (Ticket::new(id, made_at), hooks.call(&hook, &event).await) });
        }
        let (mut answers, mut flow, mut problem) = (Answers::default(), plan.flow.clone(), None);
        while let Some(ended) = calls.join_next().await {
            let (ticket, answer) = match ended {
                Ok(ended) => ended,
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            };
            let now = self.jobs.clock.now();
            let answer = heard(answer, &mut answers, &mut problem);
            if let TicketAnswer::Later(by) = answer {
                flow = flow.resting(by, now);
            }
            match ticket.answered(answer, SENT_AGAIN, now) {
                Ok(state) => {
                    self.jobs.store.refill.answered(&self.name, ticket.id, state).await?;
                }
                Err(end) => self.end(ticket.id, end).await?,
            }
        }
        crash_points::point(Point::HookAnswered);
        self.write_answers(flow, answers, &problem.unwrap_or_default()).await
    }

    /// Writes what came of the calls, unless another round began since: an operator may have written meanwhile.
    async fn write_answers(&self, mine: Flow, answers: Answers, problem: &str) -> Result<(), StoreError> {
        let mut stands = mine.clone();
        while stands.busy_until == mine.busy_until {
            let breaker = stands.breaker.end(answers);
            let rests_until = stands.rests_until.max(mine.rests_until);
            let version = stands.version + 1;
            let after = Flow { version, breaker, rests_until, busy_until: None, ..stands };
            if self.jobs.store.refill.write_flow(&self.name, &after).await? == Write::Applied {
                if let Some(again_at) = breaker.probe_at {
                    let again_at = again_at.as_secs();
                    tracing::error!(flavour = %self.name, again_at, problem, "refill stopped: the hook does not answer");
                }
                return Ok(());
            }
            stands = self.jobs.store.refill.flow(&self.name).await?;
        }
        Ok(())
    }

    fn event(&self, id: TicketId, made_at: Timestamp) -> HookEvent {
        let data = json!({
            "ticket": id, "flavour": self.name, "prefix": self.flavour.prefix.as_str(), "asked_at": made_at.as_secs(),
        });
        HookEvent { id: id.to_string(), kind: HookKind::RefillRequested, at: made_at, data }
    }

    async fn end(&self, id: TicketId, end: TicketEnd) -> Result<(), StoreError> {
        if self.jobs.store.refill.end_ticket(&self.name, id).await? == Write::Applied {
            self.count(end.as_str(), 1);
            tracing::info!(flavour = %self.name, ticket = %id, end = end.as_str(), "ticket ended");
        }
        Ok(())
    }

    fn count(&self, outcome: &'static str, count: u64) {
        let labels = [("flavour", self.name.to_string()), ("outcome", outcome.to_owned())];
        metrics::counter!("broker_refill_tickets_total", &labels).increment(count);
    }

    /// Counts how long less was available than the policy wants: at each run, the time between two.
    fn count_below(&self, is_below: bool) {
        let seconds = if is_below { self.since_last_run.as_secs() } else { 0 };
        let name = "broker_refill_below_min_seconds_total";
        metrics::counter!(name, "flavour" => self.name.to_string()).increment(seconds);
    }

    fn show(&self, need: &Need, counted: &Counted, flow: &Flow, tickets: &[Ticket]) {
        let open = tickets.iter().filter(|ticket| ticket.is_open()).count() as u64;
        let (stopped, paused) = (u64::from(flow.breaker.is_open()), u64::from(flow.paused.is_some()));
        let Need { desired, missing, .. } = *need;
        let Counted { available, arriving, .. } = *counted;
        show(self.name.as_str(), [desired, available, arriving, missing, open, stopped, paused]);
    }
}

/// The gauges of a flavour.
const GAUGES: [&str; 7] = [
    "broker_refill_desired",
    "broker_refill_available",
    "broker_refill_arriving",
    "broker_refill_missing",
    "broker_refill_tickets",
    "broker_refill_stopped",
    "broker_refill_paused",
];

fn show(flavour: &str, values: [u64; GAUGES.len()]) {
    for (name, value) in GAUGES.into_iter().zip(values) {
        let value = f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        metrics::gauge!(name, "flavour" => flavour.to_owned()).set(value);
    }
}

/// Shows whether refill of a flavour is stopped or paused: the last round may have been another process's. No round begins from a
/// flow that cannot be read.
pub(crate) fn show_flow(flavour: &FlavourName, flow: Option<&Flow>, now: Timestamp) {
    let is_stopped = flow.is_none_or(|flow| flow.is_stopped(now));
    let is_paused = flow.is_some_and(|flow| flow.paused.is_some());
    let standing = [("broker_refill_stopped", is_stopped), ("broker_refill_paused", is_paused)];
    for (name, holds) in standing {
        metrics::gauge!(name, "flavour" => flavour.to_string()).set(f64::from(u8::from(holds)));
    }
}

/// Resets the gauges of the flavours in `shown` that the policy no longer refills: no round follows their last one. Adds to `shown`
/// those that it refills.
pub(crate) fn show_ended(policy: &Policy, shown: &mut BTreeSet<String>) {
    let refilled: BTreeSet<_> = refilled(policy).map(|(name, ..)| name.to_string()).collect();
    shown.difference(&refilled).for_each(|flavour| show(flavour, [0; GAUGES.len()]));
    shown.extend(refilled);
}

/// What an answer says of a ticket, counted for the breaker.
fn heard(answer: HookAnswer, answers: &mut Answers, problem: &mut Option<String>) -> TicketAnswer {
    match answer {
        HookAnswer::Yes { .. } => {
            answers.answered += 1;
            TicketAnswer::Yes
        }
        // One may never come. A hook that says so of all is as good as none: a wrong secret, a wrong path.
        HookAnswer::No { status, reason } => {
            answers.failed += 1;
            *problem = Some(format!("{status}: {reason}"));
            TicketAnswer::No
        }
        HookAnswer::Later { again_after } => {
            answers.later += 1;
            TicketAnswer::Later(again_after)
        }
        HookAnswer::Failed { problem: why, .. } => {
            answers.failed += 1;
            *problem = Some(why);
            TicketAnswer::Failed
        }
        // Not called: it is no failure of the hook.
        HookAnswer::NotAsked { again_after, .. } => {
            answers.later += 1;
            TicketAnswer::Later(again_after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_runs_is_counted_and_an_outage_is_not() {
        let now = Timestamp::from_secs(10_000);
        assert_eq!(counted_since(None, now), Duration::ZERO);
        assert_eq!(counted_since(Some(Timestamp::from_secs(9_940)), now), Duration::from_secs(60));
        assert_eq!(counted_since(Some(Timestamp::from_secs(1_000)), now), COUNTED_AT_MOST);
    }
}
