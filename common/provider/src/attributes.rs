//! Attributes of the provider's rows: the members that the operator wants kept, as they are written there.
//!
//! A row whose attributes cannot be read is used all the same; what is stored of them stays.

use std::collections::BTreeMap;
use std::fmt;

use broker_domain::{AttributeNames, ProviderAttributes};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The attributes of a row that is an object. A member that is absent or null is none.
pub(super) fn read(raw: &str, names: &AttributeNames) -> Result<ProviderAttributes, String> {
    let mut json = serde_json::Deserializer::from_str(raw);
    let members = Members(names).deserialize(&mut json).map_err(|error| error.to_string())?;
    let mut attributes = BTreeMap::new();
    for (name, raw) in members {
        let raw = raw.ok_or_else(|| format!("{name} is given twice"))?;
        let value = value(raw).map_err(|problem| format!("{name} {problem}"))?;
        if !value.is_null() {
            attributes.insert(name, value);
        }
    }
    ProviderAttributes::new(attributes)
}

/// A value as it is told on: unchanged, or not at all.
fn value(raw: &str) -> Result<Value, String> {
    let value = Value::deserialize(&mut serde_json::Deserializer::from_str(raw))
        .map_err(|error| format!("cannot be read: {error}"))?;
    // What was no UTF-8 on its way here; and what no variable of an environment can hold.
    if raw.contains('\u{fffd}') || value.as_str().is_some_and(|text| text.contains('\0')) {
        return Err("has characters that cannot be read".to_owned());
    }
    // Digits would be lost.
    let is_whole = raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if value.is_f64() && is_whole { Err("is a number of too many digits".to_owned()) } else { Ok(value) }
}

/// The named members of an object; `None` is one that is given twice, with different values.
struct Members<'a>(&'a AttributeNames);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = BTreeMap<String, Option<&'de str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = BTreeMap<String, Option<&'de str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let raw = map.next_value::<&RawValue>()?.get();
            if !self.0.contains(&name) {
                continue;
            }
            let known = members.entry(name).or_insert(Some(raw));
            if *known != Some(raw) {
                *known = None;
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(row: &str) -> Result<Value, String> {
        let names = AttributeNames::parse("sfdc_account_id,region,tags").unwrap();
        read(row, &names).map(|attributes| json!(attributes))
    }

    #[test]
    fn members_are_kept_as_they_are_written() {
        let row =
            r#"{"id": "x", "region": "eu", "sfdc_account_id": 123456789012, "tags": {"a": [1, true, null]}}"#;
        let kept = json!({ "region": "eu", "sfdc_account_id": 123_456_789_012_u64, "tags": { "a": [1, true, null] } });
        assert_eq!(of(row), Ok(kept));
        assert_eq!(of(r#"{"region": null, "id": "x"}"#), Ok(json!({})), "null is none");
        assert_eq!(of(r#"{"region": "", "tags": 1.5}"#), Ok(json!({ "region": "", "tags": 1.5 })));
        assert_eq!(of(r#"{"region": "eu", "region": "eu"}"#), Ok(json!({ "region": "eu" })));
    }

    #[test]
    fn what_could_not_be_told_on_unchanged_is_refused_and_named() {
        let refused = |row: &str, word: &str| {
            let problem = of(row).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        };
        refused(r#"{"region": "eu", "region": "us"}"#, "region is given twice");
        refused(r#"{"region": "eu", "region": "us", "region": "eu"}"#, "region is given twice");
        refused("{\"region\": \"e\u{fffd}\"}", "region has characters");
        refused(r#"{"region": "a\u0000b"}"#, "region has characters");
        refused(r#"{"sfdc_account_id": 123456789012345678901234567890}"#, "sfdc_account_id is a number");
        refused(&format!(r#"{{"region": "{}"}}"#, "x".repeat(2_000)), "2013 bytes, more than 1024");
    }
}
