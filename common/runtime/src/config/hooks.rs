//! Secrets that sign what hooks are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// The lengths that Standard Webhooks allows, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret of Standard Webhooks: `whsec_` and 24 to 64 bytes as base64. Never shown.
#[derive(Clone, Debug)]
pub struct HookSecret(SecretString);

impl HookSecret {
    /// Parses a secret. The error does not show it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}"))?;
        let bytes = STANDARD.decode(encoded).map_err(|_| format!("has no base64 behind {PREFIX}"))?;
        if !BYTES.contains(&bytes.len()) {
            let (from, to) = (BYTES.start(), BYTES.end());
            return Err(format!("has {} bytes, not {from} to {to}", bytes.len()));
        }
        Ok(Self(SecretString::from(encoded)))
    }

    /// Parses secrets separated by commas or newlines.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        let parse = |(position, entry)| Self::parse(entry).map_err(|why| format!("secret {position} {why}"));
        (1..).zip(entries).map(parse).collect()
    }

    /// The text of a secret with the key `bytes`.
    pub fn text_of(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(bytes))
    }

    /// Its text, for a process that is started with it.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", self.0.expose_secret())
    }

    /// The key, for signing.
    pub fn key(&self) -> Vec<u8> {
        STANDARD.decode(self.0.expose_secret()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_never_shown() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let two = format!("whsec_{}", STANDARD.encode([7; 64]));
        let secrets = HookSecret::parse_all(&format!("{one}, {two}\n")).unwrap();
        assert_eq!((secrets.len(), secrets[0].key().len(), secrets[1].key()), (2, 24, vec![7; 64]));
        assert_eq!((secrets[0].expose().as_str(), secrets[1].expose()), (one, HookSecret::text_of(&[7; 64])));
        assert!(!format!("{secrets:?}").contains("MfKQ9r8G"));
        assert!(HookSecret::parse_all("").unwrap().is_empty());
        let short = format!("{one},whsec_{}", STANDARD.encode([7; 23]));
        assert_eq!(HookSecret::parse_all(&short).unwrap_err(), "secret 2 has 23 bytes, not 24 to 64");
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_hunter2!", &long] {
            let error = HookSecret::parse_all(bad).unwrap_err();
            assert!(error.starts_with("secret 1 ") && !error.contains("hunter2"), "{error}");
        }
    }
}
