//! Accounts in the provider's list, parsed and filtered to active sandboxes.

use std::collections::{HashMap, HashSet};
use std::fmt;

use aws_smithy_types::date_time::{DateTime, Format};
use serde::Deserialize;
use uuid::Uuid;

use broker_domain::{ExternalId, SandboxId, SandboxName, Timestamp};

/// The prefix of external ids.
const PREFIX: &str = "identity/accounts/";

/// The provider's id of an account: the end of an external id, and the only part that may become part of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountId(Uuid);

impl AccountId {
    /// From an external id `identity/accounts/{uuid}`; `None` for any other, whose 404 would prove nothing.
    pub fn of(external_id: &ExternalId) -> Option<Self> {
        Uuid::try_parse(external_id.as_str().strip_prefix(PREFIX)?).ok().map(Self)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// An active sandbox account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The provider's `csp_id`.
    pub id: SandboxId,
    /// Its name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// When the provider created it, if the list says so.
    pub created_at: Option<Timestamp>,
}

/// A complete list.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Active sandbox accounts, by our id.
    pub accounts: HashMap<SandboxId, Account>,
    /// Ids that are listed but have malformed fields: neither new nor missing.
    pub unreadable: HashSet<SandboxId>,
    /// Rows without a readable id.
    pub malformed: u64,
}

/// A row of the provider's list.
#[derive(Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    account_type: String,
    #[serde(default)]
    state: String,
    csp_id: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created_at: Option<String>,
}

impl Listed {
    /// Adds a row, if it is an active sandbox. Of two with one id the newer one counts.
    pub(super) fn add(&mut self, row: Result<Row, serde_json::Error>) {
        let Ok(row) = row else {
            self.malformed += 1;
            return;
        };
        if row.account_type != "sandbox" || row.state != "active" {
            return;
        }
        let Ok(id) = SandboxId::new(row.csp_id) else {
            self.malformed += 1;
            return;
        };
        let (Ok(name), Ok(external_id)) = (SandboxName::new(row.name), ExternalId::new(row.id)) else {
            self.unreadable.insert(id);
            return;
        };
        let created_at = row.created_at.as_deref().and_then(parse_time);
        let account = Account { id: id.clone(), name, external_id, created_at };
        let known = self.accounts.entry(id).or_insert_with(|| account.clone());
        if known.created_at < account.created_at {
            *known = account;
        }
    }
}

/// ISO 8601 with a zone; without one, UTC.
fn parse_time(text: &str) -> Option<Timestamp> {
    let parse = |text: &str| DateTime::from_str(text, Format::DateTimeWithOffset).ok();
    let parsed = parse(text).or_else(|| parse(&format!("{text}Z")))?;
    u64::try_from(parsed.to_millis().ok()?).ok().map(Timestamp::from_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn add(listed: &mut Listed, row: &str) {
        listed.add(serde_json::from_str(row));
    }

    #[test]
    fn only_active_sandboxes_count_and_what_cannot_be_read_is_not_missing() {
        let mut listed = Listed::default();
        add(
            &mut listed,
            r#"{"account_type":"sandbox","state":"active","csp_id":"a","id":"identity/accounts/1","name":"A"}"#,
        );
        add(&mut listed, r#"{"account_type":"sandbox","state":"deleting","csp_id":"b","id":"x","name":"B"}"#);
        add(&mut listed, r#"{"account_type":"person","state":"active","csp_id":"c","id":"x","name":"C"}"#);
        add(&mut listed, r#"{"account_type":"sandbox","state":"active","csp_id":"d","id":"x","name":""}"#);
        add(&mut listed, r#"{"account_type":"sandbox","state":"active","id":"x","name":"E"}"#);
        add(&mut listed, r#"{"account_type":"sandbox","state":"active","csp_id":"f f","id":"x","name":"F"}"#);
        assert_eq!(listed.accounts.keys().map(SandboxId::as_str).collect::<Vec<_>>(), ["a"]);
        assert_eq!(listed.unreadable.iter().map(SandboxId::as_str).collect::<Vec<_>>(), ["d"]);
        assert_eq!(listed.malformed, 2);
    }

    #[test]
    fn of_two_accounts_with_one_id_the_newer_counts_in_any_order() {
        let row = |id: &str, at: &str| {
            format!(
                r#"{{"account_type":"sandbox","state":"active","csp_id":"a","id":"{id}","name":"A","created_at":"{at}"}}"#
            )
        };
        let (old, new) = (row("old", "2026-11-22T10:00:00+01:00"), row("new", "2026-11-22T09:30:00.5"));
        for rows in [[&old, &new], [&new, &old]] {
            let mut listed = Listed::default();
            rows.iter().for_each(|row| add(&mut listed, row));
            assert_eq!(listed.accounts.values().next().unwrap().external_id.as_str(), "new");
        }
    }

    #[test]
    fn only_an_external_id_with_a_uuid_names_an_account() {
        let id = |text: &str| AccountId::of(&ExternalId::new(text).unwrap()).map(|id| id.to_string());
        let uuid = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(id(&format!("identity/accounts/{uuid}")).as_deref(), Some(uuid));
        for bad in ["identity/accounts/", "identity/accounts/../x", uuid, "identity/accounts/seed-1"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    /// A row in which each field is correct, wrong or missing.
    fn any_row() -> impl Strategy<Value = Value> {
        let field = |good: &'static [&'static str]| {
            prop_oneof![
                8 => prop::sample::select(good).prop_map(|text| Some(json!(text))),
                1 => "\\PC{0,8}".prop_map(|text| Some(json!(text))),
                1 => Just(Some(json!(7))),
                1 => Just(Some(Value::Null)),
                1 => Just(None),
            ]
        };
        let times = &["2026-11-22T10:00:00Z", "2026-11-22T10:00:00.5+02:00", "2026-11-22T10:00:00"];
        let fields = (
            field(&["sandbox"]),
            field(&["active", "deleting"]),
            field(&["a", "b", "c"]),
            field(&["identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab", "identity/accounts/1"]),
            field(&["one", "two"]),
            field(times),
        );
        fields.prop_map(|(account_type, state, csp_id, id, name, created_at)| {
            let named = [
                ("account_type", account_type),
                ("state", state),
                ("csp_id", csp_id),
                ("id", id),
                ("name", name),
                ("created_at", created_at),
            ];
            named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
        })
    }

    fn listed(rows: &[Value]) -> Listed {
        let mut listed = Listed::default();
        rows.iter().for_each(|row| listed.add(serde_json::from_value(row.clone())));
        listed
    }

    proptest! {
        #[test]
        fn every_row_is_ours_unreadable_malformed_or_none_of_our_business(rows in prop::collection::vec(any_row(), 0..12)) {
            for row in &rows {
                let one = listed(std::slice::from_ref(row));
                let parts = (one.accounts.len(), one.unreadable.len(), one.malformed);
                prop_assert!(matches!(parts, (1, 0, 0) | (0, 1, 0) | (0, 0, 1) | (0, 0, 0)), "{parts:?}: {row}");
                let is_ours = row["account_type"] == "sandbox" && row["state"] == "active";
                prop_assert!(one.malformed == 1 || is_ours == (one.accounts.len() + one.unreadable.len() == 1), "{row}");
                for account in one.accounts.values() {
                    prop_assert_eq!(&json!(account.id.as_str()), &row["csp_id"]);
                    prop_assert_eq!(&json!(account.name.as_str()), &row["name"]);
                    prop_assert_eq!(&json!(account.external_id.as_str()), &row["id"]);
                }
            }
        }

        #[test]
        fn the_order_of_a_list_does_not_tell_which_ids_are_there(rows in prop::collection::vec(any_row(), 0..12)) {
            let reversed: Vec<_> = rows.iter().rev().cloned().collect();
            let (there, back) = (listed(&rows), listed(&reversed));
            let times = |listed: &Listed| -> HashMap<_, _> {
                listed.accounts.values().map(|account| (account.id.clone(), account.created_at)).collect()
            };
            prop_assert_eq!(times(&there), times(&back), "of several with one id the newest");
            prop_assert_eq!((there.unreadable, there.malformed), (back.unreadable, back.malformed));
        }

        #[test]
        fn what_goes_into_a_url_is_a_uuid_whatever_the_provider_says(text in "(identity/accounts/)?[{]?[0-9a-fA-F-]{30,40}[}]?|\\PC{1,40}") {
            if let Some(id) = ExternalId::new(text).ok().and_then(|id| AccountId::of(&id)) {
                let shown = id.to_string();
                prop_assert_eq!(shown.len(), 36);
                prop_assert!(shown.bytes().all(|c| c == b'-' || c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{shown}");
            }
        }

        #[test]
        fn times_are_read_to_the_millisecond_in_any_zone(ms in 0_i64..4_102_444_800_000, hours in -14_i64..=14) {
            let at = Timestamp::from_ms(u64::try_from(ms).unwrap());
            let write = |ms: i64| DateTime::from_millis(ms).fmt(Format::DateTime).unwrap();
            prop_assert_eq!(parse_time(&write(ms)), Some(at));
            prop_assert_eq!(parse_time(write(ms).trim_end_matches('Z')), Some(at), "without a zone it is UTC");
            let there = write(ms + hours * 3_600_000);
            let zone = format!("{}{:+03}:00", there.trim_end_matches('Z'), hours);
            if ms + hours * 3_600_000 >= 0 {
                prop_assert_eq!(parse_time(&zone), Some(at), "{}", zone);
            }
        }

        #[test]
        fn a_time_that_is_none_is_none(text in "\\PC{0,30}|[0-9T:Z+.-]{0,30}") {
            if let Some(at) = parse_time(&text) {
                prop_assert!(at.as_ms() < 253_402_300_800_000, "within four digits of a year");
            }
        }
    }
}
