//! A window of a schedule: from each begin that a cron pattern names in a time zone, for some hours.
//!
//! A day on which the clock changes has 23 or 25 hours, and the hours of a window are hours of time, not of the clock's
//! face: a window of ten hours lasts ten. A begin whose time of day is left out by the change is at the first moment after
//! it; one that comes twice is at the first of the two.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};

use super::read::nearest;
use crate::Timestamp;

/// A time in which at least `min` sandboxes are kept available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    from: String,
    cron: Cron,
    zone: TimeZone,
    zone_name: String,
    hours: u32,
    min: u32,
}

/// The time zone of a name of the IANA database, in any case, and its name as the database writes it.
pub(super) fn zone(name: &str) -> Result<(TimeZone, String), String> {
    let found = TimeZone::get(name).ok().and_then(|zone| {
        let name = zone.iana_name()?.to_owned();
        Some((zone, name))
    });
    found.ok_or_else(|| {
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        match nearest(name, known.iter().map(String::as_str)) {
            Some(nearest) => format!("unknown time zone \"{name}\"; did you mean \"{nearest}\"?"),
            None => format!("unknown time zone \"{name}\"; write an IANA name, such as \"Europe/Berlin\""),
        }
    })
}

/// The begins that a pattern of five fields names, and the pattern as it is kept: single blanks, capital letters.
pub(super) fn begins(pattern: &str) -> Result<(Cron, String), String> {
    let kept = pattern.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    let fields = kept.split(' ').filter(|field| !field.is_empty()).count();
    if fields != 5 {
        return Err(format!(
            "a cron pattern has five fields (minute, hour, day, month, weekday), not {fields}"
        ));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(&kept).map_err(|error| format!("not a cron pattern: {error}"))?;
    Ok((cron, kept))
}

impl Window {
    pub(super) fn new(begins: (Cron, String), zone: (TimeZone, String), hours: u32, min: u32) -> Self {
        let ((cron, from), (zone, zone_name)) = (begins, zone);
        Self { from, cron, zone, zone_name, hours, min }
    }

    /// The pattern of its begins.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// How long it lasts.
    pub const fn hours(&self) -> u32 {
        self.hours
    }

    /// How many sandboxes are kept available in it.
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// Whether `now` lies within it: it began at most its hours ago, and the last moment is not part of it.
    pub fn covers(&self, now: Timestamp) -> bool {
        let lasted = Duration::from_secs(u64::from(self.hours) * 3_600);
        let earliest = now.minus(lasted).plus(Duration::from_millis(1));
        self.next_begin(earliest).is_some_and(|begin| begin <= now)
    }

    /// Its first begin at or after `at`; none if the pattern names no later day.
    pub fn next_begin(&self, at: Timestamp) -> Option<Timestamp> {
        // Whole seconds, rounded up: a begin is at a full minute.
        let at = jiff::Timestamp::from_second(i64::try_from(at.as_ms().div_ceil(1_000)).ok()?).ok()?;
        // A begin that a change of the clock left out is at the change itself; only a search from before it meets it.
        let before = at.checked_sub(SignedDuration::from_secs(1)).ok()?;
        let changed = self.zone.to_offset(before) != self.zone.to_offset(at);
        let at = Zoned::new(if changed { before } else { at }, self.zone.clone());
        let begin = self.cron.find_next_occurrence(&at, true).ok()?;
        u64::try_from(begin.timestamp().as_millisecond()).ok().map(Timestamp::from_ms)
    }
}
