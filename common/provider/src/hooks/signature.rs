//! Signatures of Standard Webhooks: HMAC-SHA256 over `{id}.{seconds}.{body}`, one for each secret.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderName;
use sha2::Sha256;

use broker_runtime::config::HookSecret;

/// The id of the event.
pub(super) const ID: HeaderName = HeaderName::from_static("webhook-id");
/// The time of the attempt, in seconds.
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures, separated by spaces.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The value of `webhook-signature`.
pub(super) fn sign(secrets: &[HookSecret], id: &str, seconds: u64, body: &str) -> String {
    let signatures = secrets.iter().filter_map(|secret| {
        // A key of any length is one; the `Result` is the trait's.
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.key()).ok()?;
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signatures.collect::<Vec<_>>().join(" ")
}
