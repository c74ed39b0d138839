//! `broker dead-letters show`: the full record of a dead letter; `--raw` prints its text byte for byte.

use anyhow::Context as _;
use broker_dead_letters::{View, WholeView};
use broker_domain::DeadLetterId;
use clap::Args;
use serde_json::Value;

use super::parse_id;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id
    #[arg(value_parser = parse_id)]
    pub(crate) id: DeadLetterId,
    /// Print only the text
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: Show) -> anyhow::Result<Done> {
    let letter = context.store.dead_letters.get(&args.id).await?;
    let letter = letter.with_context(|| format!("there is no dead letter {}", args.id))?;
    if args.raw {
        output::raw(&letter.body)?;
    } else if args.output.json {
        output::json(&WholeView::from(&letter))?;
    } else {
        let shown = serde_json::to_value(View::from(&letter))?;
        let cells = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::table(["DEAD LETTER", ""], cells.map(|(name, value)| [name.clone(), text(value)]))?;
        let attributes = letter.attributes.iter().map(|(name, value)| [name.clone(), value.clone()]);
        if !letter.attributes.is_empty() {
            output::line("")?;
            output::table(["ATTRIBUTE", ""], attributes)?;
        }
        output::line(format_args!("\n{}", letter.body))?;
    }
    Ok(Done::Ok)
}
