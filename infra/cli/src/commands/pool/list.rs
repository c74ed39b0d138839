//! `broker pool list`: sandboxes, of one state or of all.

use broker_domain::Sandbox;
use serde::Serialize;

use crate::args;
use crate::context::Context;
use crate::done::Done;
use crate::output;
use broker_store::scan_all::scan;

#[derive(Serialize)]
struct Row {
    sandbox_id: String,
    name: String,
    external_id: String,
    status: &'static str,
    track: Option<String>,
    idempotency_key: Option<String>,
    track_name: Option<String>,
    allocated_at: Option<u64>,
    expires_at: Option<u64>,
}

impl From<&Sandbox> for Row {
    fn from(sandbox: &Sandbox) -> Self {
        let allocation = sandbox.allocation.as_ref();
        Self {
            sandbox_id: sandbox.id.to_string(),
            name: sandbox.name.to_string(),
            external_id: sandbox.external_id.to_string(),
            status: sandbox.status.as_str(),
            track: allocation.map(|a| a.lease_key.track.to_string()),
            idempotency_key: allocation.map(|a| a.lease_key.key.to_string()),
            track_name: allocation.and_then(|a| a.track_name.as_ref()).map(ToString::to_string),
            allocated_at: allocation.map(|a| a.allocated_at.as_secs()),
            expires_at: allocation.map(|a| a.expires_at.as_secs()),
        }
    }
}

pub(crate) async fn run(context: Context, args: args::List) -> anyhow::Result<Done> {
    let mut rows: Vec<Row> = Vec::new();
    scan(&context.store, |page| {
        let wanted =
            page.sandboxes.iter().filter(|sandbox| args.status.is_none_or(|status| sandbox.status == status));
        rows.extend(wanted.take(args.limit - rows.len()).map(Row::from));
        rows.len() < args.limit
    })
    .await?;
    rows.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.sandbox_id.cmp(&b.sandbox_id)));
    if args.output.json {
        output::json(&rows)?;
    } else {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let cells = rows.into_iter().map(|row| {
            [
                row.sandbox_id,
                row.name,
                row.status.to_owned(),
                or_dash(row.track),
                or_dash(row.track_name),
                or_dash(row.expires_at.map(|at| at.to_string())),
            ]
        });
        output::table(["SANDBOX", "NAME", "STATUS", "TRACK", "LAB", "EXPIRES AT"], cells)?;
    }
    Ok(Done::Ok)
}
