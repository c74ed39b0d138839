//! `broker pool`: seed, list, count, verify, pause, adopt and reconcile the pool.

mod adopt;
mod list;
mod pause;
mod reconcile;
pub(crate) mod reshard;
pub(super) mod seed;
mod stats;
mod verify;

use clap::Subcommand;

use crate::context::Context;
use crate::done::Done;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Put seeds into the pool; existing ids are left alone
    Seed(seed::Seed),
    /// List sandboxes
    List(list::List),
    /// Count sandboxes by state (reads the whole table)
    Stats(Output),
    /// Read the whole table and report every violation; exit code 3 if there is any
    Verify(Output),
    /// Adopt a pool that another tool filled; without --apply it only reports what it would do
    Adopt(adopt::Adopt),
    /// Stop the workers from taking messages, until `resume`
    Pause(Output),
    /// Resume a paused pool
    Resume(Output),
    /// Reconcile a restored table with what was handed out since; without --apply it only reports what it would do
    Reconcile(reconcile::Reconcile),
    /// Move the table to another number of state shards; without --apply it only reports what it would do
    Reshard(reshard::Reshard),
}

/// Runs a command of `broker pool`.
pub(crate) async fn run(context: Context, command: PoolCommand) -> anyhow::Result<Done> {
    match command {
        PoolCommand::Seed(args) => seed::run(context, args).await,
        PoolCommand::List(args) => list::run(context, args).await,
        PoolCommand::Stats(out) => stats::run(context, out.json).await,
        PoolCommand::Verify(out) => verify::run(context, out.json).await,
        PoolCommand::Adopt(args) => adopt::run(context, args).await,
        PoolCommand::Pause(out) => pause::pause(context, out.json).await,
        PoolCommand::Resume(out) => pause::resume(context, out.json).await,
        PoolCommand::Reconcile(args) => reconcile::run(context, args).await,
        PoolCommand::Reshard(args) => reshard::run(context, args).await,
    }
}
