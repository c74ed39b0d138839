//! `broker pool reshard`: moves a table with data in it to another number of state shards.

use broker_store::Act;
use broker_store::reshard::{ReshardReport, reshard};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ProgressLine};

#[derive(Debug, Args)]
pub(crate) struct Reshard {
    /// The number wanted, 1 to 50
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    to: u8,
    /// Write; every API and worker must be stopped
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: Context, args: Reshard) -> anyhow::Result<Done> {
    // From here on the clock is AWS's.
    context.now().await?;
    let report = if args.apply {
        let act = (Act::Reshard, context.config.table.as_str(), Some(args.to.into()));
        context.act(act, async |_| move_all(&context, &args).await).await?
    } else {
        move_all(&context, &args).await?
    };
    if args.output.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Done::Ok)
}

async fn move_all(context: &Context, args: &Reshard) -> anyhow::Result<ReshardReport> {
    let Context { store, clock, entropy, .. } = context;
    let total = if args.apply {
        reshard(store, entropy, || clock.now(), args.to, false, |_| ()).await?.moved
    } else {
        0
    };
    let mut progress = ProgressLine::new(total, "moving", clock.instant());
    let moved = |count| progress.at(count, clock.instant());
    let report = reshard(store, entropy, || clock.now(), args.to, args.apply, moved).await;
    progress.end();
    Ok(report?)
}

fn print(report: &ReshardReport) -> std::io::Result<()> {
    let ReshardReport { dry_run, from, to, listed, moved } = report;
    if *dry_run {
        return output::line(format_args!(
            "{moved} of {listed} sandboxes would move, from {from} shards to {to}\n\nnothing was written: --apply does, once \
             every API and worker is stopped"
        ));
    }
    output::line(format_args!(
        "{moved} sandboxes moved: the table has {to} shards\n\nSet BROKER_STATE_SHARDS={to} for every process and command, \
         then start them."
    ))
}
