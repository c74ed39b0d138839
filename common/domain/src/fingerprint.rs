//! Fingerprint of a request: the digest that tells two uses of one idempotency key apart.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// A digest of what a request asks for: method, route, track name, prefix and canonical body.
///
/// Two requests with one explicit key and different fingerprints are a mistake of the client (422). The value is the
/// first 16 bytes of SHA-256 in hex: it is compared, never reversed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(#[serde(deserialize_with = "bounded")] String);

/// The longest that a message may carry, in bytes: a whole SHA-256 in hex.
const LONGEST: usize = 64;

/// The value for an unknown request; no digest looks like it.
const UNKNOWN: &str = "unknown";

/// A fingerprint as a message carries it: letters and digits, not too many.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then_some(text)
        .ok_or_else(|| D::Error::custom(format!("a fingerprint has 1 to {LONGEST} letters and digits")))
}

impl Fingerprint {
    /// The digest of `parts`, in order. Parts are length-prefixed, so that no two lists of parts collide by gluing.
    pub fn of<'a>(parts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            match part {
                Some(text) => {
                    digest.update((text.len() as u64 + 1).to_be_bytes());
                    digest.update(text.as_bytes());
                }
                None => digest.update(0_u64.to_be_bytes()),
            }
        }
        Self(hex::encode(&digest.finalize()[..16]))
    }

    /// The fingerprint of an unknown request: of a lease adopted from another tool.
    pub fn unknown() -> Self {
        Self(UNKNOWN.to_owned())
    }

    /// Whether the two are certainly of different requests; an unknown one differs from none.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        self != other && self.0 != UNKNOWN && other.0 != UNKNOWN
    }

    /// From the stored text.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_remembers_contradicts_nothing() {
        let (a, b, unknown) =
            (Fingerprint::of([Some("a")]), Fingerprint::of([Some("b")]), Fingerprint::unknown());
        assert!(a.contradicts(&b) && !a.contradicts(&a));
        assert!(!a.contradicts(&unknown) && !unknown.contradicts(&a) && !unknown.contradicts(&unknown));
    }

    #[test]
    fn only_short_letters_and_digits_are_read_as_a_fingerprint() {
        let read = |text: &str| serde_json::from_value::<Fingerprint>(text.into());
        for ours in [Fingerprint::of([Some("a")]), Fingerprint::unknown(), Fingerprint("a".repeat(LONGEST))] {
            assert_eq!(read(ours.as_str()).unwrap(), ours);
        }
        for wrong in ["", "a b", "\u{e4}", &"a".repeat(LONGEST + 1)] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moving_text_between_parts_changes_the_digest() {
        let a = Fingerprint::of([Some("ab"), Some("c")]);
        assert_ne!(a, Fingerprint::of([Some("a"), Some("bc")]));
        assert_ne!(Fingerprint::of([Some(""), None]), Fingerprint::of([None, Some("")]));
        assert_eq!(a, Fingerprint::of([Some("ab"), Some("c")]));
        assert_eq!((a.to_string().as_str(), a.as_str().len()), (a.as_str(), 32));
    }
}
