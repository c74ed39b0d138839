//! `broker dead-letters list`: dead letters, the oldest first, or the newest.

use broker_dead_letters::{DeadLetterListing, View};
use broker_domain::{DeadLetter, Timestamp};
use broker_store::DeadLetterOrder;
use clap::Args;

use super::{Filter, age};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ShownRows};

/// Rows as they are printed: the texts of letters are not kept, they may be long.
enum PrintedRows {
    Json(Vec<View>),
    Table(Vec<[String; 8]>),
}

impl PrintedRows {
    fn len(&self) -> usize {
        match self {
            Self::Json(rows) => rows.len(),
            Self::Table(rows) => rows.len(),
        }
    }

    fn push(&mut self, letter: &DeadLetter, now: Timestamp) {
        match self {
            Self::Json(rows) => rows.push(View::from(letter)),
            Self::Table(rows) => rows.push(cells(letter, now)),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListLetters {
    #[command(flatten)]
    pub(crate) filter: Filter,
    #[command(flatten)]
    pub(crate) rows: ShownRows,
    /// List the newest first
    #[arg(long)]
    pub(crate) newest_first: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: ListLetters) -> anyhow::Result<Done> {
    let now = context.clock.now();
    let order = if args.newest_first { DeadLetterOrder::NewestFirst } else { DeadLetterOrder::OldestFirst };
    let mut listing = DeadLetterListing::new(context.store.clone(), args.filter.at(now), order, None);
    let mut rows =
        if args.output.json { PrintedRows::Json(Vec::new()) } else { PrintedRows::Table(Vec::new()) };
    let limit = args.rows.most();
    while rows.len() < limit
        && let Some(letter) = listing.next().await?
    {
        rows.push(&letter, now);
    }
    let there_are_more = rows.len() == limit && listing.next().await?.is_some();
    for problem in listing.unreadable() {
        output::complain(&format!("an item that should be a dead letter cannot be read: {problem}"));
    }
    match rows {
        PrintedRows::Json(rows) => output::json(&rows)?,
        PrintedRows::Table(rows) => {
            output::table(["ID", "AGE", "STATE", "QUEUE", "KIND", "REASON", "RECEIVES", "TRACK"], rows)?;
        }
    }
    Ok(args.rows.told(there_are_more, &args.output))
}

fn cells(letter: &DeadLetter, now: Timestamp) -> [String; 8] {
    [
        letter.id.to_string(),
        age(letter.first_at, now),
        letter.state.as_str().to_owned(),
        letter.source.as_str().to_owned(),
        letter.kind().to_owned(),
        letter.reason.as_str().to_owned(),
        letter.receives.to_string(),
        letter.summary.track.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
    ]
}
