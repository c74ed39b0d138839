//! Standard output and standard error: tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use broker_domain::Timestamp;
use broker_runtime::config::ConfigError;
use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::done::Done;

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// How many rows a list prints.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ShownRows {
    /// The most rows to list [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl ShownRows {
    /// Rows that are printed if no number is named.
    const DEFAULT: usize = 50;

    /// The most rows.
    pub(crate) fn most(self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT)
    }

    /// Says on standard error that there are more, if there are; how the list ends.
    pub(crate) fn told(self, there_are_more: bool, output: &Output) -> Done {
        if !there_are_more {
            return Done::Ok;
        }
        complain(&format!("these are {} of more: --limit N shows N of them", self.most()));
        // A program that named no limit takes the list for whole.
        if output.json && self.limit.is_none() { Done::Failed } else { Done::Ok }
    }
}

/// Prints one line.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable(&text.to_string()))
}

/// `text` with every character that steers a terminal written out, but for line ends and tabs.
fn printable(text: &str) -> String {
    written_out(text, |c| c.escape_default().to_string())
}

/// `text` with those characters as `write` has them.
fn written_out(text: &str, write: impl Fn(char) -> String) -> String {
    let steers = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns_text(c);
    text.chars().map(|c| if steers(c) { write(c) } else { c.to_string() }).collect()
}

/// Whether a character changes the direction of the text around it, so that it reads as something else.
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints JSON, indented. A program reads the same text as without what is written out.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{}", printable_json(&text))
}

fn printable_json(text: &str) -> String {
    written_out(text, |c| format!("\\u{:04x}", u32::from(c)))
}

/// Prints a table.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    // A line end of others' text would begin a row of their own.
    for row in rows {
        table.add_row(row.map(|cell| cell.replace('\n', "\\n")));
    }
    line(table.trim_fmt())
}

/// A progress bar on a terminal's standard error; nowhere else.
pub(crate) fn progress(total: usize, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)).with_message(what);
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

/// Progress that a program may watch: a bar on a terminal, else a line on standard error now and then.
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    what: &'static str,
    total: u64,
    began: Instant,
    said: u64,
}

/// Without a terminal, a line after this many.
const SAY_EVERY: u64 = 1_000;

impl ProgressLine {
    /// Of `total` in all, begun at `now`.
    pub(crate) fn new(total: u64, what: &'static str, now: Instant) -> Self {
        let bar = progress(usize::try_from(total).unwrap_or(usize::MAX), what);
        Self { bar, what, total, began: now, said: 0 }
    }

    /// Reports `done` of them by `now`.
    pub(crate) fn at(&mut self, done: u64, now: Instant) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && done >= self.said + SAY_EVERY {
            self.said = done;
            let seconds = now.duration_since(self.began).as_secs().max(1);
            let rate = (done / seconds).max(1);
            let left = self.total.saturating_sub(done) / rate;
            let (what, total) = (self.what, self.total);
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "{what}: {done} of {total}, {rate}/s, about {left} s left");
        }
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A moment, as `2026-11-22 09:30:00 UTC`.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{} {} UTC", at.date(), time_of_day(at))
}

/// Its time of day in UTC.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    let s = at.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Prints text unchanged, but never a control character to a terminal.
pub(crate) fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    let text = if out.is_terminal() { printable(text) } else { text.into() };
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a problem to standard error.
pub(crate) fn complain(problem: &str) {
    let _ = writeln!(io::stderr(), "broker: {}", printable(problem));
}

/// Whether no sandbox was left out because it cannot be read; those that were are told.
pub(crate) fn whole(left_out: &[String]) -> bool {
    if !left_out.is_empty() {
        let (many, ids) = (left_out.len(), left_out.join(", "));
        complain(&format!(
            "{many} sandboxes cannot be read and are left out, see `broker pool verify`: {ids}"
        ));
    }
    left_out.is_empty()
}

/// Prints the error of a failed command to standard error; returns its exit code.
pub(crate) fn refuse(error: &anyhow::Error) -> ExitCode {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe)
    };
    // The reader of standard output has read enough (`| head`): as a program that SIGPIPE ends.
    if error.chain().any(is_broken_pipe) {
        return ExitCode::from(128 + 13);
    }
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "broker: {}", printable(&format!("{error:#}")));
    let bad_setting = error.chain().any(|cause| cause.is::<ConfigError>());
    ExitCode::from(if bad_setting { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::{printable, printable_json};

    #[test]
    fn no_control_character_reaches_a_terminal_as_it_is() {
        assert_eq!(printable("a\tb\nc é"), "a\tb\nc é");
        let steering = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}1m\u{8}\u{7f}\u{202e}txt";
        let shown = printable(steering);
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown}");
        assert!(shown.contains("\\u{1b}") && shown.contains("\\r"), "{shown}");

        let json = printable_json(&serde_json::to_string_pretty(&[steering]).unwrap());
        assert!(!json.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{json}");
        assert_eq!(
            serde_json::from_str::<Vec<String>>(&json).unwrap(),
            [steering],
            "a program reads the same"
        );
    }
}
