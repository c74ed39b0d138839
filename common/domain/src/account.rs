//! The account at the provider that a sandbox stands for. `sandbox_id` is only its label.
//!
//! Invariant: two external ids have one [`AccountKey`] if and only if they name one account. An account is in one
//! sandbox's record at most, live or dead; its own record ([`AccountRecord`]) says in which.

use std::fmt;

use uuid::Uuid;

use super::{ExternalId, SandboxId};

/// An external id in its one spelling: case does not matter, and a UUID has many forms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey(String);

impl AccountKey {
    /// The account that `external_id` names. Case does not matter; nor, where it ends in a UUID, do hyphens and braces.
    pub fn of(external_id: &ExternalId) -> Self {
        Self::spelled(external_id.as_str())
    }

    /// The account whose record is stored under `text`, in whatever spelling; `None` if there is no text.
    pub fn from_stored(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::spelled(text))
    }

    fn spelled(text: &str) -> Self {
        let at = text.rfind('/').map_or(0, |slash| slash + 1);
        let (head, tail) = text.split_at(at);
        let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
        let tail =
            Uuid::try_parse(tail).map_or_else(|_| lower(tail), |uuid| uuid.as_hyphenated().to_string());
        Self(lower(head) + &tail)
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
    fn case_does_not_matter_whatever_the_id_is() {
        assert_eq!(key("Identity/Accounts/Load-Test-0001").as_str(), "identity/accounts/load-test-0001");
        assert_eq!(key("ACCT-7"), key("acct-7"));
        assert_eq!(key("Größe/Ä"), key("grÖße/ä"));
        assert_ne!(key("x/a"), key("x/b"));
    }

    #[test]
    fn a_stored_key_is_its_account_in_every_spelling() {
        for stored in ["identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab", "acct-7"] {
            let account = AccountKey::from_stored(stored).unwrap();
            assert_eq!(account.as_str(), stored);
            assert_eq!(AccountKey::from_stored(&stored.to_uppercase()), Some(account));
        }
        assert_eq!(AccountKey::from_stored(""), None);
    }
}
