//! `broker pool reconcile`: brings a restored table up to date with what was handed out since.
//!
//! It reads JSON lines, one for each sandbox that the logs of the API, or the platform, know to have been handed out:
//! `{"sandbox_id", "track", "idempotency_key", "track_name", "expires_at", "returned"}`, all but the first optional. A
//! sandbox that is available in the table and handed out in a line is leased to its track, or, if it was returned or its
//! track is unknown, becomes pending deletion. A sandbox that the provider does not list becomes stale; one that only the
//! provider lists and a line names is inserted first. Each step is the claim or the end of any request, with its
//! conditions.
//!
//! Invariants: nothing is written without `--apply`, nor to a pool that is open; repeating it is safe; a copy is open
//! only after a run that left nothing. Sandboxes that no line names are not guessed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use broker_domain::{
    AllocateRequest, EndReason, Fingerprint, IdempotencyKey, LabDuration, LeaseEnd, LeaseKey, Sandbox,
    SandboxId, Status, Times, Timestamp, TrackId, TrackName,
};
use broker_provider::{AccountId, Listed, Provider};
use broker_store::accounts::record_all;
use broker_store::{
    Candidate, Changed, Claim, ClaimOutcome, EndOutcome, Entered, Inserted, NewSandbox, PoolStatus, Seen,
    Unused,
};
use serde::{Deserialize, Serialize};

use crate::args;
use crate::context::Context;
use crate::done::Done;
use crate::output;
use broker_store::scan_all::scan;

/// The track of sandboxes with an unknown owner, until they are given up a moment later.
const NOBODY: &str = "reconciled";

/// One line of what was handed out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandedOut {
    sandbox_id: SandboxId,
    track: Option<TrackId>,
    idempotency_key: Option<IdempotencyKey>,
    track_name: Option<TrackName>,
    /// Seconds since the epoch.
    expires_at: Option<u64>,
    #[serde(default)]
    returned: bool,
}

/// What a line makes of its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// The table says the same.
    AsItIs,
    /// Its track gets its lease.
    Lease,
    /// It was used, and must be deleted.
    GiveUp,
    /// Its lease has ended since.
    End,
    /// The table names another owner: an operator must decide.
    Conflict,
    /// Neither table nor provider has it.
    Unknown,
}

#[derive(Default, Serialize)]
struct Report {
    dry_run: bool,
    lines: usize,
    steps: BTreeMap<Step, u64>,
    /// Available ones that the provider does not list.
    missing: u64,
    conflicts: Vec<String>,
    /// Steps that another run has to take.
    left: u64,
}

pub(crate) async fn run(context: Context, args: args::Reconcile) -> anyhow::Result<Done> {
    let standing = context.store.pool_status().await?;
    if args.apply && standing == PoolStatus::Open {
        bail!("the pool is open: `broker pool pause` first, and wait until the workers have heard of it");
    }
    let lines = read(&args.handed_out)?;
    if args.apply {
        // A restored table may hold a sandbox without its account's record, or the record alone.
        record_all(&context.store, &context.entropy, context.clock.now()).await?;
    }
    let listed = match &context.config.provider {
        Some(provider) => Some(Provider::new(provider, context.clock.clone())?.accounts().await?),
        None => None,
    };
    let mut pool = HashMap::new();
    scan(&context.store, |page| {
        pool.extend(page.sandboxes.into_iter().map(|sandbox| (sandbox.id.clone(), sandbox)));
        true
    })
    .await?;
    if listed.as_ref().is_some_and(|listed| listed.is_empty()) && !pool.is_empty() {
        bail!("the provider lists nothing: look at it first");
    }
    let mut report = Report { dry_run: !args.apply, lines: lines.len(), ..Report::default() };
    let named: HashSet<&SandboxId> = lines.iter().map(|line| &line.sandbox_id).collect();
    for line in &lines {
        let step = decide(line, pool.get(&line.sandbox_id), listed.as_ref());
        *report.steps.entry(step).or_default() += 1;
        if step == Step::Conflict {
            report.conflicts.push(line.sandbox_id.to_string());
        }
        if args.apply && !take(&context, line, step, pool.get(&line.sandbox_id), listed.as_ref()).await? {
            report.left += 1;
        }
    }
    for sandbox in pool.values().filter(|sandbox| !named.contains(&sandbox.id)) {
        let gone = listed.as_ref().is_some_and(|listed| {
            listed.doubt().is_none() && !listed.names(&sandbox.id, &sandbox.external_id)
        });
        if gone && sandbox.status == Status::Available {
            report.missing += 1;
            let seen = Seen { id: &sandbox.id, version: sandbox.version };
            if args.apply && context.store.missing(seen, context.now().await?).await? == Changed::MovedOn {
                report.left += 1;
            }
        }
    }
    if args.output.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    conclude(&context, &report, standing).await
}

fn read(path: &str) -> anyhow::Result<Vec<HandedOut>> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(number, line)| {
        serde_json::from_str(line).with_context(|| format!("line {} is none of ours", number + 1))
    });
    read.collect()
}

fn decide(line: &HandedOut, sandbox: Option<&Sandbox>, listed: Option<&Listed>) -> Step {
    let fresh = match &line.track {
        Some(_) if !line.returned => Step::Lease,
        Some(_) | None => Step::GiveUp,
    };
    let Some(sandbox) = sandbox else {
        let is_listed = listed.is_some_and(|listed| listed.accounts.contains_key(&line.sandbox_id));
        return if is_listed { fresh } else { Step::Unknown };
    };
    match (sandbox.status, sandbox.owner()) {
        (Status::Available | Status::Stale, _) => fresh,
        (Status::Allocated, Some((track, _))) => match &line.track {
            Some(named) if named != track => Step::Conflict,
            Some(_) if line.returned => Step::End,
            Some(_) | None => Step::AsItIs,
        },
        (
            Status::Allocated | Status::PendingDeletion | Status::DeletionFailed | Status::Deleted,
            None | Some(_),
        ) => Step::AsItIs,
    }
}

/// Takes a step; `false` if it is left to another run.
async fn take(
    context: &Context,
    line: &HandedOut,
    step: Step,
    sandbox: Option<&Sandbox>,
    listed: Option<&Listed>,
) -> anyhow::Result<bool> {
    match step {
        Step::AsItIs | Step::Conflict | Step::Unknown => Ok(true),
        Step::End => match &line.track {
            Some(track) => end(context, &line.sandbox_id, track).await,
            None => Ok(true),
        },
        Step::Lease | Step::GiveUp => {
            let Some(free) = make_available(context, line, sandbox, listed).await? else { return Ok(false) };
            let key = line.track.as_ref().filter(|_| step == Step::Lease).map(|track| LeaseKey {
                key: line.idempotency_key.clone().unwrap_or_else(|| IdempotencyKey::from(track)),
                track: track.clone(),
            });
            if let Some(key) = key
                && claim(context, line, key, &free).await?
            {
                return Ok(true);
            }
            // Its key holds another one by now, or it must be deleted.
            let nobody = LeaseKey {
                track: TrackId::new(NOBODY)?,
                key: IdempotencyKey::new(line.sandbox_id.as_str())?,
            };
            let owner = nobody.track.clone();
            Ok(claim(context, line, nobody, &free).await? && end(context, &line.sandbox_id, &owner).await?)
        }
    }
}

/// The sandbox at the version at which it can be claimed: no worker does, the pool is closed.
async fn make_available(
    context: &Context,
    line: &HandedOut,
    sandbox: Option<&Sandbox>,
    listed: Option<&Listed>,
) -> anyhow::Result<Option<Candidate>> {
    let now = context.now().await?;
    let listed = listed.and_then(|listed| listed.accounts.get(&line.sandbox_id));
    let known = sandbox.map(|sandbox| (sandbox.name.clone(), sandbox.external_id.clone()));
    let listed = listed.filter(|account| AccountId::of(&account.external_id).is_some());
    let known = known.or_else(|| listed.map(|account| (account.name.clone(), account.external_id.clone())));
    let Some((name, external_id)) = known else { return Ok(None) };
    let new = NewSandbox { id: line.sandbox_id.clone(), name, external_id };
    let version = match sandbox {
        None => match context.store.insert(&new, now).await? {
            Inserted::New(version) => version,
            Inserted::Stands(_) | Inserted::AccountTaken { .. } => return Ok(None),
        },
        Some(sandbox) if sandbox.status == Status::Stale => {
            let Sandbox { status, version, external_id, .. } = sandbox;
            let from = Unused { status: *status, version: *version, external_id };
            match context.store.found(from, &new, now).await? {
                Entered::Done => sandbox.version + 1,
                Entered::MovedOn | Entered::AccountTaken { .. } => return Ok(None),
            }
        }
        Some(sandbox) => sandbox.version,
    };
    let NewSandbox { id: sandbox_id, name, external_id } = new;
    Ok(Some(Candidate { sandbox_id, name, external_id, version }))
}

/// Whether `key` got the sandbox.
async fn claim(context: &Context, line: &HandedOut, key: LeaseKey, free: &Candidate) -> anyhow::Result<bool> {
    let now = context.now().await?;
    let ask = AllocateRequest {
        request_id: context.entropy.request_id(now),
        lease_key: key,
        key_is_explicit: false,
        fingerprint: Fingerprint::unknown(),
        track_name: line.track_name.clone(),
        prefix: None,
        lab_duration: time_left(line, now).unwrap_or(context.config.lab_duration),
        asynchronous: false,
        times: Times { enqueued_at: now, reply_by: now, deadline: now },
    };
    let claim = Claim { request: &ask, candidate: free, allocation_id: context.entropy.allocation_id(), now };
    Ok(match context.store.claim(&claim).await? {
        ClaimOutcome::Created(_) => true,
        ClaimOutcome::LeaseStands(_) | ClaimOutcome::RequestEnded | ClaimOutcome::LostCandidate => false,
    })
}

/// What is left of a lease, in whole hours.
fn time_left(line: &HandedOut, now: Timestamp) -> Option<LabDuration> {
    let left = Timestamp::from_secs(line.expires_at?).since(now) + Duration::from_secs(3_599);
    Some(LabDuration::nearest(left.as_secs() / 3_600))
}

/// Ends what `owner` holds the sandbox by; `false` if it is not theirs any more.
async fn end(context: &Context, id: &SandboxId, owner: &TrackId) -> anyhow::Result<bool> {
    let sandbox = context.store.sandbox(id).await?;
    let allocation = sandbox.and_then(|sandbox| sandbox.allocation);
    let Some(allocation) = allocation.filter(|a| a.lease_key.track == *owner) else { return Ok(false) };
    let end = LeaseEnd::by_broker(EndReason::Released, context.now().await?);
    Ok(context.store.end(id, &allocation, &end).await? == EndOutcome::Ended)
}

/// Opens a copy that is reconciled; what is left to do is no success.
async fn conclude(context: &Context, report: &Report, standing: PoolStatus) -> anyhow::Result<Done> {
    if !report.conflicts.is_empty() {
        bail!(
            "{} sandboxes are somebody else's in the table: mend the lines or the rows",
            report.conflicts.len()
        );
    }
    if report.left > 0 {
        bail!("{} sandboxes changed meanwhile: run it again", report.left);
    }
    match standing {
        PoolStatus::RestoredCopy { of } if !report.dry_run => {
            if context.store.bind_copy(&of).await? == Changed::MovedOn {
                bail!("somebody else reconciled the table at the same moment");
            }
            Ok(Done::Ok)
        }
        PoolStatus::RestoredCopy { .. } | PoolStatus::Paused { .. } | PoolStatus::Open => Ok(Done::Ok),
    }
}

fn print(report: &Report) -> std::io::Result<()> {
    let steps = report.steps.iter().map(|(step, count)| {
        let what = match step {
            Step::AsItIs => "as the table says",
            Step::Lease => "leased to their track",
            Step::GiveUp => "used, to be deleted",
            Step::End => "lease ended since",
            Step::Conflict => "CONFLICT",
            Step::Unknown => "neither here nor at the provider",
        };
        [what.to_owned(), count.to_string()]
    });
    let missing = ["not at the provider any more".to_owned(), report.missing.to_string()];
    output::table(["", "SANDBOXES"], steps.chain([missing]))?;
    report.conflicts.iter().try_for_each(|id| output::line(format_args!("conflict: {id}")))?;
    if report.dry_run { output::line("\nnothing was written: --apply does") } else { Ok(()) }
}
