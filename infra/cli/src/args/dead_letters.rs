//! The command line of `broker dead-letters`.

use std::time::Duration;

use broker_domain::{DeadLetterFilter, DeadLetterId, DeadLetterState, Reason, Source, Timestamp, TrackId};
use clap::{Args, Subcommand};

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, the oldest first
    List(ListDeadLetters),
    /// Everything that is known of one, its text byte for byte
    Show(ShowDeadLetter),
    /// Send them again, with their identity and the moment they were enqueued first; safe to interrupt and to repeat
    Replay(Replay),
    /// Say that nobody wants them
    Discard(Discard),
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this queue: requests or maintenance
    #[arg(long, value_parser = parse_source)]
    queue: Option<Source>,
    /// Only those of this kind: allocate, mark_for_deletion, run_job, delete; unknown for what does not say
    #[arg(long)]
    kind: Option<String>,
    /// Only those that died of this
    #[arg(long, value_parser = parse_reason)]
    reason: Option<Reason>,
    /// Only requests of this track
    #[arg(long, value_parser = parse_track)]
    track: Option<TrackId>,
    /// Only those first sent so long ago or longer: 90s, 15m, 2h, 7d
    #[arg(long, value_parser = parse_age, value_name = "AGE")]
    older_than: Option<Duration>,
    /// Only those first sent since then
    #[arg(long, value_parser = parse_age, value_name = "AGE")]
    newer_than: Option<Duration>,
    /// Only those in this state: dead, replaying, replayed or discarded; without it, dead and replaying
    #[arg(long, value_parser = parse_state)]
    state: Option<DeadLetterState>,
}

impl Filter {
    /// What it selects, at `now`.
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

#[derive(Debug, Args)]
pub(crate) struct ListDeadLetters {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ShowDeadLetter {
    /// Its id
    #[arg(value_parser = parse_id)]
    pub(crate) id: DeadLetterId,
    /// Only its text, nothing added
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which letters, and how: what replay and discard share.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// Their ids; instead of filters
    #[arg(value_parser = parse_id)]
    pub(crate) ids: Vec<DeadLetterId>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// All that are dead; instead of ids and filters
    #[arg(long)]
    pub(crate) all: bool,
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// At most so many a second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// At most so many
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Who does it, for the audit
    #[arg(long, default_value = "cli")]
    pub(crate) by: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Selected {
    /// That it says which letters, in one way; never all by omission.
    pub(crate) const fn is_clear(&self) -> bool {
        let (ids, filters) = (!self.ids.is_empty(), !self.filter.is_empty());
        matches!((ids, filters, self.all), (true, false, false) | (false, true, false) | (false, false, true))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Give them a new deadline; without it, an allocation that is past its own ends as expired and claims nothing
    #[arg(long)]
    pub(crate) renew_deadline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Why nobody wants them
    #[arg(long)]
    pub(crate) why: String,
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

#[cfg(test)]
mod tests {
    use super::*;

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
