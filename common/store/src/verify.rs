//! Verification of the table, for `broker pool verify`, `broker pool reconcile` and every load and crash test.
//!
//! [`verify`] reads the whole table and lets `broker_domain::suspects` name suspects. A scan is no snapshot, so the items
//! of each suspect are read again in one transaction, and only what is still wrong there is a violation.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_domain::waiting::{Line, minted_at};
use broker_domain::{
    Inventory, RequestId, RequestState, SandboxId, SandboxName, Status, Suspect, Timestamp, Violation,
    suspects,
};
use serde::Serialize;

pub use crate::found::Found;
use crate::permits::LimitedLeases;
use crate::scan_all::{ScanError, scan};
use crate::{PoolStatus, Scanned, Store, StoreError, reservations};

/// AWS: items of one TransactGetItems. More in one violation cannot be a race of the scan.
const READ_TOGETHER: usize = 100;
/// Attempts to read a suspect that a transaction holds.
const TRIES: usize = 50;
/// While the pool is open, whatever arrives is admitted, or found wanting, within seconds.
const ARRIVES_WITHIN: Duration = Duration::from_secs(600);

/// A place and a free sandbox that it fits do not outlive a look at both: five seconds, and a minute more if a worker dies over
/// it; twice that.
const SERVED_WITHIN: Duration = Duration::from_secs(130);

/// The report on the whole table.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// The violations.
    pub violations: Vec<Found>,
    /// Suspects of the scan, confirmed or not.
    pub suspects: usize,
    /// Live leases.
    pub live_leases: usize,
    /// Sandboxes by state.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Allocated sandboxes by lab; `-` is no lab.
    pub by_lab: BTreeMap<String, u64>,
    /// Tracks that hold several sandboxes, with several keys.
    pub tracks_with_several: BTreeMap<String, u64>,
}

/// Reads the whole table and checks it.
///
/// # Errors
///
/// When the table does not answer, or a suspect keeps changing.
pub async fn verify(store: &Store, now: Timestamp) -> Result<VerifyReport, ScanError> {
    let mut inventory = Inventory::default();
    inventory.expect_permits();
    let recorded = store.pool.accounts_recorded().await?;
    if recorded {
        inventory.expect_account_records();
    }
    let is_open = store.pool.status().await? == PoolStatus::Open;
    let (mut unreadable, mut misplaced, mut late) = (Vec::new(), Vec::new(), Vec::new());
    let mut unreadable_tickets = Vec::new();
    let (mut parked, mut free) = (Vec::new(), Vec::new());
    let mut limited = LimitedLeases::begin(store).await?;
    let mut put_aside = Vec::new();
    scan(store, |mut page| {
        unreadable.append(&mut page.unreadable);
        unreadable_tickets.append(&mut page.unreadable_tickets);
        misplaced.append(&mut page.misplaced);
        parked.append(&mut page.parked);
        put_aside.append(&mut page.reserved);
        limited.add(&page.leases);
        let is_late = |since: Timestamp| is_open && now.since(since) > ARRIVES_WITHIN;
        late.extend(page.arriving.iter().filter(|(_, since)| is_late(*since)).map(|(id, since)| {
            let minutes = now.since(*since).as_secs() / 60;
            format!("sandbox {id} has been arriving for {minutes} min: `broker job run serve` admits it")
        }));
        let available = page.sandboxes.iter().filter(|sandbox| sandbox.status == Status::Available);
        free.extend(available.map(|sandbox| (sandbox.name.clone(), sandbox.id.clone(), sandbox.version)));
        add(&mut inventory, &page);
        true
    })
    .await?;
    let in_vain = if is_open { in_vain(store, &parked, &free, now).await? } else { Vec::new() };
    let waiting = waiting(store, parked, is_open, now).await?.into_iter().chain(in_vain);
    let exceeded = limited.exceeded(store).await?;
    let reserved = reservations::judge(store, put_aside, is_open, now).await?;
    let suspects = suspects(&inventory);
    let mut violations: Vec<Violation> = Vec::new();
    for suspect in &suspects {
        if !violations.contains(&suspect.violation) && is_confirmed(store, suspect, recorded).await? {
            violations.push(suspect.violation.clone());
        }
    }
    let broken = violations.iter().map(|v| Found { kind: v.kind(), detail: v.to_string() });
    Ok(VerifyReport {
        violations: broken
            .chain(unreadable.into_iter().map(|detail| Found { kind: "unreadable_item", detail }))
            .chain(unreadable_tickets.into_iter().map(|detail| Found { kind: "unreadable_ticket", detail }))
            .chain(misplaced.into_iter().map(|detail| Found { kind: "misplaced", detail }))
            .chain(late.into_iter().map(|detail| Found { kind: "arriving_too_long", detail }))
            .chain(waiting)
            .chain(exceeded)
            .chain(reserved)
            .collect(),
        suspects: suspects.len(),
        live_leases: inventory.live_leases(),
        by_status: inventory.by_status().iter().map(|(status, count)| (status.as_str(), *count)).collect(),
        by_lab: inventory
            .by_lab()
            .iter()
            .map(|(lab, count)| (lab.as_ref().map_or("-".to_owned(), ToString::to_string), *count))
            .collect(),
        tracks_with_several: inventory
            .tracks_with_several()
            .into_iter()
            .map(|(track, held)| (track.to_string(), held))
            .collect(),
    })
}

/// What is wrong with requests that wait. Each is read again, before and after its place: it may end meanwhile. While the pool is
/// closed, no worker ends them at their deadline.
async fn waiting(
    store: &Store,
    parked: Vec<(Line, RequestId)>,
    is_open: bool,
    now: Timestamp,
) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    if parked.is_empty() {
        return Ok(found);
    }
    let listed = store.waiting.lines(now).await?;
    for (line, id) in parked {
        let place = store.waiting.place(&line, id).await?;
        let still = store.requests.get(id).await?;
        let Some(request) = still.filter(|request| request.state == RequestState::Queued) else { continue };
        if request.parked.as_ref() != Some(&line) {
            continue;
        }
        let is_listed = listed.iter().any(|listed| listed.line == line && listed.until >= request.deadline);
        let kind = match place {
            None => "parked_without_place",
            Some(_) if is_open && now.since(request.deadline) > ARRIVES_WITHIN => "wait_overdue",
            Some(_) if now <= request.deadline && !is_listed => "line_not_listed",
            Some(_) => continue,
        };
        found.push(Found { kind, detail: format!("request {id} waits in line {line}") });
    }
    Ok(found)
}

/// The first of each line, if a sandbox that it fits is free and was not given to it. Both are read again: it may have been meanwhile.
/// A tenant with limits may have as many as it may.
async fn in_vain(
    store: &Store,
    parked: &[(Line, RequestId)],
    free: &[(SandboxName, SandboxId, u64)],
    now: Timestamp,
) -> Result<Vec<Found>, StoreError> {
    let mut heads: BTreeMap<&Line, RequestId> = BTreeMap::new();
    for (line, id) in parked.iter().filter(|(_, id)| now.since(minted_at(*id)) > SERVED_WITHIN) {
        let head = heads.entry(line).or_insert(*id);
        *head = (*head).min(*id);
    }
    if heads.is_empty() || free.is_empty() {
        return Ok(Vec::new());
    }
    let policy = store.policy.get().await?.and_then(|stored| stored.policy().ok()).unwrap_or_default();
    let is_limited = |line: &Line| policy.tenants().get(&line.tenant).is_some_and(|of| !of.limits.is_empty());
    let mut found = Vec::new();
    for (line, id) in heads.into_iter().filter(|(line, _)| !is_limited(line)) {
        let Some((_, sandbox, version)) = free.iter().find(|(name, ..)| line.fits(name)) else { continue };
        let request = store.requests.get(id).await?;
        let waits = request.is_some_and(|request| {
            request.state == RequestState::Queued
                && request.parked.as_ref() == Some(line)
                && now <= request.deadline
        });
        let stands = store.sandboxes.get(sandbox).await?;
        let is_free = stands.is_some_and(|stands| stands.version == *version);
        if waits && is_free {
            let detail = format!("request {id} waits in line {line} beside sandbox {sandbox}, which is free");
            found.push(Found { kind: "waits_beside_free", detail });
        }
    }
    Ok(found)
}

fn add(inventory: &mut Inventory, page: &Scanned) {
    page.sandboxes.iter().for_each(|sandbox| inventory.add_sandbox(sandbox));
    page.leases.iter().for_each(|lease| inventory.add_lease(lease));
    page.accounts.iter().for_each(|record| inventory.add_account(record));
    page.permits.iter().for_each(|record| inventory.add_permit(record));
}

/// Whether the suspect's items, read at one instant, still show its violation.
async fn is_confirmed(store: &Store, suspect: &Suspect, recorded: bool) -> Result<bool, ScanError> {
    let Suspect { sandboxes, leases, accounts, permits, .. } = suspect;
    if sandboxes.len() + leases.len() + accounts.len() + permits.len() > READ_TOGETHER {
        return Ok(true);
    }
    for _ in 0..TRIES {
        match store.scans.together(sandboxes, leases, accounts, permits).await {
            Ok(page) => {
                let mut now = Inventory::default();
                now.expect_permits();
                if recorded {
                    now.expect_account_records();
                }
                add(&mut now, &page);
                return Ok(suspects(&now).iter().any(|again| again.violation == suspect.violation));
            }
            // Its items are changing: that is no violation, but they must be read at rest.
            Err(StoreError::Conflict) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(ScanError::Restless { violation: suspect.violation.to_string(), tries: TRIES })
}
