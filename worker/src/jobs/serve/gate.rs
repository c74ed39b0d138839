//! The gate: the operator's side is asked before a sandbox is offered (`sandbox.check`).
//!
//! Order of effects of one question: **note that it is asked → call → admit, quarantine, or nothing**. The note moves the time of
//! the next attempt on and is conditional on the version, so one process asks at a time, and one that dies leaves the
//! sandbox to the next attempt, with the same `webhook-id`. A yes offers it, a no puts it into quarantine with the hook's
//! reason; without an answer it is asked again, and after the policy's `attempts` it goes into quarantine, too. Where too
//! much of a flavour is in quarantine already it stays arriving and is asked again later.
//!
//! Nothing is asked while the pool is closed: questions that are under way then are asked again later, as after a death.
//!
//! Each flavour is asked beside the others, by one task of a process: a slow gate holds no other flavour, and no job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_domain::policy::{Gate, Policy};
use broker_domain::{FlavourName, Quarantine, QuarantineCause, Status};
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind};
use broker_runtime::backoff::Backoff;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Candidate, GateQuestion, Seen, StoreError, Write};
use serde_json::json;
use tokio::task::JoinSet;

use crate::jobs::Jobs;

/// Questions of one flavour at the same time, of one process.
const AT_ONCE: usize = 8;
/// The pauses between attempts.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// The pause where too much of a flavour is in quarantine.
const WHILE_FULL: Duration = Duration::from_secs(300);

/// The flavours whose gates this process asks now. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<BTreeSet<FlavourName>>>);

impl Gates {
    /// Begins to ask the gate of a flavour, unless it is being asked.
    fn begin(&self, flavour: &FlavourName) -> Option<AskedGate> {
        let begins = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(flavour.clone());
        begins.then(|| AskedGate { gates: self.clone(), flavour: flavour.clone() })
    }
}

/// A flavour whose gate is asked until this is dropped, also by a panic.
#[derive(Debug)]
struct AskedGate {
    gates: Gates,
    flavour: FlavourName,
}

impl Drop for AskedGate {
    fn drop(&mut self) {
        self.gates.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.flavour);
    }
}

/// Those of `arrivals` that no gate guards. The gates of the others are asked from now on; those of a flavour that is being
/// asked already are left to the tick.
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
        let Some(begun) = jobs.gates.begin(&flavour) else { continue };
        let (jobs, policy) = (jobs.clone(), Arc::clone(policy));
        tokio::spawn(async move {
            let asked = Box::pin(ask_flavour(&jobs, &policy, &begun.flavour, arrivals));
            // What is asked when this process ends is asked again by another one.
            let _stopped = jobs.stop.run_until_cancelled(asked).await;
        });
    }
    open
}

async fn ask_flavour(jobs: &Jobs, policy: &Policy, flavour: &FlavourName, arrivals: Vec<Candidate>) {
    let Some(gate) = policy.flavours().get(flavour).and_then(|flavour| flavour.gate.as_ref()) else { return };
    let (mut running, mut waiting) = (JoinSet::new(), arrivals.into_iter());
    loop {
        while jobs.health.is_open()
            && running.len() < AT_ONCE
            && let Some(arrival) = waiting.next()
        {
            let keeper = FlavourGate { jobs: jobs.clone(), flavour: flavour.clone(), gate: gate.clone() };
            running.spawn(async move { keeper.ask(arrival).await });
        }
        let Some(ended) = running.join_next().await else { break };
        match ended {
            Ok(Ok(Heard::Yes(passed))) => drop(super::offer(jobs, vec![passed], super::By::Arrival).await),
            // A paused pool is not changed: the next look asks again.
            Ok(Ok(Heard::No(refused))) if !jobs.health.is_open() => {
                tracing::info!(sandbox = %refused.arrival.sandbox_id, "refused by its gate while the pool is closed");
            }
            // One at a time: what is in quarantine is counted before each.
            Ok(Ok(Heard::No(refused))) => {
                if let Err(error) = refuse(jobs, flavour, &refused).await {
                    tracing::warn!(sandbox = %refused.arrival.sandbox_id, "not quarantined, the next look tries again: {error}");
                }
            }
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

/// What a gate has said of a sandbox.
enum Heard {
    /// It may be offered.
    Yes(Candidate),
    /// It may not.
    No(GateRefusal),
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
                Ok(Heard::Nothing)
            }
        }
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
    use super::*;

    #[tokio::test]
    async fn a_gate_whose_task_panics_is_asked_again() {
        let (gates, flavour) = (Gates::default(), FlavourName::new("small").unwrap());
        let begun = gates.begin(&flavour).unwrap();
        assert!(gates.begin(&flavour).is_none(), "it is being asked");
        let asking = tokio::spawn(async move { panic!("while {} is asked", begun.flavour) });
        assert!(asking.await.is_err());
        assert!(gates.begin(&flavour).is_some());
    }
}
