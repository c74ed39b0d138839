//! The account at the provider that a sandbox stands for. `sandbox_id` is only its label.
//!
//! Invariant: two external ids have one [`AccountKey`] if and only if they name one account. An account is in one
//! sandbox's record at most, live or dead; its own record ([`AccountRecord`]) says in which.

use std::fmt;

use uuid::Uuid;

use super::{ExternalId, SandboxId};

/// An external id, written in one way: UUIDs have many spellings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey(String);

impl AccountKey {
    /// The account that `external_id` names. Where it ends in a UUID, case and hyphens do not matter.
    pub fn of(external_id: &ExternalId) -> Self {
        let text = external_id.as_str();
        let at = text.rfind('/').map_or(0, |slash| slash + 1);
        let (head, tail) = text.split_at(at);
        Self(Uuid::try_parse(tail).map_or_else(
            |_| text.to_owned(),
            |uuid| format!("{}{}", head.to_ascii_lowercase(), uuid.as_hyphenated()),
        ))
    }

    /// As it is stored; `None` if no external id is written so.
    pub fn from_stored(text: &str) -> Option<Self> {
        let key = Self::of(&ExternalId::new(text).ok()?);
        (key.0 == text).then_some(key)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which sandbox has an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub key: AccountKey,
    /// The sandbox that has it, or had it last.
    pub holder: SandboxId,
    /// Whether it was handed out, is gone, and the holder's record is another account's by now: no sandbox may have it.
    pub retired: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AccountKey {
        AccountKey::of(&ExternalId::new(text).unwrap())
    }

    #[test]
    fn one_account_has_one_key_however_its_uuid_is_written() {
        let uuid = "0192f0c1-2345-7abc-8def-0123456789ab";
        let one = key(&format!("identity/accounts/{uuid}"));
        assert_eq!(one.as_str(), format!("identity/accounts/{uuid}"));
        let simple = uuid.replace('-', "");
        for other in [uuid.to_uppercase(), simple.clone(), simple.to_uppercase(), format!("{{{uuid}}}")] {
            assert_eq!(key(&format!("identity/accounts/{other}")), one, "{other}");
        }
        assert_ne!(key("identity/accounts/0192f0c1-2345-7abc-8def-0123456789ac"), one);
        assert_ne!(key(uuid), one, "another kind of id");
    }

    #[test]
    fn what_is_no_uuid_is_as_it_is_written() {
        assert_eq!(key("identity/accounts/load-test-0001").as_str(), "identity/accounts/load-test-0001");
        assert_ne!(key("x/A"), key("x/a"));
    }

    #[test]
    fn a_key_reads_back_as_it_is_stored_and_no_other_spelling_does() {
        let stored = "identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(AccountKey::from_stored(stored), Some(key(stored)));
        assert_eq!(AccountKey::from_stored(&stored.to_uppercase()), None);
        assert_eq!(AccountKey::from_stored(""), None);
    }
}
