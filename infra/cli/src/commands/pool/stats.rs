//! `broker pool stats`: the number of sandboxes in each state, by a full read, tombstones included; with a policy also of
//! each flavour.

use std::collections::BTreeMap;

use broker_domain::Status;
use broker_domain::policy::{ByStatus, PoolCount};
use broker_store::scan_all::scan;
use broker_store::{shown_causes, shown_counts};
use serde::Serialize;

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Serialize)]
struct StatsShown {
    #[serde(flatten)]
    counts: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    flavours: BTreeMap<String, BTreeMap<&'static str, u64>>,
    quarantined_by_cause: BTreeMap<&'static str, u64>,
}

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let policy = policy::in_force_or_none(&context).await;
    let (mut counted, mut left_out) = (PoolCount::new(&policy), Vec::new());
    scan(&context.store, |mut page| {
        left_out.append(&mut page.left_out);
        for sandbox in &page.sandboxes {
            counted.add(&policy, Some(&sandbox.name), sandbox.status);
        }
        page.quarantined.iter().for_each(|cause| counted.add_cause(*cause));
        true
    })
    .await?;
    let (together, by_flavour) = (counted.by_status(), counted.by_flavour());
    if json {
        let flavours = by_flavour.iter().map(|(name, counts)| (name.clone(), shown_counts(counts))).collect();
        let quarantined_by_cause = shown_causes(counted.by_cause());
        output::json(&StatsShown { counts: shown_counts(&together), flavours, quarantined_by_cause })?;
    } else if by_flavour.is_empty() {
        output::table(
            ["STATE", "SANDBOXES"],
            rows(&together).map(|(state, count)| [state.to_owned(), count]),
        )?;
    } else {
        let of_flavour = |(flavour, counts): (String, ByStatus)| {
            rows(&counts)
                .map(move |(state, count)| [flavour.clone(), state.to_owned(), count])
                .collect::<Vec<_>>()
        };
        let all = std::iter::once(("(all)".to_owned(), together)).chain(by_flavour);
        output::table(["FLAVOUR", "STATE", "SANDBOXES"], all.flat_map(of_flavour))?;
    }
    Ok(if output::whole(&left_out) { Done::Ok } else { Done::Failed })
}

/// The total, then each state.
fn rows(counts: &ByStatus) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let shown = shown_counts(counts);
    let total = ("total", shown.get("total").copied().unwrap_or(0).to_string());
    let states = Status::ALL.into_iter().map(Status::as_str);
    let by_state = states.map(move |state| (state, shown.get(state).copied().unwrap_or(0).to_string()));
    std::iter::once(total).chain(by_state)
}
