//! Standard output and standard error: tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use broker_common::config::ConfigError;
use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints one line.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Prints JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string_pretty(value).map_err(io::Error::other)?)
}

/// Prints a table.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    line(table.trim_fmt())
}

/// Progress of something long, on a terminal's standard error; nowhere else.
pub(crate) fn progress(total: usize, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)).with_message(what);
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

/// Says on standard error why a command failed; the exit code for it.
pub(crate) fn refuse(error: &anyhow::Error) -> ExitCode {
    // Nobody can be told if standard error is closed.
    let _ = writeln!(io::stderr(), "broker: {error:#}");
    let bad_setting = error.chain().any(|cause| cause.is::<ConfigError>());
    ExitCode::from(if bad_setting { 2 } else { 1 })
}
