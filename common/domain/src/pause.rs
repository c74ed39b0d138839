//! `Pause`: who keeps something from running, and since when.
//!
//! Invariant: both are one fact. A second pause changes neither.

use std::fmt;

use super::Timestamp;

/// Who paused it, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pause {
    /// When.
    pub since: Timestamp,
    /// The operator; `None` if an earlier version stored it without.
    pub by: Option<String>,
}

impl Pause {
    /// By `by` at `since`.
    pub fn new(by: impl Into<String>, since: Timestamp) -> Self {
        Self { since, by: Some(by.into()) }
    }

    /// Whether it is the pause that `by` asked for at `at`: a call whose answer was lost finds it when it is repeated.
    pub fn is_of(&self, by: &str, at: Timestamp) -> bool {
        self.by.as_deref() == Some(by) && self.since.floor_to_second() == at.floor_to_second()
    }
}

/// For people: `paused by maria since 2026-11-22 08:00:00 UTC`.
impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.by.as_deref().unwrap_or("an unknown operator");
        let since = self.since.date_and_time().replace('T', " ").replace('Z', " UTC");
        write!(f, "paused by {by} since {since}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_found_again_by_who_made_it_then() {
        let at = Timestamp::from_ms(1_795_941_539_250);
        let pause = Pause::new("maria", at.floor_to_second());
        assert!(pause.is_of("maria", at));
        assert!(!pause.is_of("tom", at) && !pause.is_of("maria", at.plus(std::time::Duration::from_secs(1))));
        assert!(!Pause { by: None, ..pause }.is_of("maria", at));
    }

    #[test]
    fn a_pause_is_told_with_who_and_when() {
        let at = Timestamp::from_secs(1_795_941_539);
        assert_eq!(Pause::new("maria", at).to_string(), "paused by maria since 2026-11-29 08:38:59 UTC");
        let old = Pause { since: at, by: None };
        assert!(old.to_string().starts_with("paused by an unknown operator since 2026-"));
    }
}
