//! `broker init`: the table, its accounts' records and the queues, created or mended.

use broker_queue::topology;
use broker_store::accounts::record_all;
use broker_store::schema;

use crate::context::Context;
use crate::done::Done;
use crate::output;

pub(crate) async fn run(context: Context) -> anyhow::Result<Done> {
    let table = &context.config.table;
    let word = match schema::ensure(&context.aws.dynamodb, table).await? {
        schema::Ensured::Created => "created",
        schema::Ensured::Existed => "is there",
    };
    output::line(format_args!("table {table}: {word}"))?;
    for (queue, ensured) in topology::ensure(&context.aws, &context.names, context.config.visibility).await? {
        let word = match ensured {
            topology::Ensured::Created => "created".to_owned(),
            topology::Ensured::Changed(attributes) => format!("mended: {}", attributes.join(", ")),
            topology::Ensured::AsItWas => "is there".to_owned(),
        };
        output::line(format_args!("queue {queue}: {word}"))?;
    }
    let Context { store, entropy, clock, .. } = &context;
    let recorded = record_all(store, entropy, clock.now()).await?;
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
