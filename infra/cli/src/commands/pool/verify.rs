//! `broker pool verify`: the judge of every load and crash test.
//!
//! It reads the whole table and lets `domain::invariants` name suspects. A scan is no snapshot, so the items of each
//! suspect are read again in one transaction, and only what is still wrong there is a violation.

use std::collections::BTreeMap;

use broker_common::domain::{Inventory, Suspect, Violation, suspects};
use broker_common::store::{ScanPage, Store, StoreError};
use serde::Serialize;

use super::scan;
use crate::commands::Done;
use crate::context::Context;
use crate::output;

/// AWS: items of one TransactGetItems. So many of one violation are no race of the scan.
const READ_TOGETHER: usize = 100;
/// How often a suspect is read that a transaction holds just then.
const TRIES: usize = 50;

/// One broken promise.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    kind: &'static str,
    detail: String,
}

/// What the whole table says.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What contradicts the promises.
    pub(crate) violations: Vec<Found>,
    suspects: usize,
    live_leases: usize,
    by_status: BTreeMap<&'static str, u64>,
    by_lab: BTreeMap<String, u64>,
    tracks_with_several: BTreeMap<String, u64>,
}

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let report = judge(&context.store).await?;
    if json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(if report.violations.is_empty() { Done::Ok } else { Done::ViolationFound })
}

/// Reads the whole table and judges it.
pub(crate) async fn judge(store: &Store) -> anyhow::Result<Report> {
    let mut inventory = Inventory::default();
    let mut unreadable = Vec::new();
    scan(store, |mut page| {
        unreadable.append(&mut page.unreadable);
        add(&mut inventory, &page);
        true
    })
    .await?;
    let suspects = suspects(&inventory);
    let mut violations: Vec<Violation> = Vec::new();
    for suspect in &suspects {
        if !violations.contains(&suspect.violation) && is_confirmed(store, suspect).await? {
            violations.push(suspect.violation.clone());
        }
    }
    let broken = violations.iter().map(|v| Found { kind: v.kind(), detail: v.to_string() });
    Ok(Report {
        violations: broken
            .chain(unreadable.into_iter().map(|detail| Found { kind: "unreadable_item", detail }))
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

fn add(inventory: &mut Inventory, page: &ScanPage) {
    page.sandboxes.iter().for_each(|sandbox| inventory.add_sandbox(sandbox));
    page.leases.iter().for_each(|lease| inventory.add_lease(lease));
}

/// Whether the suspect's own items, read at one instant, still show its violation.
async fn is_confirmed(store: &Store, suspect: &Suspect) -> anyhow::Result<bool> {
    if suspect.sandboxes.len() + suspect.leases.len() > READ_TOGETHER {
        return Ok(true);
    }
    for _ in 0..TRIES {
        match store.read_together(&suspect.sandboxes, &suspect.leases).await {
            Ok(page) => {
                let mut now = Inventory::default();
                add(&mut now, &page);
                return Ok(suspects(&now).iter().any(|again| again.violation == suspect.violation));
            }
            // Its items are changing: that is no violation, but it has to be seen at rest.
            Err(StoreError::Conflict) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("{} could not be read at one instant in {TRIES} tries", suspect.violation)
}

fn print(report: &Report) -> std::io::Result<()> {
    output::table(
        ["STATE", "SANDBOXES"],
        report.by_status.iter().map(|(state, count)| [(*state).to_owned(), count.to_string()]),
    )?;
    output::line(format_args!("\n{} live leases", report.live_leases))?;
    if !report.by_lab.is_empty() {
        output::line("")?;
        output::table(
            ["LAB", "ALLOCATED"],
            report.by_lab.iter().map(|(lab, count)| [lab.clone(), count.to_string()]),
        )?;
    }
    if !report.tracks_with_several.is_empty() {
        output::line("\nTracks with several sandboxes (allowed with several keys):")?;
        output::table(
            ["TRACK", "ALLOCATED"],
            report.tracks_with_several.iter().map(|(track, held)| [track.clone(), held.to_string()]),
        )?;
    }
    match report.violations.as_slice() {
        [] => output::line("\nno violation"),
        violations => {
            output::line(format_args!("\n{} VIOLATIONS", violations.len()))?;
            violations
                .iter()
                .try_for_each(|found| output::line(format_args!("{}: {}", found.kind, found.detail)))
        }
    }
}
