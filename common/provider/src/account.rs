//! Accounts of the provider: their ids, and the times in which they are written.

use std::fmt;

use aws_smithy_types::date_time::{DateTime, Format};
use uuid::Uuid;

use broker_domain::{ExternalId, SandboxId, SandboxName, Timestamp};

/// The prefix of external ids.
const PREFIX: &str = "identity/accounts/";

/// The provider's id of an account: the end of an external id, and the only part that may become part of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId(Uuid);

impl AccountId {
    /// From an external id `identity/accounts/{uuid}`; `None` for any other, whose 404 would prove nothing.
    pub fn of(external_id: &ExternalId) -> Option<Self> {
        Uuid::try_parse(external_id.as_str().strip_prefix(PREFIX)?).ok().map(Self)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// An active sandbox account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The provider's `csp_id`.
    pub id: SandboxId,
    /// Its name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// When the provider created it, if the list says so.
    pub created_at: Option<Timestamp>,
}

/// ISO 8601 with a zone; without one, UTC. A blank may stand for the `T`, and the time may be missing.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = match text.split_once(' ') {
        Some((date, time)) => format!("{date}T{time}"),
        None if text.len() == "2026-11-22".len() => format!("{text}T00:00:00Z"),
        None => text.to_owned(),
    };
    let parse = |text: &str| DateTime::from_str(text, Format::DateTimeWithOffset).ok();
    let parsed = parse(&text).or_else(|| parse(&format!("{text}Z")))?;
    u64::try_from(parsed.to_millis().ok()?).ok().map(Timestamp::from_ms)
}

/// Seconds since the epoch, or milliseconds where seconds would be a year beyond 5138.
pub(super) fn time_of_number(number: u64) -> Option<Timestamp> {
    const MOST_SECONDS: u64 = 100_000_000_000;
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    let ms = if number < MOST_SECONDS { number * 1_000 } else { number };
    (ms < YEAR_10000_MS).then(|| Timestamp::from_ms(ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_external_id_with_a_uuid_names_an_account() {
        let id = |text: &str| AccountId::of(&ExternalId::new(text).unwrap()).map(|id| id.to_string());
        let uuid = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(id(&format!("identity/accounts/{uuid}")).as_deref(), Some(uuid));
        for bad in ["identity/accounts/", "identity/accounts/../x", uuid, "identity/accounts/seed-1"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_is_read_in_the_ways_in_which_it_is_written() {
        let at = parse_time("2026-11-22T10:00:00Z");
        assert!(at.is_some());
        assert_eq!(parse_time(" 2026-11-22 10:00:00 "), at);
        assert_eq!(parse_time("2026-11-22 11:00:00+01:00"), at);
        assert_eq!(parse_time("2026-11-22"), parse_time("2026-11-22T00:00:00Z"));
        let seconds = at.unwrap().as_secs();
        assert_eq!((time_of_number(seconds), time_of_number(seconds * 1_000)), (at, at));
        assert_eq!(time_of_number(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn what_goes_into_a_url_is_a_uuid_whatever_the_provider_says(text in "(identity/accounts/)?[{]?[0-9a-fA-F-]{30,40}[}]?|\\PC{1,40}") {
            if let Some(id) = ExternalId::new(text).ok().and_then(|id| AccountId::of(&id)) {
                let shown = id.to_string();
                prop_assert_eq!(shown.len(), 36);
                prop_assert!(shown.bytes().all(|c| c == b'-' || c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{shown}");
            }
        }

        #[test]
        fn times_are_read_to_the_millisecond_in_any_zone(ms in 0_i64..4_102_444_800_000, hours in -14_i64..=14) {
            let at = Timestamp::from_ms(u64::try_from(ms).unwrap());
            let write = |ms: i64| DateTime::from_millis(ms).fmt(Format::DateTime).unwrap();
            prop_assert_eq!(parse_time(&write(ms)), Some(at));
            prop_assert_eq!(parse_time(write(ms).trim_end_matches('Z')), Some(at), "without a zone it is UTC");
            let there = write(ms + hours * 3_600_000);
            let zone = format!("{}{:+03}:00", there.trim_end_matches('Z'), hours);
            if ms + hours * 3_600_000 >= 0 {
                prop_assert_eq!(parse_time(&zone), Some(at), "{}", zone);
            }
        }

        #[test]
        fn a_time_that_is_none_is_none(text in "\\PC{0,30}|[0-9T:Z+. -]{0,30}") {
            if let Some(at) = parse_time(&text) {
                prop_assert!(at.as_ms() < 253_402_300_800_000, "within four digits of a year");
            }
        }
    }
}
