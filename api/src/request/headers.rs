//! Request headers: owner, lab, name prefix, flavour, idempotency key.
//!
//! Invariant: a header that counts occurs at most once and becomes a checked id, or the request is a 400 that names it; no
//! value is ever repeated in a response. The names are those that clients of such brokers already send.

use broker_domain::{FlavourName, IdempotencyKey, InvalidId, NamePrefix, TrackId, TrackName};
use http::Version;
use http::header::{self, HeaderMap};
use http::request::Parts;

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The owner.
const OWNER: &str = "x-instruqt-sandbox-id";
/// The owner, by the older name; read where the other is missing.
const OLDER_OWNER: &str = "x-track-id";
const LAB: &str = "x-instruqt-track-id";
const PREFIX: &str = "x-sandbox-name-prefix";
const FLAVOUR: &str = "x-sandbox-flavour";
const KEY: &str = "idempotency-key";

/// The owner of the request.
pub(crate) fn owner(headers: &HeaderMap) -> Result<TrackId, Problem> {
    // Both are read, so that a repeated header is refused whichever it is.
    let (newer, older) = (single(headers, OWNER)?, single(headers, OLDER_OWNER)?);
    let (name, owner) = match (newer, older) {
        (Some(owner), _) => (OWNER, owner),
        (None, Some(owner)) => (OLDER_OWNER, owner),
        (None, None) => {
            return Err(Problem::new(
                Code::MissingSandboxId,
                "X-Instruqt-Sandbox-ID (or X-Track-ID) is missing.",
            ));
        }
    };
    TrackId::new(owner).map_err(|error| wrong(name, &error))
}

/// The lab, which is stored as the track name.
pub(crate) fn track_name(headers: &HeaderMap) -> Result<Option<TrackName>, Problem> {
    optional(headers, LAB, |value| TrackName::new(value))
}

/// The prefix that the sandbox's name must have.
pub(crate) fn name_prefix(headers: &HeaderMap) -> Result<Option<NamePrefix>, Problem> {
    optional(headers, PREFIX, |value| NamePrefix::new(value))
}

/// The flavour, if the request names one here.
pub(crate) fn flavour(headers: &HeaderMap) -> Result<Option<FlavourName>, Problem> {
    optional(headers, FLAVOUR, |value| FlavourName::new(value))
}

/// The idempotency key, if the client chose one. The draft quotes it (a structured field string), many clients do not.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    optional(headers, KEY, |value| {
        let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        IdempotencyKey::new(bare.unwrap_or(value))
    })
}

/// Checks that the request names its host, once (RFC 9112, 3.2).
pub(crate) fn check_host(head: &Parts) -> Result<(), Problem> {
    match single(&head.headers, header::HOST.as_str())? {
        None if head.version == Version::HTTP_11 => Err(Problem::invalid("host is missing.")),
        Some(_) | None => Ok(()),
    }
}

fn optional<T>(
    headers: &HeaderMap,
    name: &'static str,
    read: impl Fn(&str) -> Result<T, InvalidId>,
) -> Result<Option<T>, Problem> {
    let value = single(headers, name)?;
    value.map(|value| read(value).map_err(|error| wrong(name, &error))).transpose()
}

/// The one value of a header. Two are refused: choosing one would be a guess.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::invalid(format!("{name} is repeated.")));
    }
    let not_text = |_| Problem::invalid(format!("{name} is not UTF-8 text."));
    first.map(|value| std::str::from_utf8(value.as_bytes()).map_err(not_text)).transpose()
}

fn wrong(name: &str, error: &InvalidId) -> Problem {
    Problem::invalid(format!("{name}: {error}."))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_newer_owner_header_wins_and_the_older_one_still_counts() {
        assert_eq!(owner(&headers(&[(OWNER, b"new"), (OLDER_OWNER, b"old")])).unwrap().as_str(), "new");
        assert_eq!(owner(&headers(&[(OLDER_OWNER, b"old")])).unwrap().as_str(), "old");
        assert_eq!(owner(&headers(&[])).unwrap_err().code(), Code::MissingSandboxId);
    }

    #[test]
    fn a_wrong_owner_is_never_replaced_by_the_older_header() {
        let long = [b'a'; 129];
        for bad in [&b""[..], b"a b", b"a/b", b"\xff\xfe", &long] {
            let problem = owner(&headers(&[(OWNER, bad), (OLDER_OWNER, b"good")])).unwrap_err();
            assert_eq!(problem.code(), Code::ValidationError);
        }
    }

    #[test]
    fn two_values_of_a_header_are_refused() {
        assert!(owner(&headers(&[(OWNER, b"a"), (OWNER, b"a")])).is_err());
        assert!(owner(&headers(&[(OWNER, b"a"), (OLDER_OWNER, b"b"), (OLDER_OWNER, b"c")])).is_err());
        assert!(idempotency_key(&headers(&[(KEY, b"a"), (KEY, b"b")])).is_err());
        assert!(track_name(&headers(&[(LAB, b"a"), (LAB, b"b")])).is_err());
    }

    #[test]
    fn a_key_may_be_quoted_or_not() {
        let key = |value: &'static [u8]| idempotency_key(&headers(&[(KEY, value)])).map(|key| key.unwrap());
        assert_eq!(key(b"abc").unwrap(), key(b"\"abc\"").unwrap());
        for bad in [&b"\"abc"[..], b"abc\"", b"\"\"", b"", b"\"", b"\"\"a\"\"", b"a b"] {
            assert!(key(bad).is_err(), "{bad:?}");
        }
        assert_eq!(idempotency_key(&headers(&[])).unwrap(), None);
    }

    #[test]
    fn a_prefix_may_be_any_printable_text() {
        let prefix = name_prefix(&headers(&[(PREFIX, "Müller lab".as_bytes())])).unwrap().unwrap();
        assert_eq!(prefix.as_str(), "Müller lab");
    }

    proptest! {
        #[test]
        fn no_value_is_repeated_in_a_problem(value in "[!-~]{130,140}") {
            let problem = owner(&HeaderMap::from_iter([(HeaderName::from_static(OWNER), HeaderValue::from_str(&value).unwrap())]));
            let told = format!("{:?}", problem.unwrap_err());
            prop_assert!(!told.contains(&value), "{}", told);
        }
    }
}
