//! `broker pool stats`: the number of sandboxes in each state, by a full read, tombstones included.

use std::collections::BTreeMap;

use broker_domain::Status;

use crate::context::Context;
use crate::done::Done;
use crate::output;
use broker_store::scan_all::scan;

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let mut counts: BTreeMap<Status, u64> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
    scan(&context.store, |page| {
        for sandbox in &page.sandboxes {
            *counts.entry(sandbox.status).or_default() += 1;
        }
        true
    })
    .await?;
    let total = ("total", counts.values().sum());
    let by_state = counts.iter().map(|(status, count)| (status.as_str(), *count));
    let rows = std::iter::once(total).chain(by_state);
    if json {
        output::json(&rows.collect::<BTreeMap<&str, u64>>())?;
    } else {
        output::table(
            ["STATE", "SANDBOXES"],
            rows.map(|(state, count)| [state.to_owned(), count.to_string()]),
        )?;
    }
    Ok(Done::Ok)
}
