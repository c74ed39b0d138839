//! Accounts of the provider: their ids, and the times in which they are written.

use std::fmt;

use aws_smithy_types::date_time::{DateTime, Format};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use broker_domain::{ExternalId, ProviderAttributes, SandboxId, SandboxName, Timestamp};

/// The prefix of external ids.
const PREFIX: &str = "identity/accounts/";

/// The longest id of an account that is no UUID, in bytes.
const LONGEST_NAME: usize = 64;

/// The provider's own id of an account: the end of an external id, which alone may become part of a URL. The provider's
/// are UUIDs; the rows that a tool made for load tests have names (`load-test-0001`), and the provider's 404 for one of
/// them says the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId(Spelling);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Spelling {
    Uuid(Uuid),
    Name { bytes: [u8; LONGEST_NAME], len: usize },
}

impl AccountId {
    /// From an external id `identity/accounts/{id}`, whose id is one segment of a path and needs no escape; any other is
    /// none, and its 404 would prove nothing.
    pub fn of(external_id: &ExternalId) -> Option<Self> {
        let id = external_id.as_str().strip_prefix(PREFIX)?;
        if let Ok(uuid) = Uuid::try_parse(id) {
            return Some(Self(Spelling::Uuid(uuid)));
        }
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        // Dots alone are another path.
        let is_named = id.bytes().any(|byte| byte != b'.');
        let mut bytes = [0; LONGEST_NAME];
        bytes.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        (is_plain && is_named).then_some(Self(Spelling::Name { bytes, len: id.len() }))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Spelling::Uuid(uuid) => uuid.as_hyphenated().fmt(f),
            Spelling::Name { bytes, len } => {
                f.write_str(bytes.get(..*len).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default())
            }
        }
    }
}

/// An active sandbox account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The provider's `csp_id`.
    pub id: SandboxId,
    /// Its name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// When the provider created it, if the list says so.
    pub created_at: Option<Timestamp>,
    /// Its attributes, if they are kept and could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<ProviderAttributes>,
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
    fn only_an_external_id_with_one_plain_segment_names_an_account() {
        let id = |text: &str| AccountId::of(&ExternalId::new(text).unwrap()).map(|id| id.to_string());
        let uuid = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(id(&format!("identity/accounts/{uuid}")).as_deref(), Some(uuid));
        assert_eq!(id("identity/accounts/load-test-0001").as_deref(), Some("load-test-0001"));
        let long = format!("identity/accounts/{}", "x".repeat(LONGEST_NAME + 1));
        let bad = ["", "..", ".", "../x", "a/b", "a b", "a%2Fb", "a?b", "a#b", "ä"];
        let bad = bad.map(|id| format!("identity/accounts/{id}"));
        for bad in bad.iter().map(String::as_str).chain([uuid, "accounts/load-test-0001", &long]) {
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
        fn what_goes_into_a_url_is_one_plain_segment_whatever_the_provider_says(text in "(identity/accounts/)?([{]?[0-9a-fA-F-]{30,40}[}]?|[a-z./%?#-]{1,12}|\\PC{1,40})") {
            if let Some(id) = ExternalId::new(text).ok().and_then(|id| AccountId::of(&id)) {
                let shown = id.to_string();
                prop_assert!(!shown.is_empty() && shown.bytes().any(|c| c != b'.'), "{shown}");
                prop_assert!(shown.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c)), "{shown}");
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
