//! Attributes of the provider: members of its row that are kept with the sandbox and told in every answer about it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most attributes.
const MOST: usize = 16;
/// The longest name of one, in bytes.
const LONGEST_NAME: usize = 64;
/// The most bytes that the attributes of one sandbox have together, as JSON.
const LARGEST: usize = 1_024;

/// The members that answers about a sandbox have anyway, for its owner and for an operator. A test of the API holds them against
/// the answers.
pub const FIXED_MEMBERS: [&str; 28] = [
    "allocated_at",
    "allocation_id",
    "created_at",
    "deleted_at",
    "deletion_attempts",
    "deletion_error",
    "deletion_reason",
    "deletion_requested_at",
    "due_at",
    "expires_at",
    "external_id",
    "flavour",
    "heartbeat_s",
    "idempotency_key",
    "last_synced",
    "name",
    "quarantine_cause",
    "quarantine_reason",
    "quarantined_at",
    "quarantined_by",
    "request_id",
    "reserved_for",
    "sandbox_id",
    "status",
    "track",
    "track_name",
    "updated_at",
    "version",
];

/// The names of the attributes that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeNames(BTreeSet<String>);

impl AttributeNames {
    /// From `name, …`. `Err` says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut names = BTreeSet::new();
        for name in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
                return Err(format!("{name:?} is not 1 to {LONGEST_NAME} of A-Z a-z 0-9 _ . -"));
            }
            if FIXED_MEMBERS.contains(&name) {
                return Err(format!(
                    "{name} is a member that answers have anyway, with a meaning of its own"
                ));
            }
            if !names.insert(name.to_owned()) {
                return Err(format!("{name} is named twice"));
            }
        }
        if names.len() > MOST {
            return Err(format!("{} names are more than {MOST}", names.len()));
        }
        Ok(Self(names))
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of this name is kept.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The attributes of one sandbox, as the provider last listed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProviderAttributes(BTreeMap<String, Value>);

impl ProviderAttributes {
    /// From members of a row. `Err` if they are too large.
    pub fn new(members: BTreeMap<String, Value>) -> Result<Self, String> {
        let attributes = Self(members);
        let bytes = attributes.to_json().len();
        if bytes > LARGEST {
            return Err(format!("the attributes that are kept have {bytes} bytes, more than {LARGEST}"));
        }
        Ok(attributes)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// As a JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_bounded_and_do_not_clash_with_what_answers_have_anyway() {
        let names = AttributeNames::parse(" sfdc_account_id, region ").unwrap();
        assert!(names.contains("region") && names.contains("sfdc_account_id") && !names.contains("id"));
        assert!(
            AttributeNames::parse("").unwrap().is_empty() && AttributeNames::parse("  ").unwrap().is_empty()
        );
        for fixed in FIXED_MEMBERS {
            let problem = AttributeNames::parse(&format!("region,{fixed}")).unwrap_err();
            assert!(problem.contains(fixed), "{problem}");
        }
        let many = (0..=MOST).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        assert!(AttributeNames::parse(&many).unwrap_err().contains("17 names"));
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in ["a,,b", "a,", ",", "a b", "ä", "a,a", "\u{0}", long.as_str()] {
            assert!(AttributeNames::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attributes_of_one_sandbox_are_bounded_together() {
        let of =
            |length: usize| ProviderAttributes::new([("a".to_owned(), json!("x".repeat(length)))].into());
        let around = r#"{"a":""}"#.len();
        assert!(of(LARGEST - around).is_ok());
        assert!(of(LARGEST - around + 1).unwrap_err().contains("1025 bytes"));
    }

    #[test]
    fn the_fixed_members_are_sorted_and_named_once() {
        assert!(FIXED_MEMBERS.is_sorted_by(|a, b| a < b));
    }
}
