//! The gate: the operator's side is asked before a sandbox is offered (`sandbox.check`).
//!
//! Order of effects of one question: **note that it is asked → call → admit, quarantine, or nothing**. The note moves the time of
//! the next attempt on and is conditional on the version, so one process asks at a time, and one that dies leaves the
//! sandbox to the next attempt, with the same `webhook-id`. A yes offers it, a no puts it into quarantine with the hook's
//! reason; without an answer it is asked again, and after the policy's `attempts` it goes into quarantine, too. Where too
//! much of a flavour is in quarantine already it stays arriving and is asked again later.
//!
//! Nothing is asked while the pool is closed: questions that are under way then are asked again later, as after a death. So are those
//! whose sandbox another policy gives another gate, or none, meanwhile.
//!
//! Each flavour is asked beside the others, by one task of a process: a slow gate holds no other flavour, and no job. What arrives
//! while it is asked joins the queue of that task. A gate that asks for time again and again, or is not asked because it fails, is
//! left alone until the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_domain::policy::{Gate, Policy};
use broker_domain::{FlavourName, Quarantine, QuarantineCause, SandboxId, SandboxName, Status};
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind};
use broker_runtime::backoff::Backoff;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, GateQuestion, Seen, StoreError, Write};
use serde_json::json;
use tokio::task::JoinSet;

use super::{By, TOGETHER};
use crate::jobs::Jobs;

/// Questions of one flavour at the same time, of one process.
const AT_ONCE: usize = 8;
/// Arrivals of one flavour that wait for their question, of one process, at most: the others are left to the tick.
const MOST_QUEUED: usize = 10_000;
/// The pauses between attempts.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// The pause where too much of a flavour is in quarantine.
const WHILE_FULL: Duration = Duration::from_secs(300);

/// The flavours whose gates this process asks now, each with its queue. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<BTreeMap<FlavourName, GateQueue>>>);

impl Gates {
    /// Queues `arrivals` of a flavour, and begins to ask its gate unless it is being asked.
    fn begin(&self, flavour: &FlavourName, arrivals: Vec<Candidate>) -> Option<AskedGate> {
        let mut gates = self.queues();
        let begins = !gates.contains_key(flavour);
        gates.entry(flavour.clone()).or_default().add(arrivals);
        begins.then(|| AskedGate { gates: self.clone(), flavour: flavour.clone() })
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<FlavourName, GateQueue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Arrivals of one flavour that wait for their question, each once.
#[derive(Debug, Default)]
struct GateQueue {
    arrivals: Vec<Candidate>,
    ids: BTreeSet<SandboxId>,
}

impl GateQueue {
    fn add(&mut self, arrivals: Vec<Candidate>) {
        for arrival in arrivals {
            if self.arrivals.len() < MOST_QUEUED && self.ids.insert(arrival.sandbox_id.clone()) {
                self.arrivals.push(arrival);
            }
        }
    }

    /// Takes one by chance: processes that listed the same arrivals ask about different ones.
    fn take(&mut self, entropy: &Entropy) -> Option<Candidate> {
        if self.arrivals.is_empty() {
            return None;
        }
        let arrival = self.arrivals.swap_remove(entropy.below(self.arrivals.len()));
        self.ids.remove(&arrival.sandbox_id);
        Some(arrival)
    }
}

/// A flavour whose gate is asked until this is dropped, also by a panic. What is queued then is left to the tick.
#[derive(Debug)]
struct AskedGate {
    gates: Gates,
    flavour: FlavourName,
}

impl AskedGate {
    /// The next arrival to be asked about.
    fn next(&self, entropy: &Entropy) -> Option<Candidate> {
        self.gates.queues().get_mut(&self.flavour)?.take(entropy)
    }
}

impl Drop for AskedGate {
    fn drop(&mut self) {
        self.gates.queues().remove(&self.flavour);
    }
}

/// Those of `arrivals` that no gate guards. The gates of the others are asked from now on.
pub(super) fn ask(jobs: &Jobs, policy: &Arc<Policy>, arrivals: Vec<Candidate>) -> Vec<Candidate> {
    let (mut open, mut guarded): (Vec<_>, BTreeMap<FlavourName, Vec<Candidate>>) =
        (Vec::new(), BTreeMap::new());
    for arrival in arrivals {
        match policy.flavour_of(&arrival.name).filter(|_| policy.gate_of(&arrival.name).is_some()) {
            Some(flavour) => guarded.entry(flavour.clone()).or_default().push(arrival),
            None => open.push(arrival),
        }
    }
    for (flavour, arrivals) in guarded {
        let Some(begun) = jobs.gates.begin(&flavour, arrivals) else { continue };
        let (jobs, policy) = (jobs.clone(), Arc::clone(policy));
        tokio::spawn(async move {
            let asked = Box::pin(ask_flavour(&jobs, &policy, &begun));
            // What is asked when this process ends is asked again by another one.
            let _stopped = jobs.stop.run_until_cancelled(asked).await;
        });
    }
    open
}

/// Asks about what is queued of a flavour until nothing is left, and offers what passes, together and beside the questions.
async fn ask_flavour(jobs: &Jobs, policy: &Policy, begun: &AskedGate) {
    let flavour = &begun.flavour;
    let (mut running, mut offering) = (JoinSet::new(), JoinSet::new());
    let (mut passed, mut later) = (Vec::new(), 0);
    loop {
        while later < AT_ONCE
            && jobs.health.is_open()
            && running.len() < AT_ONCE
            && let Some(arrival) = begun.next(&jobs.entropy)
        {
            // What another policy takes from this gate is the next look's.
            let stands = jobs.policy.now();
            let policy = stands.as_deref().unwrap_or(policy);
            let Some(gate) = gate_of(policy, flavour, &arrival.name).cloned() else { continue };
            let keeper = FlavourGate { jobs: jobs.clone(), flavour: flavour.clone(), gate };
            running.spawn(async move { keeper.ask(arrival).await });
        }
        if offering.is_empty() && !passed.is_empty() {
            let together = passed.drain(..passed.len().min(usize::from(TOGETHER))).collect();
            let jobs = jobs.clone();
            offering.spawn(async move { super::offer(&jobs, together, By::Arrival).await });
        }
        let ended = tokio::select! {
            Some(ended) = running.join_next() => ended,
            Some(offered) = offering.join_next() => {
                if let Err(ended) = offered {
                    tracing::error!(%flavour, "the offer of what its gate let through panicked: {ended}");
                }
                continue;
            }
            else => break,
        };
        match ended {
            Ok(Ok(Heard::Yes(arrival))) => {
                later = 0;
                passed.push(arrival);
            }
            // A paused pool is not changed: the next look asks again.
            Ok(Ok(Heard::No(refused))) if !jobs.health.is_open() => {
                tracing::info!(sandbox = %refused.arrival.sandbox_id, "refused by its gate while the pool is closed");
            }
            // One at a time: what is in quarantine is counted before each.
            Ok(Ok(Heard::No(refused))) => {
                later = 0;
                if let Err(error) = refuse(jobs, flavour, &refused).await {
                    tracing::warn!(sandbox = %refused.arrival.sandbox_id, "not quarantined, the next look tries again: {error}");
                }
            }
            Ok(Ok(Heard::Later)) => later += 1,
            Ok(Ok(Heard::Nothing)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%flavour, "a gate was not called, the next look tries again: {error}")
            }
            Err(ended) => tracing::error!(%flavour, "a gate panicked: {ended}"),
        }
    }
    if !jobs.health.is_open() {
        tracing::info!(%flavour, "its gate is not asked until the pool is open");
    }
}

/// The gate of a sandbox, if the policy says that it is of `flavour` and has one.
fn gate_of<'p>(policy: &'p Policy, flavour: &FlavourName, name: &SandboxName) -> Option<&'p Gate> {
    policy.gate_of(name).filter(|_| policy.flavour_of(name) == Some(flavour))
}

/// What a gate has said of a sandbox.
enum Heard {
    /// It may be offered.
    Yes(Candidate),
    /// It may not.
    No(GateRefusal),
    /// That it asks for time, or it is not to be asked now.
    Later,
    /// Nothing, or the sandbox is not as it was seen.
    Nothing,
}

/// A sandbox that its gate refuses, or did not answer for.
struct GateRefusal {
    arrival: Candidate,
    question: GateQuestion,
    reason: String,
}

/// One gate.
struct FlavourGate {
    jobs: Jobs,
    flavour: FlavourName,
    gate: Gate,
}

impl FlavourGate {
    async fn ask(&self, arrival: Candidate) -> Result<Heard, StoreError> {
        let (store, now) = (&self.jobs.store.sandboxes, self.jobs.clock.now());
        let Some(record) = store.record(&arrival.sandbox_id).await? else { return Ok(Heard::Nothing) };
        if record.sandbox.status != Status::Arriving || record.sandbox.version != arrival.version {
            return Ok(Heard::Nothing);
        }
        let before =
            record.gate.unwrap_or_else(|| GateQuestion { id: self.jobs.entropy.uuid(), attempts: 0 });
        let question = GateQuestion { attempts: before.attempts.saturating_add(1), ..before };
        let pause = AGAIN.jittered(before.attempts, &self.jobs.entropy);
        let again_at = now.plus(self.gate.hook.timeout + pause);
        if store.ask_gate(&arrival, question, again_at, now).await? == Write::Rejected(()) {
            return Ok(Heard::Nothing);
        }
        let arrival = Candidate { version: arrival.version + 1, ..arrival };
        crash_points::point(Point::GateNoted);
        let event = self.event(&arrival, question);
        let answer = tokio::select! {
            biased;
            () = self.jobs.health.closed() => {
                let again_after = Duration::ZERO;
                HookAnswer::NotAsked { again_after, why: "the pool is closed".to_owned() }
            }
            () = self.replaced(&arrival.name) => {
                let again_after = Duration::ZERO;
                HookAnswer::NotAsked { again_after, why: "another policy stands".to_owned() }
            }
            answer = self.jobs.hooks.ask(&self.gate.hook, &event) => answer,
        };
        crash_points::point(Point::GateAnswered);
        match answer {
            HookAnswer::Yes { .. } => Ok(Heard::Yes(arrival)),
            HookAnswer::No { reason, .. } => Ok(Heard::No(GateRefusal { arrival, question, reason })),
            HookAnswer::Failed { problem, .. } if question.attempts >= self.gate.attempts => {
                let reason = format!("no answer of its gate in {} attempts: {problem}", question.attempts);
                Ok(Heard::No(GateRefusal { arrival, question, reason }))
            }
            HookAnswer::Failed { problem, .. } => {
                let flavour = &self.flavour;
                tracing::warn!(sandbox = %arrival.sandbox_id, %flavour, problem, "its gate failed");
                Ok(Heard::Nothing)
            }
            // It was heard and asks for time, or was not asked at all: no attempt is spent.
            HookAnswer::Later { again_after } | HookAnswer::NotAsked { again_after, .. } => {
                let now = self.jobs.clock.now();
                store.ask_gate(&arrival, before, now.plus(again_after), now).await?;
                Ok(Heard::Later)
            }
        }
    }

    /// Until the policy gives a sandbox another gate than this one, or none.
    async fn replaced(&self, name: &SandboxName) {
        let is_another = |policy: &Policy| gate_of(policy, &self.flavour, name) != Some(&self.gate);
        self.jobs.policy.until(is_another).await;
    }

    fn event(&self, arrival: &Candidate, question: GateQuestion) -> HookEvent {
        HookEvent {
            id: question.id.to_string(),
            kind: HookKind::Check,
            at: self.jobs.clock.now(),
            data: json!({
                "sandbox_id": arrival.sandbox_id, "name": arrival.name, "external_id": arrival.external_id,
                "flavour": self.flavour, "attempt": question.attempts,
            }),
        }
    }
}

/// Puts a sandbox into quarantine, unless too much of its flavour is there.
async fn refuse(jobs: &Jobs, flavour: &FlavourName, refused: &GateRefusal) -> Result<(), StoreError> {
    let GateRefusal { arrival, question, reason } = refused;
    let (sandbox, now) = (&arrival.sandbox_id, jobs.clock.now());
    let quarantine = Quarantine::by_broker(QuarantineCause::Gate, reason, now.floor_to_second());
    let seen = Seen { id: sandbox, version: arrival.version };
    match jobs.quarantine(flavour, seen, Status::Arriving, &quarantine).await? {
        Some(Write::Applied) => {
            tracing::warn!(%sandbox, %flavour, reason = quarantine.reason, "quarantined: its gate refused it");
        }
        Some(Write::Rejected(())) => {}
        None => {
            tracing::error!(
                %sandbox,
                %flavour,
                reason,
                "refused by its gate; it stays arriving, because too much of its flavour is in quarantine"
            );
            let asked = GateQuestion { attempts: 0, ..*question };
            jobs.store.sandboxes.ask_gate(arrival, asked, now.plus(WHILE_FULL), now).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::iter;

    use broker_domain::ExternalId;

    use super::*;

    fn arrivals(numbers: std::ops::Range<usize>) -> Vec<Candidate> {
        let arrival = |n: usize| Candidate {
            sandbox_id: SandboxId::new(format!("seed-{n}")).unwrap(),
            name: SandboxName::new(format!("sandbox-{n}")).unwrap(),
            external_id: ExternalId::new(format!("account-{n}")).unwrap(),
            attributes: None,
            version: 1,
        };
        numbers.map(arrival).collect()
    }

    #[tokio::test]
    async fn a_gate_whose_task_panics_is_asked_again() {
        let (gates, flavour) = (Gates::default(), FlavourName::new("small").unwrap());
        let begun = gates.begin(&flavour, Vec::new()).unwrap();
        assert!(gates.begin(&flavour, Vec::new()).is_none(), "it is being asked");
        let asking = tokio::spawn(async move { panic!("while {} is asked", begun.flavour) });
        assert!(asking.await.is_err());
        assert!(gates.begin(&flavour, Vec::new()).is_some());
    }

    #[test]
    fn what_arrives_while_a_gate_is_asked_is_asked_about_too_and_each_once() {
        let (gates, entropy) = (Gates::default(), Entropy::seeded(1));
        let flavour = FlavourName::new("small").unwrap();
        let begun = gates.begin(&flavour, arrivals(0..100)).unwrap();
        assert!(gates.begin(&flavour, arrivals(50..150)).is_none());
        let mut asked: Vec<_> = iter::from_fn(|| begun.next(&entropy)).collect();
        asked.sort_by_key(|arrival| arrival.sandbox_id.clone());
        asked.dedup();
        assert_eq!(asked.len(), 150);
        assert!(gates.begin(&flavour, arrivals(0..MOST_QUEUED + 1)).is_none());
        assert_eq!(iter::from_fn(|| begun.next(&entropy)).count(), MOST_QUEUED);
    }
}
