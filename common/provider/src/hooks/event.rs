//! Events that hooks are sent: `{"type", "timestamp", "data"}`, as Standard Webhooks recommends.

use aws_smithy_types::date_time::{DateTime, Format};
use serde_json::{Value, json};

use broker_domain::Timestamp;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A new sandbox: may it be offered?
    Check,
    /// A sandbox that is to be deleted at the provider.
    BeforeDelete,
    /// One more sandbox is needed.
    RefillRequested,
    /// A test that an operator sends; nothing depends on the answer.
    Test,
}

impl HookKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Check, Self::BeforeDelete, Self::RefillRequested, Self::Test];

    /// Its `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "sandbox.check",
            Self::BeforeDelete => "sandbox.before_delete",
            Self::RefillRequested => "refill.requested",
            Self::Test => "hook.test",
        }
    }
}

/// An event for a hook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookEvent {
    /// The `webhook-id`, visible ASCII: the same whenever the same question is asked again.
    pub id: String,
    /// Its kind.
    pub kind: HookKind,
    /// The time of what it tells.
    pub at: Timestamp,
    /// What it tells.
    pub data: Value,
}

impl HookEvent {
    pub(super) fn body(&self) -> String {
        let at = DateTime::from_millis(i64::try_from(self.at.as_ms()).unwrap_or(i64::MAX));
        // A year beyond 9999 has no such text.
        let timestamp = at.fmt(Format::DateTime).unwrap_or_default();
        json!({ "type": self.kind.as_str(), "timestamp": timestamp, "data": self.data }).to_string()
    }
}
