//! Overview of the broker for operators: what is there, the last hour, and what is wrong right now. The same for
//! `GET /v1/admin/overview`, the console and `broker overview`.
//!
//! Invariant: it costs the same whatever the size of the pool: seven reads of the table (census, ticks, pool, processes, the
//! sixty items of the hour, how refill stands of all flavours, the reservations) and one look at the requests queue; where
//! reserved sandboxes are not there yet, also what is free and asked for of their flavours. Figures of the census say of when
//! they are; whether a worker calls the provider is its last heartbeat's, and what a job could not do its last run's.

pub mod problems;

use std::collections::BTreeMap;

use broker_domain::policy::Policy;
use broker_domain::{Job, NamePrefix, Reservation, ReservationId, Status, TenantName, Timestamp};
use broker_queue::topology::Depth;
use broker_runtime::config::Scheduler;
use broker_store::history::{self, Minute};
use broker_store::{
    Census, HookAway, Instance, RefillHeld, Role, Store, StoreError, Tick, heartbeat, reservations,
};
use schemars::JsonSchema;
use serde::Serialize;

use problems::Problem;

/// The overview.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Overview {
    /// The time of the overview, in seconds since the epoch.
    pub now: u64,
    /// What is wrong right now, the worst first.
    pub problems: Vec<Problem>,
    /// The pool, as the last census counted it; null before the first.
    pub pool: Option<Pool>,
    /// The queue of requests; null while it does not answer.
    pub requests: Option<Requests>,
    /// The processes that live.
    pub processes: Processes,
    /// Dead letters that are not done with, as the last census counted them.
    pub dead_letters: Letters,
    /// Since when the pool is paused, in seconds since the epoch; null if it is not.
    pub paused_since: Option<u64>,
    /// The schedule.
    pub jobs: Vec<ScheduledJob>,
    /// The workers that do not call the provider, because it does not answer them; null if there is none.
    pub provider_away: Option<ProviderTrouble>,
    /// The hooks that workers do not ask, because they do not answer them.
    pub hooks_away: Vec<HookTrouble>,
    /// Flavours of which no new sandboxes are asked for.
    pub refill_held: Vec<HeldRefill>,
    /// Reservations whose sandboxes will not all be there when they are needed; told among the problems.
    #[serde(skip)]
    pub at_risk: Vec<ReservationAtRisk>,
    /// The last hour, the oldest first; minutes in which nothing was counted may be missing.
    pub history: Vec<HistoryMinute>,
    /// Whose token asked; absent in the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

/// Who asked.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Caller {
    /// The name of the token.
    pub name: String,
    /// Whether it may only read.
    pub read_only: bool,
}

/// The number of sandboxes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Pool {
    /// By state, every state included.
    pub states: BTreeMap<&'static str, u64>,
    /// By flavour of the policy and state; `any` has what is of no flavour. Empty without a policy.
    pub flavours: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// When they were counted, in seconds since the epoch.
    pub as_of: u64,
}

/// The queue of requests.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Requests {
    /// Requests that wait.
    pub visible: u64,
    /// Requests that workers have in hand.
    pub in_flight: u64,
    /// The age of the oldest request that a worker received in its last heartbeats, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Requests that wait or that workers have in hand, for each running worker; null without one.
    pub backlog_per_worker: Option<u64>,
}

/// Processes that live.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Processes {
    /// APIs.
    pub apis: u64,
    /// Workers.
    pub workers: u64,
}

/// Open dead letters.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Letters {
    /// How many.
    pub open: u64,
    /// How many of each reason.
    pub by_reason: BTreeMap<String, u64>,
    /// When the oldest was first sent, in seconds since the epoch.
    pub oldest_at: Option<u64>,
}

/// A job and its schedule.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ScheduledJob {
    /// The job.
    #[schemars(schema_with = "job_name")]
    pub job: &'static str,
    /// When it is due, in seconds since the epoch; null if no worker has scheduled it yet, or a scheduler outside does.
    pub next_run_at: Option<u64>,
    /// Since when it is paused, in seconds since the epoch; null if it is not.
    pub paused_at: Option<u64>,
    /// Who paused it; null if it is not paused, or an earlier version stored it without.
    pub paused_by: Option<String>,
    /// What was wrong with its last run: why it ended early, or left undone what it found; null if nothing was.
    pub trouble: Option<String>,
    /// When that run ended, in seconds since the epoch.
    pub trouble_at: Option<u64>,
}

impl ScheduledJob {
    /// A job with its tick, if it has one.
    pub fn new(job: Job, tick: Option<&Tick>, scheduler: Scheduler) -> Self {
        // A scheduler outside moves no tick, and what is arriving is looked for without one.
        let due = tick.filter(|_| scheduler == Scheduler::Workers && job.is_sent());
        let pause = tick.and_then(|tick| tick.paused.as_ref());
        let trouble = tick.and_then(|tick| tick.trouble.as_ref());
        Self {
            job: job.as_str(),
            next_run_at: due.map(|tick| tick.next_run_at.as_secs()),
            paused_at: pause.map(|pause| pause.since.as_secs()),
            paused_by: pause.and_then(|pause| pause.by.clone()),
            trouble: trouble.map(|trouble| trouble.why.clone()),
            trouble_at: trouble.map(|trouble| trouble.at.as_secs()),
        }
    }
}

/// Workers that do not call the provider.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProviderTrouble {
    /// How many.
    pub workers: u64,
    /// Since when the first of them, in seconds since the epoch.
    pub since: u64,
    /// The last failure of the first of them.
    pub why: String,
}

/// A hook that workers do not ask.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HookTrouble {
    /// Which, as the policy calls it: `gate` or `before_delete`.
    pub hook: String,
    /// How many workers.
    pub workers: u64,
    /// Since when the first of them, in seconds since the epoch.
    pub since: u64,
    /// The last failure of the first of them.
    pub why: String,
}

/// A flavour of which no new sandboxes are asked for.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeldRefill {
    /// The flavour.
    pub flavour: String,
    /// Since when it is paused, in seconds since the epoch; null if its hook does not answer.
    pub paused_at: Option<u64>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// When a hook that does not answer is called next, in seconds since the epoch.
    pub next_try_at: Option<u64>,
}

impl From<&RefillHeld> for HeldRefill {
    fn from(held: &RefillHeld) -> Self {
        let RefillHeld { flavour, paused, next_try_at } = held;
        Self {
            flavour: flavour.to_string(),
            paused_at: paused.as_ref().map(|pause| pause.since.as_secs()),
            paused_by: paused.as_ref().and_then(|pause| pause.by.clone()),
            next_try_at: next_try_at.map(Timestamp::as_secs),
        }
    }
}

/// A reservation whose sandboxes will not all be there within half an hour, or now, when they are needed.
#[derive(Clone, Debug)]
pub struct ReservationAtRisk {
    /// Its id.
    pub id: ReservationId,
    /// Whose it is.
    pub tenant: TenantName,
    /// The prefix of the sandboxes.
    pub prefix: NamePrefix,
    /// How many will be missing.
    pub missing: u64,
}

impl ReservationAtRisk {
    async fn all(store: &Store, policy: &Policy, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let all = store.reservations.all().await?;
        let risks = reservations::outlook(store, policy, &all, now).await?;
        let at_risk = all.into_iter().filter_map(|Reservation { id, terms, .. }| {
            let missing = *risks.get(&id)?;
            Some(Self { id, tenant: terms.tenant, prefix: terms.prefix, missing })
        });
        Ok(at_risk.collect())
    }
}

/// A minute of the last hour.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HistoryMinute {
    /// When it began, in seconds since the epoch.
    pub at: u64,
    /// Sandboxes by state; null if no census ended in this minute, as are all figures of it.
    pub states: Option<BTreeMap<&'static str, u64>>,
    /// Open dead letters.
    pub dead_letters: Option<u64>,
    /// Requests that waited.
    pub visible: Option<u64>,
    /// Requests that workers had in hand.
    pub in_flight: Option<u64>,
    /// The age of the oldest received request, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Running workers.
    pub workers: Option<u64>,
    /// Allocate calls that got a new sandbox.
    pub created: u64,
    /// Allocate calls that got the sandbox that their key had.
    pub existing: u64,
    /// Allocate calls that got none, because none was free.
    pub refused: u64,
    /// Allocate calls that failed by no mistake of the client.
    pub failed: u64,
    /// The latency that half of the calls with a sandbox did not pass, in milliseconds, rounded up to its class.
    pub p50_ms: Option<u64>,
    /// The same of 99 %.
    pub p99_ms: Option<u64>,
}

impl From<&Minute> for HistoryMinute {
    fn from(minute: &Minute) -> Self {
        let Minute { at, counted, served } = minute;
        let counted = counted.as_ref();
        Self {
            at: at.as_secs(),
            states: counted.map(|counted| states(&counted.by_status)),
            dead_letters: counted.map(|counted| counted.letters),
            visible: counted.map(|counted| counted.visible),
            in_flight: counted.map(|counted| counted.in_flight),
            oldest_age_ms: counted.and_then(|counted| counted.oldest_ms),
            workers: counted.map(|counted| counted.workers),
            created: served.created,
            existing: served.existing,
            refused: served.refused,
            failed: served.failed,
            p50_ms: served.percentile_ms(50),
            p99_ms: served.percentile_ms(99),
        }
    }
}

/// What was read for an overview.
#[derive(Clone, Debug)]
pub struct OverviewFacts {
    /// When.
    pub now: Timestamp,
    /// The last census.
    pub census: Option<Census>,
    /// The jobs with their ticks.
    pub ticks: Vec<(Job, Option<Tick>)>,
    /// Since when the pool is closed.
    pub closed_since: Option<Timestamp>,
    /// Every process.
    pub instances: Vec<Instance>,
    /// The last hour.
    pub history: Vec<Minute>,
    /// Who starts the jobs.
    pub scheduler: Scheduler,
    /// The requests queue, if it answered.
    pub requests: Option<Depth>,
    /// Whether the policy refills a flavour.
    pub refills: bool,
    /// Flavours of which no new sandboxes are asked for.
    pub refill_held: Vec<RefillHeld>,
    /// Reservations whose sandboxes will not all be there.
    pub at_risk: Vec<ReservationAtRisk>,
}

/// What was read; nothing of what cannot be read, which keeps no other part from being shown.
fn without_unreadable<T: Default>(read: Result<T, StoreError>) -> Result<T, StoreError> {
    match read {
        Err(error @ StoreError::Malformed { .. }) => {
            tracing::error!("not shown: {error}");
            Ok(T::default())
        }
        read => read,
    }
}

impl OverviewFacts {
    /// Reads it; `requests` is the depth of the requests queue, if it is known. Of the policy the flavours are looked at that it
    /// refills.
    pub async fn read(
        store: &Store,
        policy: &Policy,
        scheduler: Scheduler,
        requests: Option<Depth>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (census, ticks, closed_since, instances, history, refill_held, at_risk) = tokio::try_join!(
            async { without_unreadable(store.census.get().await) },
            store.schedule.look(),
            store.pool.closed_since(),
            store.instances.list(),
            store.history.since(now.minus(history::SHOWN)),
            RefillHeld::all(store, policy, now),
            async { without_unreadable(ReservationAtRisk::all(store, policy, now).await) },
        )?;
        let refills = policy.flavours().values().any(|flavour| flavour.refill.is_some());
        Ok(Self {
            now,
            census,
            ticks,
            closed_since,
            instances,
            history,
            scheduler,
            requests,
            refills,
            refill_held,
            at_risk,
        })
    }

    /// The processes of a role that live.
    fn living(&self, role: Role) -> impl Iterator<Item = &Instance> {
        let lives =
            move |instance: &&Instance| instance.role == role && !heartbeat::is_gone(instance, self.now);
        self.instances.iter().filter(lives)
    }

    /// The workers that do not call the provider.
    fn provider_away(&self) -> Option<ProviderTrouble> {
        let away: Vec<_> =
            self.living(Role::Worker).filter_map(|worker| worker.provider_away.as_ref()).collect();
        let first = away.iter().min_by_key(|away| away.since)?;
        Some(ProviderTrouble {
            workers: u64::try_from(away.len()).unwrap_or(u64::MAX),
            since: first.since.as_secs(),
            why: first.why.clone(),
        })
    }

    /// The hooks that workers do not ask.
    fn hooks_away(&self) -> Vec<HookTrouble> {
        let mut troubles: BTreeMap<&str, HookTrouble> = BTreeMap::new();
        for away in self.living(Role::Worker).flat_map(|worker| &worker.hooks_away) {
            let HookAway { hook, since, why } = away;
            let first = HookTrouble { hook: hook.clone(), workers: 0, since: u64::MAX, why: String::new() };
            let trouble = troubles.entry(hook).or_insert(first);
            trouble.workers += 1;
            if since.as_secs() < trouble.since {
                (trouble.since, trouble.why) = (since.as_secs(), why.clone());
            }
        }
        troubles.into_values().collect()
    }

    /// The overview of it.
    pub fn overview(&self) -> Overview {
        let count = |role| u64::try_from(self.living(role).count()).unwrap_or(u64::MAX);
        let processes = Processes { apis: count(Role::Api), workers: count(Role::Worker) };
        let oldest = self.living(Role::Worker).filter_map(|worker| worker.received.requests).max();
        let requests = self.requests.as_ref().map(|depth| Requests {
            visible: depth.visible,
            in_flight: depth.in_flight,
            oldest_age_ms: oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            backlog_per_worker: depth.backlog().per_worker(processes.workers),
        });
        let secs = |at: Option<Timestamp>| at.map(Timestamp::as_secs);
        let jobs = self.ticks.iter().map(|(job, tick)| {
            let mut scheduled = ScheduledJob::new(*job, tick.as_ref(), self.scheduler);
            // Its tick stands still while no flavour is refilled.
            scheduled.next_run_at.take_if(|_| *job == Job::Refill && !self.refills);
            scheduled
        });
        let mut overview = Overview {
            now: self.now.as_secs(),
            problems: Vec::new(),
            pool: self.census.as_ref().map(pool),
            requests,
            processes,
            dead_letters: self.census.as_ref().map_or_else(Letters::default, letters),
            paused_since: secs(self.closed_since),
            jobs: jobs.collect(),
            provider_away: self.provider_away(),
            hooks_away: self.hooks_away(),
            refill_held: self.refill_held.iter().map(HeldRefill::from).collect(),
            at_risk: self.at_risk.clone(),
            history: self.history.iter().map(HistoryMinute::from).collect(),
            caller: None,
        };
        overview.problems = problems::of(&overview);
        overview
    }
}

fn pool(census: &Census) -> Pool {
    let flavours = census.by_flavour.iter();
    Pool {
        states: states(&census.by_status),
        flavours: flavours.map(|(flavour, counts)| (flavour.clone(), states(counts))).collect(),
        as_of: census.as_of.as_secs(),
    }
}

fn letters(census: &Census) -> Letters {
    Letters {
        open: census.letters.by_reason.values().sum(),
        by_reason: census.letters.by_reason.clone(),
        oldest_at: census.letters.oldest.map(Timestamp::as_secs),
    }
}

fn states(by_status: &BTreeMap<Status, u64>) -> BTreeMap<&'static str, u64> {
    let count = |status: &Status| by_status.get(status).copied().unwrap_or(0);
    Status::ALL.iter().map(|status| (status.as_str(), count(status))).collect()
}

fn job_name(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": Job::ALL.map(Job::as_str) })
}
