//! `broker init`: the table, its accounts' records and the queues, created or mended.
//!
//! It says of each queue what it changes, from what to what: the visibility timeout is the setting of its shell. With
//! `--adopt-table` a role that may not make or change queues does the rest all the same.

use broker_queue::topology::{self, QueueChange};
use broker_queue::{QueueError, inspect};
use broker_runtime::errors::chain;
use broker_store::accounts::record_all;
use broker_store::{SettingsError, Stage, StoreError, adopt_table, schema};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Add the index (and expiry) to a table that another tool made, while it is in use; waits until it is built
    #[arg(long)]
    pub(crate) adopt_table: bool,
    /// Only print what would be created or changed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) async fn run(context: Context, args: Init) -> anyhow::Result<Done> {
    let table = &context.config.table;
    let seen = match schema::inspect(&context.aws.dynamodb, table).await {
        Ok(seen) => Some(seen),
        Err(StoreError::NoTable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // One with other keys is none of ours, and is told so below.
    if seen.as_ref().is_some_and(|seen| seen.keys) {
        context.check_settings().await?;
    }
    if args.dry_run {
        return look(&context, seen.as_ref()).await;
    }
    let mut done = Done::Ok;
    if args.adopt_table {
        // First: the index may take hours, and its operator may have gone by then.
        match make_queues(&context).await {
            Ok(told) => told.iter().try_for_each(output::line)?,
            Err(error) => {
                output::complain(&format!(
                    "queues are not made or changed: {}. Make them by Terraform, or by a role that may sqs:CreateQueue and \
                     sqs:SetQueueAttributes, before a worker starts",
                    chain(&error)
                ));
                done = Done::Failed;
            }
        }
        adopt_table(&context.aws.dynamodb, table, &tell).await?;
        output::line(format_args!("table {table}: ready to be taken over"))?;
    } else {
        let word = match schema::ensure(&context.aws.dynamodb, table).await? {
            schema::Ensured::Created => "created",
            schema::Ensured::Existed => "is there",
        };
        output::line(format_args!("table {table}: {word}"))?;
        make_queues(&context).await?.iter().try_for_each(output::line)?;
    }
    let Context { store, entropy, .. } = &context;
    match store.pool.bind_settings(&context.config.prefix).await {
        Err(SettingsError::Setting(error)) => return Err(error.into()),
        bound => bound?,
    }
    let recorded = record_all(store, entropy, context.now().await?).await?;
    let mended = [recorded.written, recorded.respelled, recorded.dropped, recorded.kept];
    if mended.iter().any(|count| *count > 0) {
        let [written, respelled, dropped, kept] = mended;
        output::line(format_args!(
            "accounts: {written} recorded, {respelled} respelled, {dropped} records of no sandbox removed, {kept} tombstones kept for good"
        ))?;
    }
    for doubled in recorded.doubled {
        output::complain(&format!("refused: {} is the account that {} has", doubled.sandbox, doubled.by));
        done = Done::Failed;
    }
    Ok(done)
}

/// Makes and mends the queues; what was done with each.
async fn make_queues(context: &Context) -> Result<Vec<String>, QueueError> {
    let visibility = context.config.visibility;
    let before = inspect::queues(&context.aws, &context.names, visibility).await?;
    let ensured = topology::ensure(&context.aws, &context.names, visibility).await?;
    let told = ensured.into_iter().map(|(queue, ensured)| {
        let word = match ensured {
            QueueChange::Created => "created".to_owned(),
            QueueChange::Changed(attributes) => {
                let seen = before.iter().find(|seen| seen.queue == queue);
                let told = seen.map_or_else(|| attributes.join(", "), |seen| changes(seen, "was", "is now"));
                format!("mended: {told}")
            }
            QueueChange::AsItWas => "is there".to_owned(),
        };
        format!("queue {queue}: {word}")
    });
    Ok(told.collect())
}

/// What differs of a queue: `VisibilityTimeout was 60, is now 30`.
fn changes(seen: &inspect::QueueInspection, was: &str, is: &str) -> String {
    let told = seen.differs.iter().map(|one| {
        let (name, found, wanted) = (one.attribute(), one.found(), one.wanted());
        format!("{name} {was} {found}, {is} {wanted}")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What of the table and the queues would be made or changed; nothing is written.
async fn look(context: &Context, seen: Option<&schema::Inspection>) -> anyhow::Result<Done> {
    let word = seen.map_or_else(|| "would be created".to_owned(), standing);
    output::line(format_args!("table {}: {word}", context.config.table))?;
    for seen in inspect::queues(&context.aws, &context.names, context.config.visibility).await? {
        let word = match (seen.exists, seen.differs.is_empty()) {
            (false, _) => "would be created".to_owned(),
            (true, true) => "is there".to_owned(),
            (true, false) => format!("would be mended: {}", changes(&seen, "is", "would be")),
        };
        output::line(format_args!("queue {}: {word}", seen.queue))?;
    }
    output::line("\nnothing was written: without --dry-run it is")?;
    Ok(Done::Ok)
}

/// How a table stands, and what would be changed of it.
fn standing(seen: &schema::Inspection) -> String {
    if !seen.keys {
        return "has other keys than PK and SK: it would be refused".to_owned();
    }
    if !seen.replicas.is_empty() {
        return format!("has replicas in {}: it would be refused", seen.replicas.join(", "));
    }
    if let Some(attribute) = &seen.foreign_ttl {
        return format!("removes what is past its {attribute}: it would be refused");
    }
    let index = match seen.index {
        schema::IndexState::Usable => "is there",
        schema::IndexState::NotActive => "is there, its index is being built",
        schema::IndexState::Foreign => {
            return "has another index of that name: it would be refused".to_owned();
        }
        schema::IndexState::Missing => "has no index: --adopt-table would add it",
    };
    if seen.expires { index.to_owned() } else { format!("{index}, expiry by ttl would be turned on") }
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
