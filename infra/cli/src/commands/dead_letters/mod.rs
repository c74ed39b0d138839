//! `broker dead-letters`: list, show, replay, discard; the same code as over HTTP (`broker_dead_letters`).

mod action;
mod list;
mod show;

use std::time::Duration;

use broker_domain::{DeadLetterFilter, DeadLetterId, DeadLetterState, Reason, Source, Timestamp, TrackId};
use clap::{Args, Subcommand};

use crate::context::Context;
use crate::done::Done;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List dead letters, the oldest first
    List(list::ListLetters),
    /// Show one dead letter, its text byte for byte
    Show(show::Show),
    /// Send the messages again, with their identity and original enqueue time; safe to interrupt and to repeat
    Replay(action::Replay),
    /// Discard dead letters
    Discard(action::Discard),
}

/// Runs a command of `broker dead-letters`.
pub(crate) async fn run(context: Context, command: DeadLettersCommand) -> anyhow::Result<Done> {
    match command {
        DeadLettersCommand::List(args) => list::run(context, args).await,
        DeadLettersCommand::Show(args) => show::run(context, args).await,
        DeadLettersCommand::Replay(args) => action::replay(context, args).await,
        DeadLettersCommand::Discard(args) => action::discard(context, args).await,
    }
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only this queue: requests or maintenance
    #[arg(long, value_parser = parse_source)]
    queue: Option<Source>,
    /// Only this kind: allocate, mark_for_deletion, run_job, delete; unknown for messages without one
    #[arg(long)]
    kind: Option<String>,
    /// Only dead letters with this reason
    #[arg(long, value_parser = parse_reason)]
    reason: Option<Reason>,
    /// Only messages of this track
    #[arg(long, value_parser = parse_track)]
    track: Option<TrackId>,
    /// Only messages first sent at least this long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_parser = parse_age, value_name = "AGE")]
    older_than: Option<Duration>,
    /// Only messages first sent at most this long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_parser = parse_age, value_name = "AGE")]
    newer_than: Option<Duration>,
    /// Only this state: dead, replaying, replayed or discarded; without it, dead and replaying
    #[arg(long, value_parser = parse_state)]
    state: Option<DeadLetterState>,
}

impl Filter {
    /// The filter at `now`.
    pub(crate) fn at(&self, now: Timestamp) -> DeadLetterFilter {
        DeadLetterFilter {
            source: self.queue,
            kind: self.kind.clone(),
            reason: self.reason,
            track: self.track.clone(),
            since: self.newer_than.map(|age| now.minus(age)),
            before: self.older_than.map(|age| now.minus(age)),
            state: self.state,
        }
    }

    const fn is_empty(&self) -> bool {
        let Self { queue, kind, reason, track, older_than, newer_than, state } = self;
        queue.is_none()
            && kind.is_none()
            && reason.is_none()
            && track.is_none()
            && older_than.is_none()
            && newer_than.is_none()
            && state.is_none()
    }
}

fn none_of(words: impl IntoIterator<Item = &'static str>) -> String {
    format!("is none of {}", words.into_iter().collect::<Vec<_>>().join(", "))
}

fn parse_source(text: &str) -> Result<Source, String> {
    Source::parse(text).ok_or_else(|| none_of(Source::ALL.map(Source::as_str)))
}

fn parse_reason(text: &str) -> Result<Reason, String> {
    Reason::parse(text).ok_or_else(|| none_of(Reason::ALL.map(Reason::as_str)))
}

fn parse_state(text: &str) -> Result<DeadLetterState, String> {
    DeadLetterState::parse(text).ok_or_else(|| none_of(DeadLetterState::ALL.map(DeadLetterState::as_str)))
}

fn parse_track(text: &str) -> Result<TrackId, String> {
    TrackId::new(text).map_err(|error| error.to_string())
}

fn parse_id(text: &str) -> Result<DeadLetterId, String> {
    DeadLetterId::parse(text).map_err(|error| error.to_string())
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?} is not a number with s, m, h or d");
    let unit = text.chars().next_back().ok_or_else(form)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_not_a_number| form())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(form()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(form)
}

/// The age in words that fit a column.
fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_unit_that_fits() {
        let age =
            |seconds: u64| age(Timestamp::from_secs(1_000_000 - seconds), Timestamp::from_secs(1_000_000));
        assert_eq!(
            [age(119), age(120), age(7_199), age(7_200), age(172_800)],
            ["119s", "2m", "119m", "2h", "2d"]
        );
    }

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        let seconds = |text| parse_age(text).map(|age| age.as_secs()).ok();
        assert_eq!([seconds("90s"), seconds("15m"), seconds("2h")], [Some(90), Some(900), Some(7_200)]);
        assert_eq!(seconds("7d"), Some(604_800));
        for bad in ["", "s", "5", "5w", "-1s", "1.5h", "99999999999999999999d", "18446744073709551615d", "5ä"]
        {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }
}
