//! `broker audit`: the operations of operators on a day, by CLI and HTTP.

use std::time::Duration;

use broker_store::{AuditLine, Pages};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// The day (UTC): 0 is today, 1 yesterday
    #[arg(long, default_value_t = 0)]
    pub(crate) days_ago: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: Audit) -> anyhow::Result<Done> {
    let at = context.clock.now().minus(DAY * args.days_ago);
    let mut pages = Pages::new(|after| context.store.audit.of_day(at, after));
    let mut lines = Vec::new();
    while let Some(page) = pages.next().await? {
        lines.extend(page);
    }
    if args.output.json {
        output::json(&lines)?;
    } else {
        output::table(
            ["AT (UTC)", "WHO", "ACT", "TARGET", "COUNT", "WHY", "RESULT"],
            lines.into_iter().map(cells),
        )?;
    }
    Ok(Done::Ok)
}

fn cells(line: AuditLine) -> [String; 7] {
    let result = line.result();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let count = line.count.map(|count| count.to_string());
    let act = line.act.as_str().to_owned();
    [
        output::time_of_day(line.at),
        line.who,
        act,
        line.target,
        or_dash(count),
        or_dash(line.why),
        or_dash(result),
    ]
}
