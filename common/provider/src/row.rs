//! Rows of the provider's list, read leniently.
//!
//! A row is identified by its `csp_id`, or else by its `id`. If it has one of the two, its sandbox exists at the provider,
//! whatever else is wrong with the row. What it does not do: compare rows (that is `listed`).

use std::fmt;

use broker_domain::{ExternalId, SandboxId, SandboxName, Timestamp};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::account::{Account, parse_time, time_of_number};

/// The fields that are read.
const FIELDS: [&str; 6] = ["csp_id", "id", "account_type", "state", "name", "created_at"];
const CSP_ID: usize = 0;
const ID: usize = 1;
const ACCOUNT_TYPE: usize = 2;
const STATE: usize = 3;
const NAME: usize = 4;
const CREATED_AT: usize = 5;

/// The content of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Something that is no active sandbox.
    NotOurs,
    /// An active sandbox.
    Account(Account),
    /// A sandbox that exists, and whose row cannot be used.
    Unreadable { id: Option<SandboxId>, external_id: Option<ExternalId>, problem: String },
    /// A row without a usable id.
    Unidentified { problem: String },
}

/// A row, and by what it is known again: its two ids as they stand in it.
pub(super) struct Row {
    pub(super) reading: Reading,
    pub(super) ids: Option<String>,
    /// Why it has no time although it says one.
    pub(super) bad_time: Option<String>,
}

/// A field as it stands in a row.
enum Field<'a> {
    Absent,
    Raw(&'a str),
    /// Twice, with different values.
    Twice,
}

struct Fields<'a>([Field<'a>; 6]);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields([const { Field::Absent }; 6]);
                while let Some(name) = map.next_key::<String>()? {
                    let raw = map.next_value::<&RawValue>()?.get();
                    let Some(at) = FIELDS.iter().position(|field| *field == name) else { continue };
                    fields.0[at] = match fields.0[at] {
                        Field::Absent => Field::Raw(raw),
                        Field::Raw(before) if before == raw => Field::Raw(raw),
                        Field::Raw(_) | Field::Twice => Field::Twice,
                    };
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}

impl Fields<'_> {
    /// The text of a field, or what it is instead.
    fn text(&self, at: usize) -> Result<String, String> {
        let raw = match self.0[at] {
            Field::Absent => return Err("is absent".to_owned()),
            Field::Twice => return Err("is given twice".to_owned()),
            Field::Raw(raw) => raw,
        };
        match serde_json::from_str::<String>(raw) {
            // What was no UTF-8 on its way here.
            Ok(text) if text.contains('\u{fffd}') => Err("has characters that cannot be read".to_owned()),
            Ok(text) => Ok(text),
            Err(_) => Err(format!("is {}", kind(raw))),
        }
    }

    /// A field that must hold a `T`.
    fn get<T, E: fmt::Display>(
        &self,
        at: usize,
        parse: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<T, String> {
        let named = |problem: String| format!("{} {problem}", FIELDS[at]);
        let text = self.text(at).map_err(named)?;
        parse(text).map_err(|error| named(format!("is none: {error}")))
    }

    /// Whether a field says `word`, in any case.
    fn says(&self, at: usize, word: &str) -> Result<bool, String> {
        let blank = |text: String| {
            let text = text.trim();
            if text.is_empty() { Err("empty") } else { Ok(text.eq_ignore_ascii_case(word)) }
        };
        self.get(at, blank)
    }

    fn time(&self) -> Result<Option<Timestamp>, String> {
        let Field::Raw(raw) = self.0[CREATED_AT] else {
            let absent = matches!(self.0[CREATED_AT], Field::Absent);
            return if absent { Ok(None) } else { Err("created_at is given twice".to_owned()) };
        };
        if raw == "null" {
            return Ok(None);
        }
        // A fraction of a second does not matter.
        let whole = raw.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b.is_ascii_digit()));
        let time = match whole.map_or(raw, |(whole, _)| whole).parse() {
            Ok(number) => time_of_number(number),
            Err(_) => match self.text(CREATED_AT) {
                Ok(text) if text.trim().is_empty() => return Ok(None),
                text => text.ok().and_then(|text| parse_time(&text)),
            },
        };
        time.map(Some).ok_or_else(|| format!("created_at is no time ({})", kind(raw)))
    }

    fn read(&self) -> (Reading, Option<String>) {
        let id = self.get(CSP_ID, SandboxId::new);
        let external_id = self.get(ID, ExternalId::new);
        let (of_type, of_state) = (self.says(ACCOUNT_TYPE, "sandbox"), self.says(STATE, "active"));
        if of_type == Ok(false) || of_state == Ok(false) {
            return (Reading::NotOurs, None);
        }
        let name = self.get(NAME, SandboxName::new);
        match (id, external_id, of_type.and(of_state), name) {
            (Ok(id), Ok(external_id), Ok(_), Ok(name)) => {
                let (created_at, bad_time) = match self.time() {
                    Ok(time) => (time, None),
                    Err(problem) => (None, Some(problem)),
                };
                (Reading::Account(Account { id, name, external_id, created_at, attributes: None }), bad_time)
            }
            (Err(problem), Err(_), _, _) => (Reading::Unidentified { problem }, None),
            (id, external_id, kind, name) => {
                let problems =
                    [id.as_ref().err(), external_id.as_ref().err(), kind.as_ref().err(), name.as_ref().err()];
                let problem = problems.into_iter().flatten().next().cloned().unwrap_or_default();
                (Reading::Unreadable { id: id.ok(), external_id: external_id.ok(), problem }, None)
            }
        }
    }
}

/// Reads one row, whatever it is.
pub(super) fn read(raw: &str) -> Row {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(raw) else {
        let problem = format!("a row is {}", kind(raw));
        return Row { reading: Reading::Unidentified { problem }, ids: None, bad_time: None };
    };
    let ids = match (&fields.0[CSP_ID], &fields.0[ID]) {
        (Field::Raw(csp_id), Field::Raw(id)) => Some(format!("{csp_id} {id}")),
        (Field::Raw(one), _) | (_, Field::Raw(one)) => Some((*one).to_owned()),
        (Field::Absent | Field::Twice, Field::Absent | Field::Twice) => None,
    };
    let (reading, bad_time) = fields.read();
    Row { reading, ids, bad_time }
}

/// What a JSON value is, in a word.
pub(super) fn kind(raw: &str) -> &'static str {
    match raw.trim_start().bytes().next() {
        None => "nothing",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number",
    }
}
