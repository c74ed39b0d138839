//! The quarantine: who put a sandbox there and why, and how much of a flavour may go there by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::refill::READ_LAG;
use super::{SandboxId, Timestamp};

/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 300;
/// Of a flavour's sandboxes one in so many may be in quarantine; beyond that nothing more goes there by itself.
const ONE_IN: u64 = 5;

/// What put a sandbox into quarantine.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::Display,
)]
#[strum(serialize_all = "snake_case")]
pub enum QuarantineCause {
    /// An operator.
    Operator,
    /// Its gate refused it, or did not answer.
    Gate,
    /// The provider did not delete it.
    Deletion,
    /// Its owner reported it broken.
    Report,
    /// A cause of a newer program.
    Unknown,
}

impl QuarantineCause {
    /// Every cause that this program knows.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Gate, Self::Deletion, Self::Report];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

/// Why a sandbox is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Since when.
    pub at: Timestamp,
    /// What put it there.
    pub cause: QuarantineCause,
    /// Who: an operator's name, an owner; `broker` for the broker itself.
    pub by: String,
    /// The reason, one line.
    pub reason: String,
}

impl Quarantine {
    /// Put there by the broker itself, for `reason`, which may be another system's words.
    pub fn by_broker(cause: QuarantineCause, reason: &str, at: Timestamp) -> Self {
        Self { at, cause, by: "broker".to_owned(), reason: one_line(reason) }
    }
}

/// `text` as one line of [`LONGEST_REASON`] characters at most, without control characters.
pub fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<_> = printable.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_REASON).collect()
}

/// A person's reason: 1 to [`LONGEST_REASON`] printable characters, without blanks around them.
pub fn reason(text: &str) -> Option<String> {
    let text = text.trim();
    let fits =
        !text.is_empty() && text.chars().count() <= LONGEST_REASON && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// The guard of a flavour's quarantine: what went there by itself of late. The index may not list it yet, so it counts beside
/// what is listed; each that goes there changes the guard in the same write, so of two that counted the same one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct QuarantineGuard {
    /// Goes up with each write; 0 is a guard that was never written.
    pub version: u64,
    /// What went there of late, and when.
    pub recent: BTreeMap<SandboxId, Timestamp>,
}

impl QuarantineGuard {
    /// How many are in quarantine, when these are listed there.
    pub fn count(&self, listed: &BTreeSet<SandboxId>, now: Timestamp) -> u64 {
        let unseen = self.recent.iter().filter(|(id, at)| !listed.contains(id) && may_be_unseen(**at, now));
        (listed.len() + unseen.count()) as u64
    }

    /// The guard as it is written together with the quarantine of `id`.
    pub fn with(&self, id: &SandboxId, now: Timestamp) -> Self {
        let recent = self.recent.iter().filter(|(_, at)| may_be_unseen(**at, now));
        let recent = recent.map(|(id, at)| (id.clone(), *at)).chain([(id.clone(), now)]);
        Self { version: self.version + 1, recent: recent.collect() }
    }
}

/// Whether the index may not list yet what was written then; what a clock wrote that was wrong is older.
fn may_be_unseen(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= READ_LAG && !at.is_beyond(now, Duration::ZERO)
}

/// Whether nothing more may go into quarantine by itself, with so many of `live` sandboxes there already.
pub const fn is_full(quarantined: u64, live: u64) -> bool {
    room_from(quarantined) > live && quarantined > 0
}

/// How many sandboxes there must be for one more, with so many there already.
pub const fn room_from(quarantined: u64) -> u64 {
    (quarantined + 1) * ONE_IN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(one_line(" a\tb\r\nc\u{1b}[31m  d "), "a b c [31m d");
        assert_eq!(one_line(&"x".repeat(1_000)).len(), LONGEST_REASON);
        assert_eq!(reason("  does not start "), Some("does not start".to_owned()));
        for refused in ["", "  ", "a\nb", &"x".repeat(LONGEST_REASON + 1)] {
            assert_eq!(reason(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_fifth_may_go_there_by_itself_and_of_a_few_always_one() {
        assert!(!is_full(0, 1) && is_full(1, 1));
        assert!(!is_full(0, 4) && is_full(1, 9));
        assert!(!is_full(1, 10) && is_full(2, 10));
        assert!(!is_full(19, 100) && is_full(20, 100));
    }

    #[test]
    fn what_went_there_of_late_counts_until_the_index_surely_lists_it_and_never_twice() {
        let (at, id) = (Timestamp::from_secs, |n: u8| SandboxId::new(format!("s{n}")).unwrap());
        let first = QuarantineGuard::default().with(&id(1), at(100));
        let second = first.with(&id(2), at(110));
        assert_eq!((first.version, second.version, second.recent.len()), (1, 2, 2));
        let listed = |ids: &[u8]| ids.iter().map(|n| id(*n)).collect::<BTreeSet<_>>();
        assert_eq!(second.count(&listed(&[]), at(111)), 2);
        assert_eq!(second.count(&listed(&[1]), at(111)), 2, "listed and remembered is one");
        assert_eq!(second.count(&listed(&[3, 4]), at(111)), 4);
        // Let go since: after the lag it counts no more.
        assert_eq!((second.count(&listed(&[]), at(115)), second.count(&listed(&[]), at(116))), (2, 1));
        assert_eq!(second.with(&id(3), at(126)).recent.len(), 1, "what is old is forgotten");
        assert_eq!(second.count(&listed(&[]), at(5)), 0, "nor what a clock wrote that was ahead");
    }

    #[test]
    fn every_cause_reads_back_as_it_is_stored() {
        for cause in QuarantineCause::ALL {
            assert_eq!(QuarantineCause::from_stored(cause.as_str()), cause);
        }
        assert_eq!(QuarantineCause::from_stored("moon"), QuarantineCause::Unknown);
    }
}
