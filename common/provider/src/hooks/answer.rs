//! Meaning of a hook's answer.
//!
//! | it answers | it says |
//! |---|---|
//! | 2xx | yes |
//! | 429 | later: after its `Retry-After`, or five seconds |
//! | 408, 421, 425 | nothing about the question: failed |
//! | other 4xx | no, for the reason in its body |
//! | 3xx, 5xx, anything else, nothing | failed |

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::super::rest::PAUSE;

/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

/// What a hook answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    /// Yes.
    Yes {
        /// The status code.
        status: u16,
    },
    /// No.
    No {
        /// The status code.
        status: u16,
        /// Why, in its own words; without any, the status.
        reason: String,
    },
    /// It asks to be asked again later.
    Later {
        /// After how long.
        again_after: Duration,
    },
    /// It failed: no answer, or one that says nothing.
    Failed {
        /// The status code, if there was one.
        status: Option<u16>,
        /// What went wrong.
        problem: String,
    },
    /// It failed too often of late and was not asked.
    NotAsked {
        /// How long until the next call.
        again_after: Duration,
        /// The last failure.
        why: String,
    },
}

impl HookAnswer {
    /// Its word in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Yes { .. } => "yes",
            Self::No { .. } => "no",
            Self::Later { .. } => "later",
            Self::Failed { .. } => "failed",
            Self::NotAsked { .. } => "breaker_open",
        }
    }

    /// The status code, if there was an answer.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Yes { status } | Self::No { status, .. } => Some(*status),
            Self::Later { .. } => Some(429),
            Self::Failed { status, .. } => *status,
            Self::NotAsked { .. } => None,
        }
    }

    /// Why it is not yes, for people.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Yes { .. } => None,
            Self::No { reason, .. } => Some(reason.clone()),
            Self::Later { again_after } => {
                Some(format!("it asks to come again in {} s", again_after.as_secs()))
            }
            Self::Failed { problem, .. } => Some(problem.clone()),
            Self::NotAsked { why, .. } => Some(why.clone()),
        }
    }

    /// No usable answer came.
    pub(super) const fn failed(problem: String) -> Self {
        Self::Failed { status: None, problem }
    }

    /// What an answer says; `body` is `None` if it is too large.
    pub(super) fn of(status: StatusCode, retry_after: Option<Duration>, body: Option<&[u8]>) -> Self {
        let number = status.as_u16();
        let failed = |problem: String| Self::Failed { status: Some(number), problem };
        let with_reason = || match reason(body.unwrap_or_default()) {
            Some(reason) => format!("status {number}: {reason}"),
            None => format!("status {number}"),
        };
        match number {
            200..=299 => Self::Yes { status: number },
            300..=399 => failed(format!("status {number}: redirects are not followed")),
            429 => Self::Later { again_after: retry_after.unwrap_or(PAUSE) },
            408 | 421 | 425 => failed(with_reason()),
            400..=499 => {
                let reason = reason(body.unwrap_or_default()).unwrap_or_else(|| format!("status {number}"));
                Self::No { status: number, reason }
            }
            _ => failed(with_reason()),
        }
    }
}

/// The words of a body: the `reason`, `detail`, `message` or `title` of a JSON object, else the text; without control
/// characters, in one line.
fn reason(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(members)) => {
            let named = ["reason", "detail", "message", "title"].iter().find_map(|name| members.get(*name));
            named.and_then(Value::as_str).map(str::to_owned)
        }
        Ok(Value::String(said)) => Some(said),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | Err(_) => None,
    };
    let said = said.unwrap_or_else(|| text.into_owned());
    // Marks that turn the direction of a line are as bad in a terminal as control characters.
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let plain: String =
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|&c| !hidden(c)).collect();
    let words: String = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = words.chars().take(LONGEST_REASON).collect();
    (!short.is_empty()).then_some(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> HookAnswer {
        HookAnswer::of(StatusCode::from_u16(status).unwrap(), None, Some(body.as_bytes()))
    }

    #[test]
    fn every_status_is_yes_no_later_or_a_failure() {
        for status in 100..=999 {
            let expected = match status {
                200..=299 => "yes",
                429 => "later",
                408 | 421 | 425 => "failed",
                400..=499 => "no",
                _ => "failed",
            };
            assert_eq!(of(status, "").as_str(), expected, "{status}");
        }
        let later = HookAnswer::of(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(7)), None);
        assert_eq!(later, HookAnswer::Later { again_after: Duration::from_secs(7) });
        assert_eq!(of(429, ""), HookAnswer::Later { again_after: PAUSE });
    }

    #[test]
    fn a_reason_is_the_hooks_own_words_in_one_bounded_line() {
        let said = |body: &str| {
            let HookAnswer::No { reason, .. } = of(422, body) else { panic!("{body}") };
            reason
        };
        assert_eq!(said("billing is off"), "billing is off");
        assert_eq!(said(r#"{"reason": "billing is off", "detail": "x"}"#), "billing is off");
        assert_eq!(said(r#"{"title": "Bad", "detail": "billing is off"}"#), "billing is off");
        assert_eq!(said(r#""billing is off""#), "billing is off");
        assert_eq!(said(r#"{"code": 7}"#), r#"{"code": 7}"#);
        assert_eq!(said(""), "status 422");
        assert_eq!(said(" \u{1b}[31mred\r\n\0 \u{202e}txt\u{7f} "), "[31mred txt");
        assert_eq!(said(&"ä".repeat(1_000)).chars().count(), LONGEST_REASON);
        assert_eq!(said(&"9".repeat(1_000)).chars().count(), LONGEST_REASON, "a number that is no number");
        assert!(
            matches!(of(500, "down"), HookAnswer::Failed { status: Some(500), problem } if problem == "status 500: down")
        );
    }
}
