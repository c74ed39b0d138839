//! `broker init`: the table, its accounts' records and the queues, created or mended.

use broker_queue::topology;
use broker_store::SettingsError;
use broker_store::accounts::record_all;
use broker_store::{Stage, adopt_table, schema};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Add the index (and expiry) to a table that another tool made, while it is in use; waits until it is built
    #[arg(long)]
    pub(crate) adopt_table: bool,
}

pub(crate) async fn run(context: Context, args: Init) -> anyhow::Result<Done> {
    let table = &context.config.table;
    let word = if args.adopt_table {
        adopt_table(&context.aws.dynamodb, table, &tell).await?;
        "ready to be taken over"
    } else {
        match schema::ensure(&context.aws.dynamodb, table).await? {
            schema::Ensured::Created => "created",
            schema::Ensured::Existed => "is there",
        }
    };
    output::line(format_args!("table {table}: {word}"))?;
    for (queue, ensured) in topology::ensure(&context.aws, &context.names, context.config.visibility).await? {
        let word = match ensured {
            topology::QueueChange::Created => "created".to_owned(),
            topology::QueueChange::Changed(attributes) => format!("mended: {}", attributes.join(", ")),
            topology::QueueChange::AsItWas => "is there".to_owned(),
        };
        output::line(format_args!("queue {queue}: {word}"))?;
    }
    let Context { store, entropy, .. } = &context;
    match store.pool.bind_settings(&context.config.prefix).await {
        Err(SettingsError::Setting(error)) => return Err(error.into()),
        bound => bound?,
    }
    let recorded = record_all(store, entropy, context.now().await?).await?;
    let mended = [recorded.written, recorded.dropped, recorded.kept];
    if mended.iter().any(|count| *count > 0) {
        let [written, dropped, kept] = mended;
        output::line(format_args!(
            "accounts: {written} recorded, {dropped} records of no sandbox removed, {kept} tombstones kept for good"
        ))?;
    }
    for doubled in recorded.doubled {
        output::line(format_args!("refused: {} is the account that {} has", doubled.sandbox, doubled.by))?;
    }
    Ok(Done::Ok)
}

/// Of a table of another tool that gets its index. On standard error: it may take hours.
fn tell(stage: Stage) {
    match stage {
        Stage::TableBusy => output::complain("the table is being changed: waiting"),
        Stage::Building { items } => {
            output::complain(&format!("{} is being built over {items} items: waiting", schema::STATE_INDEX))
        }
        Stage::Ready => output::complain(&format!("{} is there", schema::STATE_INDEX)),
        Stage::ExpiryIsLeft => output::complain(
            "a sandbox has a ttl that another tool gave it: expiry stays off. After `broker pool adopt --apply`: `broker init`",
        ),
    }
}
