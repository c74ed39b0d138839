//! Ids and names as newtypes that can only hold valid values.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// The longest id, key or lab name, in bytes.
const MAX_ID_BYTES: usize = 128;
/// The longest name of a flavour, in bytes: it is a label of metrics.
const MAX_FLAVOUR_BYTES: usize = 64;
/// The longest provider-given name or external id, in bytes. An index key may have 1,024.
const MAX_TEXT_BYTES: usize = 512;

/// Why a string is not a valid id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of id.
        what: &'static str,
    },
    /// The string is too long.
    #[error("{what} has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Which kind of id.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The string has a character outside the allowed ones.
    #[error("{what} may only contain {allowed}")]
    Character {
        /// Which kind of id.
        what: &'static str,
        /// The allowed characters, for people.
        allowed: &'static str,
    },
    /// The string is not a UUID.
    #[error("{what} is not a UUID")]
    NotUuid {
        /// Which kind of id.
        what: &'static str,
    },
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), InvalidId> {
    match text.len() {
        0 => Err(InvalidId::Empty { what }),
        bytes if bytes > max => Err(InvalidId::TooLong { what, bytes, max }),
        _ => Ok(()),
    }
}

fn check_token(what: &'static str, text: &str) -> Result<(), InvalidId> {
    check_length(what, text, MAX_ID_BYTES)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidId::Character { what, allowed: "A-Z a-z 0-9 . _ : @ -" })
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), InvalidId> {
    check_length(what, text, MAX_TEXT_BYTES)?;
    if text.chars().any(char::is_control) {
        Err(InvalidId::Character { what, allowed: "printable characters" })
    } else {
        Ok(())
    }
}

fn check_prefix(what: &'static str, text: &str) -> Result<(), InvalidId> {
    check_length(what, text, MAX_ID_BYTES)?;
    check_text(what, text)
}

fn check_flavour(what: &'static str, text: &str) -> Result<(), InvalidId> {
    check_length(what, text, MAX_FLAVOUR_BYTES)?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidId::Character { what, allowed: "a-z 0-9 _ -" })
    }
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("A ", $what, ", or why `text` is none.")]
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                $check($what, &text)?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From a UUID that the process's source of randomness minted.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            #[doc = concat!("A ", $what, ", or why `text` is none.")]
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId::NotUuid { what: $what })
            }

            /// The UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
    };
}

string_id!(
    /// The broker's id of a sandbox; the provider's `csp_id`.
    SandboxId, "sandbox id", check_token
);
string_id!(
    /// The owner of an allocation: one student's lab instance.
    TrackId, "track id", check_token
);
string_id!(
    /// The lab, shared by many tracks.
    TrackName, "track name", check_token
);
string_id!(
    /// Deduplicates the intent of an allocation. Absent in a request, it is the track id.
    IdempotencyKey, "idempotency key", check_token
);
string_id!(
    /// The sandbox's name at the provider.
    SandboxName, "sandbox name", check_text
);
string_id!(
    /// The provider's own id of a sandbox.
    ExternalId, "external id", check_text
);
string_id!(
    /// The beginning of the sandbox names that a request accepts.
    NamePrefix, "sandbox name prefix", check_prefix
);
string_id!(
    /// The policy's name for a name prefix.
    FlavourName, "flavour", check_flavour
);
string_id!(
    /// Who a token speaks for: several tokens may be one tenant's. By default a token's name.
    TenantName, "tenant", check_token
);
uuid_id!(
    /// Minted for each HTTP request (UUID v7); correlates its reply. Never the idempotency key.
    RequestId, "request id"
);
uuid_id!(
    /// Minted per claim, stored on sandbox and lease: the fencing token of everything that ends them.
    AllocationId, "allocation id"
);

uuid_id!(
    /// Identifies a reservation of a tenant.
    ReservationId, "reservation id"
);
uuid_id!(
    /// Minted for each sandbox that the broker asks for; what the hook is sent has it as its idempotency key.
    TicketId, "ticket id"
);

impl From<&TrackId> for IdempotencyKey {
    /// The key of a request without one: the track id.
    fn from(track: &TrackId) -> Self {
        Self(track.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_1_to_128_of_the_allowed_characters() {
        assert!(TrackId::new("a.b_c:d@e-F9").is_ok());
        assert!(TrackId::new("a".repeat(128)).is_ok());
        assert!(matches!(TrackId::new(""), Err(InvalidId::Empty { .. })));
        assert!(matches!(TrackId::new("a".repeat(129)), Err(InvalidId::TooLong { bytes: 129, .. })));
        for bad in ["a b", "a/b", "a\0", "ä", "a\n", "a#b"] {
            assert!(matches!(TrackId::new(bad), Err(InvalidId::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_1_to_512_bytes_of_anything_printable_and_a_prefix_at_most_128() {
        assert!(SandboxName::new("Lab — ünicode, 東京").is_ok());
        assert!(SandboxName::new("a".repeat(512)).is_ok() && NamePrefix::new("a".repeat(128)).is_ok());
        assert!(matches!(ExternalId::new("a".repeat(513)), Err(InvalidId::TooLong { max: 512, .. })));
        assert!(matches!(NamePrefix::new("a".repeat(129)), Err(InvalidId::TooLong { max: 128, .. })));
        assert!(matches!(SandboxName::new(""), Err(InvalidId::Empty { .. })));
        for bad in ["a\nb", "\u{7f}", "\u{85}"] {
            assert!(matches!(SandboxName::new(bad), Err(InvalidId::Character { .. })), "{bad:?}");
            assert!(matches!(NamePrefix::new(bad), Err(InvalidId::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_uuid_reads_back_as_it_is_shown_and_nothing_else_is_one() {
        let id = RequestId::from_uuid(Uuid::from_u128(7));
        assert_eq!(id.to_string(), "00000000-0000-0000-0000-000000000007");
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        assert_eq!(id.as_uuid(), &Uuid::from_u128(7));
        assert_eq!(AllocationId::parse("x"), Err(InvalidId::NotUuid { what: "allocation id" }));
    }

    #[test]
    fn a_track_without_a_key_is_its_own_key() {
        let track = TrackId::new("t").unwrap();
        assert_eq!(IdempotencyKey::from(&track).as_str(), "t");
        assert_eq!(track.to_string(), "t");
    }

    proptest! {
        #[test]
        fn a_text_is_accepted_exactly_when_the_rule_says_so(text in any::<String>()) {
            let rule = (1..=512).contains(&text.len()) && !text.chars().any(char::is_control);
            prop_assert_eq!(ExternalId::new(text.clone()).is_ok(), rule);
            prop_assert_eq!(NamePrefix::new(text.clone()).is_ok(), rule && text.len() <= 128);
        }

        #[test]
        fn an_id_is_accepted_exactly_when_the_rule_says_so(text in any::<String>()) {
            let rule = (1..=128).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:@-".contains(c));
            prop_assert_eq!(IdempotencyKey::new(text.clone()).is_ok(), rule);
        }

        #[test]
        fn deserializing_never_makes_an_invalid_id(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<SandboxId>(&json).is_ok(), SandboxId::new(text).is_ok());
        }
    }
}
