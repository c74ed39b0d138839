//! `broker pool verify`: reads the whole table and prints the violations.

use broker_store::verify::{VerifyReport, verify};

use crate::context::Context;
use crate::done::Done;
use crate::output;

pub(crate) async fn run(context: Context, json: bool) -> anyhow::Result<Done> {
    let report = verify(&context.store, context.now().await?).await?;
    if json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(if report.violations.is_empty() { Done::Ok } else { Done::ViolationFound })
}

fn print(report: &VerifyReport) -> std::io::Result<()> {
    output::table(
        ["STATE", "SANDBOXES"],
        report.by_status.iter().map(|(state, count)| [(*state).to_owned(), count.to_string()]),
    )?;
    output::line(format_args!("\n{} live leases", report.live_leases))?;
    if !report.by_lab.is_empty() {
        output::line("")?;
        output::table(
            ["LAB", "ALLOCATED"],
            report.by_lab.iter().map(|(lab, count)| [lab.clone(), count.to_string()]),
        )?;
    }
    if !report.tracks_with_several.is_empty() {
        output::line("\nTracks with several sandboxes (allowed with several keys):")?;
        output::table(
            ["TRACK", "ALLOCATED"],
            report.tracks_with_several.iter().map(|(track, held)| [track.clone(), held.to_string()]),
        )?;
    }
    match report.violations.as_slice() {
        [] => output::line("\nno violation"),
        violations => {
            output::line(format_args!("\n{} VIOLATIONS", violations.len()))?;
            violations
                .iter()
                .try_for_each(|found| output::line(format_args!("{}: {}", found.kind, found.detail)))
        }
    }
}
