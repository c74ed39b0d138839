//! `Prefer` header, as far as the broker applies it (RFC 7240).
//!
//! A preference is never an error: an unknown or malformed one is ignored, and of a repeated one the first counts.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The preferences of a client, and whether it sent the header at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// The header was sent, whatever it says: the client knows RFC 7240, and so a 202.
    pub(crate) said: bool,
    /// `wait=N`: how long the client waits, in seconds.
    pub(crate) wait: Option<Duration>,
    /// `respond-async`: the client does not wait at all. It overrides a wait.
    pub(crate) respond_async: bool,
}

impl Preferences {
    /// The preferences of a request, from all its `Prefer` lines.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut preferences = Self { said: headers.contains_key(PREFER), ..Self::default() };
        for line in headers.get_all(PREFER) {
            split_unquoted(line.as_bytes(), b',').for_each(|preference| preferences.take(preference));
        }
        preferences
    }

    /// The same without `respond-async`, for routes that do not offer it.
    pub(crate) const fn without_async(self) -> Self {
        Self { respond_async: false, ..self }
    }

    fn take(&mut self, preference: &[u8]) {
        // Parameters follow after a semicolon; ours have none.
        let preference = split_unquoted(preference, b';').next().unwrap_or_default();
        let (name, value) = match preference.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&preference[..equals], unquoted(preference[equals + 1..].trim_ascii())),
            None => (preference, &b""[..]),
        };
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"respond-async") {
            self.respond_async = true;
        } else if name.eq_ignore_ascii_case(b"wait") && self.wait.is_none() {
            self.wait = seconds(value);
        }
    }
}

fn seconds(digits: &[u8]) -> Option<Duration> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    // More digits than fit are a very long wait, which is capped anyway.
    Some(Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// The parts of `text` between separators outside quotes.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        let ends = byte == separator && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(lines: &[&str]) -> Preferences {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_str(line).unwrap());
        }
        Preferences::of(&headers)
    }

    fn wait(seconds: u64) -> Preferences {
        Preferences { said: true, wait: Some(Duration::from_secs(seconds)), respond_async: false }
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        let told = [
            "wait=5",
            " wait = 5 ",
            "WAIT=5",
            "wait=\"5\"",
            "wait=5; foo=\"a,b\"",
            "handling=lenient, wait=5",
            "x=\"wait=9, \\\"wait=8\", wait=5",
            ",,wait=5,",
        ];
        for line in told {
            assert_eq!(parse(&[line]), wait(5), "{line}");
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(parse(&["wait=5, wait=6"]), wait(5));
        assert_eq!(parse(&["foo", "wait=7", "wait=8"]), wait(7));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for line in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=ten", "wait=+5", "waits=5", "\"wait=5"] {
            let said_nothing = Preferences { said: true, ..Preferences::default() };
            assert_eq!(parse(&[line]), said_nothing, "{line}");
        }
        assert_eq!(parse(&["wait=99999999999999999999"]).wait, Some(Duration::from_secs(u32::MAX.into())));
    }

    #[test]
    fn respond_async_is_understood_beside_a_wait() {
        assert_eq!(parse(&["respond-async, wait=10"]), Preferences { respond_async: true, ..wait(10) });
    }

    proptest! {
        #[test]
        fn any_header_value_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                Preferences::of(&HeaderMap::from_iter([(PREFER, value)]));
            }
        }

        #[test]
        fn a_wait_after_anything_well_formed_is_found(seconds in 0_u64..10_000, other in "[a-z]{1,8}(=\"[^\"\\\\[:cntrl:]]{0,8}\")?") {
            prop_assume!(!other.starts_with("wait") && !other.starts_with("respond") && other.is_ascii());
            prop_assert_eq!(parse(&[&format!("{other}, wait={seconds}")]), wait(seconds));
        }
    }
}
