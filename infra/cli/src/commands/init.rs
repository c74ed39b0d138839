//! `broker init`: creates the table and the queues, or corrects them.

use broker_queue::topology;
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
    Ok(Done::Ok)
}
