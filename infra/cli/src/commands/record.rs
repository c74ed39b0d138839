//! Records of sandboxes, as commands read and print them.

use anyhow::Context as _;
use broker_api::response::bodies::PooledSandbox;
use broker_domain::{Allocation, SandboxId};
use broker_store::Record;
use serde_json::{Value, json};

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output;

/// How often a write is decided on anew when its sandbox changed at the same moment.
pub(super) const TRIES: usize = 5;

pub(super) async fn read(context: &Context, id: &SandboxId) -> anyhow::Result<Record> {
    context.store.sandboxes.record(id).await?.with_context(|| format!("there is no sandbox {id}"))
}

pub(super) fn live(record: &Record) -> anyhow::Result<&Allocation> {
    let sandbox = &record.sandbox;
    sandbox
        .live_allocation()
        .with_context(|| format!("{} is {}: it has no lease", sandbox.id, sandbox.status))
}

pub(super) async fn print(context: &Context, record: &Record, as_json: bool) -> anyhow::Result<Done> {
    // A sandbox is shown also beside a policy that cannot be read.
    let policy = policy::in_force_or_none(context).await;
    let shown = json!(PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name)));
    if as_json {
        output::json(&shown)?;
    } else {
        let cells = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::table(["SANDBOX", ""], cells.map(|(name, value)| [name.clone(), text(value)]))?;
    }
    Ok(Done::Ok)
}
