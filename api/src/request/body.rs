//! Request bodies: bounded in size and time, then parsed for the route.

use std::fmt::Display;
use std::time::Duration;

use broker_domain::waiting::LONGEST_WAIT;
use broker_domain::{FlavourName, Heartbeat, LabDuration, RenewRequest, RenewUntil, Timestamp};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::limits::{BODY_BYTES, BODY_READ};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The body of a request.
pub(crate) async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    expect_no_coding(headers)?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_READ, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_broken)) => Err(Problem::invalid("The body broke off or is badly framed.")),
        Err(_elapsed) => Err(Problem::new(Code::RequestTimeout, "The body did not arrive in time.")),
    }
}

/// That the body is what it says: none is decompressed here (RFC 9110, 8.4, 15.5.16).
fn expect_no_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.into_iter().all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let problem = Problem::new(Code::UnsupportedMedia, "The body has a content coding. Send it without one.");
    Err(problem.with(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// A body without the byte order mark that some editors and runtimes write before UTF-8, and without white space around.
fn text(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

fn too_large() -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("The body is larger than {BODY_BYTES} bytes."))
}

/// The optional body of an allocate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "lab_duration_hours": 4 }]))]
pub(crate) struct AllocateBody {
    /// The flavour of the sandbox, as `X-Sandbox-Flavour` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^[a-z0-9_-]{1,64}$"))]
    pub(crate) flavour: Option<FlavourName>,
    /// How long the sandbox is wanted, in hours; the default is a setting of the broker, and so is the longest
    /// (`BROKER_LEASE_MAX_HOURS`), beyond which it is a 400.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lab_duration_hours")]
    #[schemars(with = "Option<u16>", range(min = LabDuration::SHORTEST.hours(), max = LabDuration::LONGEST.hours()))]
    pub(crate) lab_duration_hours: Option<LabDuration>,
    /// How often its owner will renew it, in seconds. The lease then lasts three heartbeats, without grace, and by heartbeats
    /// never longer than `lab_duration_hours` (the longest, if that is not said).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    #[schemars(with = "Option<u16>", range(min = Heartbeat::SHORTEST.seconds(), max = Heartbeat::LONGEST.seconds()))]
    pub(crate) heartbeat_s: Option<Heartbeat>,
    /// How long the request waits in a line if nothing is free, in seconds; 0, or without it, not at all. A repeat of a key may say
    /// another time.
    #[serde(default, skip_serializing, deserialize_with = "whole")]
    #[schemars(with = "Option<u32>", range(min = 0, max = 86_400))]
    pub(crate) max_wait_s: Option<MaxWait>,
}

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxWait(Duration);

impl MaxWait {
    /// The same as a duration, unless it is none.
    pub(crate) fn time(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl TryFrom<u64> for MaxWait {
    type Error = &'static str;

    fn try_from(seconds: u64) -> Result<Self, &'static str> {
        let wait = Duration::from_secs(seconds);
        if wait <= LONGEST_WAIT {
            Ok(Self(wait))
        } else {
            Err("max_wait_s must be a whole number from 0 to 86400")
        }
    }
}

/// The optional body of a report that a sandbox is broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportBody {
    /// What does not work, in the owner's words; one line is kept.
    #[serde(default)]
    #[schemars(length(max = 2_000))]
    pub(crate) reason: Option<String>,
}

impl ReportBody {
    /// From JSON; an empty body is the same as `{}`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        const LONGEST: usize = 2_000;
        if text(body).is_empty() {
            return Ok(Self::default());
        }
        let parsed: Self = object(body)?;
        if parsed.reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST) {
            return Err(Problem::invalid(format!("reason is longer than {LONGEST} characters.")));
        }
        Ok(parsed)
    }
}

/// The optional body of a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewBody {
    /// For how many hours from now.
    #[serde(default, deserialize_with = "renewed_hours")]
    #[schemars(with = "Option<u16>", range(min = LabDuration::SHORTEST.hours(), max = LabDuration::LONGEST.hours()))]
    pub(crate) hours: Option<LabDuration>,
    /// Until when, in seconds since the epoch.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(with = "Option<u64>", range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub(crate) until: Option<Instant>,
    /// Whether any other end than the wanted one is an error.
    #[serde(default)]
    pub(crate) exact: Option<bool>,
}

/// A second since the epoch that JSON carries exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant(Timestamp);

impl TryFrom<u64> for Instant {
    type Error = &'static str;

    fn try_from(second: u64) -> Result<Self, &'static str> {
        match second {
            0..=LARGEST_EXACT => Ok(Self(Timestamp::from_secs(second))),
            _ => Err("until must be a whole number of seconds since the epoch"),
        }
    }
}

/// The largest whole number that every reader of JSON reads as it was written: 2^53 - 1.
pub(super) const LARGEST_EXACT: u64 = (1 << 53) - 1;

impl RenewBody {
    /// From JSON; an empty body is the same as `{}`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        if text(body).is_empty() { Ok(Self::default()) } else { object(body) }
    }

    /// What it asks for.
    pub(crate) fn wanted(&self) -> Result<RenewRequest, Problem> {
        let until = match (self.hours, self.until) {
            (None, None) => RenewUntil::Again,
            (Some(hours), None) => RenewUntil::For(hours),
            (None, Some(Instant(until))) => RenewUntil::Until(until),
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("hours and until say the same thing: send one of them."));
            }
        };
        Ok(RenewRequest { until, exact: self.exact.unwrap_or(false) })
    }
}

fn lab_duration_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LabDuration>, D::Error> {
    hours(deserializer, "lab_duration_hours")
}

fn renewed_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LabDuration>, D::Error> {
    hours(deserializer, "hours")
}

/// The hours of the member `name`.
fn hours<'de, D: Deserializer<'de>>(deserializer: D, name: &str) -> Result<Option<LabDuration>, D::Error> {
    let hours = whole::<D, u64>(deserializer)?.map(LabDuration::new).transpose();
    hours.map_err(|_| D::Error::custom(format!("{name} must be a whole number from 1 to 168")))
}

/// A number, also written as `4.0`: JSON has no separate integers, and some clients write all numbers alike.
fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64, Error: Display>,
{
    let number = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64().unwrap_or_default(),
        Value::String(_) => {
            return Err(D::Error::custom("a number is expected, and it is written without quotes"));
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(D::Error::custom("a number is expected"));
        }
    };
    let is_whole = number.fract() == 0.0 && (0.0..=LARGEST_EXACT as f64).contains(&number);
    // No number of ours is as large.
    let number = if is_whole { number as u64 } else { u64::MAX };
    T::try_from(number).map(Some).map_err(D::Error::custom)
}

impl AllocateBody {
    /// From JSON; an empty body is the same as `{}`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        if text(body).is_empty() {
            return Ok(Self::default());
        }
        // serde_json reads a struct from an array, too.
        object(body)
    }

    /// The same text for all bodies with the same meaning, in each API process, whatever its configuration.
    pub(crate) fn canonical(&self) -> String {
        // A struct of numbers and texts cannot fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Refuses a body where none is expected. An empty object, which JSON clients like to send, is accepted.
pub(crate) fn expect_none(body: &[u8]) -> Result<(), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    if text(body).is_empty() || object::<Nothing>(body).is_ok() {
        Ok(())
    } else {
        Err(Problem::invalid("This request takes no body."))
    }
}

pub(super) fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = text(body);
    if body.first() != Some(&b'{') {
        return Err(Problem::invalid("The body is not a JSON object."));
    }
    // The error may quote the body, bounded: it goes back to its sender.
    serde_json::from_slice(body).map_err(|error| {
        let reason: String = error.to_string().chars().take(200).collect();
        Problem::invalid(format!("The body is not valid: {reason}."))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_absent_body_is_the_empty_object() {
        for body in ["", "  \r\n", "{}", " { } ", "\u{feff}", "\u{feff}{}", "\u{feff} \n"] {
            assert_eq!(AllocateBody::parse(body.as_bytes()).unwrap(), AllocateBody::default(), "{body:?}");
        }
    }

    #[test]
    fn bodies_that_mean_the_same_are_canonically_the_same() {
        let canonical = |body: &str| AllocateBody::parse(body.as_bytes()).unwrap().canonical();
        assert_eq!(canonical(r#"{"lab_duration_hours":5}"#), canonical(" {\n\"lab_duration_hours\" : 5 }"));
        assert_eq!(canonical(""), canonical("{}"));
        assert_eq!(canonical(r#"{"lab_duration_hours":5}"#), canonical(r#"{"lab_duration_hours":5.0}"#));
        assert_eq!(canonical(r#"{"lab_duration_hours":5}"#), canonical(r#"{"lab_duration_hours":0.5e1}"#));
        assert_eq!(canonical("{}"), canonical(r#"{"lab_duration_hours":null}"#));
        assert_ne!(canonical(""), canonical(r#"{"lab_duration_hours":5}"#));
    }

    #[test]
    fn a_renewal_says_for_how_long_or_until_when_or_neither() {
        let wanted = |body: &str| RenewBody::parse(body.as_bytes()).and_then(|body| body.wanted());
        let of = |until, exact| RenewRequest { until, exact };
        assert_eq!(wanted("").unwrap(), of(RenewUntil::Again, false));
        assert_eq!(wanted("{}").unwrap(), of(RenewUntil::Again, false));
        let two = LabDuration::new(2).unwrap();
        assert_eq!(wanted(r#"{"hours":2.0,"exact":true}"#).unwrap(), of(RenewUntil::For(two), true));
        let until = RenewUntil::Until(Timestamp::from_secs(1_795_378_100));
        assert_eq!(wanted(r#"{"until":1795378100,"hours":null}"#).unwrap(), of(until, false));
        let bad = [
            r#"{"hours":0}"#,
            r#"{"hours":169}"#,
            r#"{"hours":"2"}"#,
            r#"{"hours":2,"until":1795378100}"#,
            r#"{"until":-1}"#,
            r#"{"until":1795378100.5}"#,
            r#"{"until":9007199254740993}"#,
            r#"{"until":"2026-11-28T12:00:00Z"}"#,
            r#"{"exact":1}"#,
            r#"{"minutes":1}"#,
            "[]",
            "2",
        ];
        for body in bad {
            assert_eq!(wanted(body).unwrap_err().code(), Code::ValidationError, "{body}");
        }
    }

    #[test]
    fn a_wrong_number_of_hours_is_told_by_the_name_of_its_member() {
        for wrong in ["0", "169", "-1", "4.5"] {
            let renewal = RenewBody::parse(format!("{{\"hours\":{wrong}}}").as_bytes()).unwrap_err();
            let told = renewal.message();
            assert!(told.contains("hours must be") && !told.contains("lab_duration_hours"), "{told}");
            let body = format!("{{\"lab_duration_hours\":{wrong}}}");
            let allocate = AllocateBody::parse(body.as_bytes()).unwrap_err();
            assert!(allocate.message().contains("lab_duration_hours must be"), "{}", allocate.message());
        }
    }

    #[test]
    fn a_heartbeat_is_half_a_minute_to_an_hour() {
        let heartbeat = |body: &str| AllocateBody::parse(body.as_bytes()).map(|body| body.heartbeat_s);
        assert_eq!(heartbeat(r#"{"heartbeat_s":60.0}"#).unwrap(), Some(Heartbeat::new(60).unwrap()));
        assert_eq!(heartbeat("{}").unwrap(), None);
        for wrong in ["29", "3601", "-60", "60.5", "\"60\"", "true", "1e99"] {
            assert!(heartbeat(&format!("{{\"heartbeat_s\":{wrong}}}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad = [
            r#"{"lab_duration_hours":0}"#,
            r#"{"lab_duration_hours":169}"#,
            r#"{"lab_duration_hours":-1}"#,
            r#"{"lab_duration_hours":1e99}"#,
            r#"{"lab_duration_hours":65537}"#,
            r#"{"lab_duration_hours":4.5}"#,
            r#"{"lab_duration_hours":"4"}"#,
            r#"{"lab_duration_hours":4,"lab_duration_hours":5}"#,
            r#"{"lab_duration_hours":4,"x":1}"#,
            r#"{"x":1}"#,
            "[4]",
            "[]",
            "null",
            "4",
            "{",
            "{} {}",
            "lab_duration_hours=4",
            "\u{0}",
        ];
        for body in bad {
            let problem = AllocateBody::parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), Code::ValidationError, "{body}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_taken_once_and_at_the_beginning_only() {
        let hours = |body: &str| AllocateBody::parse(body.as_bytes()).map(|body| body.lab_duration_hours);
        assert_eq!(hours("\u{feff}{\"lab_duration_hours\":5}").unwrap(), Some(LabDuration::new(5).unwrap()));
        assert!(hours("\u{feff}\u{feff}{}").is_err() && hours("{\u{feff}}").is_err());
        assert!(expect_none("\u{feff}".as_bytes()).is_ok() && expect_none("\u{feff}{}".as_bytes()).is_ok());
    }

    #[test]
    fn a_number_of_another_type_is_told_in_words() {
        let told = |value: &str| {
            let body = format!("{{\"lab_duration_hours\":{value}}}");
            format!("{:?}", AllocateBody::parse(body.as_bytes()).unwrap_err())
        };
        assert!(told("\"4\"").contains("without quotes"), "{}", told("\"4\""));
        for value in ["true", "[4]", "{}"] {
            assert!(told(value).contains("a number is expected"), "{}", told(value));
        }
        assert!(["\"4\"", "true", "4.5"].iter().all(|value| !told(value).contains("f64")));
    }

    #[test]
    fn a_content_coding_is_refused_with_what_is_taken() {
        let coded = |codings: &[&str]| {
            let pairs = codings
                .iter()
                .map(|coding| (header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap()));
            expect_no_coding(&pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }))
        };
        assert!(coded(&[]).is_ok() && coded(&["Identity"]).is_ok());
        for codings in [&["gzip"][..], &["br"], &["identity", "gzip"], &["identity, gzip"], &["x"]] {
            assert_eq!(coded(codings).unwrap_err().code(), Code::UnsupportedMedia, "{codings:?}");
        }
    }

    #[test]
    fn where_no_body_belongs_only_nothing_is_taken() {
        assert!(expect_none(b"").is_ok() && expect_none(b"{}").is_ok());
        for body in [&b"{\"a\":1}"[..], b"[]", b"x", b"null"] {
            assert!(expect_none(body).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_either_valid_or_a_400(body in prop::collection::vec(any::<u8>(), 0..200)) {
            match AllocateBody::parse(&body) {
                Ok(parsed) => prop_assert!(parsed.lab_duration_hours.is_none_or(|lent| (1..=168).contains(&lent.hours()))),
                Err(problem) => prop_assert_eq!(problem.code(), Code::ValidationError),
            }
        }
    }
}
