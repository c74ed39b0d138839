//! Bodies of requests about reservations: what is reserved, and what of it changes.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::reservation::{LEAD, LONGEST, LONGEST_LEAD, MOST_SANDBOXES};
use broker_domain::{FlavourName, NamePrefix, ReservationId, ReservationTerms, TenantName, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::body::{LARGEST_EXACT, object};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// A reservation to be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "tenant": "platform", "flavour": "small", "count": 30,
    "from": "2026-12-07T09:00+01:00", "until": "2026-12-07T12:00+01:00"
}]))]
pub(crate) struct ReservationBody {
    /// Its id, a UUID; without it, the broker chooses one. The same id with the same terms again is the same reservation.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    id: Option<ReservationId>,
    /// For whom.
    #[schemars(with = "String", regex(pattern = "^[A-Za-z0-9._:@-]{1,128}$"))]
    tenant: TenantName,
    /// Sandboxes of this flavour; instead of `prefix`.
    #[serde(default)]
    #[schemars(with = "Option<String>", regex(pattern = "^[a-z0-9_-]{1,64}$"))]
    flavour: Option<FlavourName>,
    /// Sandboxes whose names begin so; instead of `flavour`.
    #[serde(default)]
    #[schemars(with = "Option<String>", length(min = 1, max = 128))]
    prefix: Option<NamePrefix>,
    /// How many.
    #[serde(deserialize_with = "count")]
    #[schemars(schema_with = "counts")]
    count: u32,
    /// When they are needed: a time with a zone, or seconds since the epoch. Without it, from now on.
    #[serde(default, deserialize_with = "moment")]
    #[schemars(schema_with = "moments")]
    from: Option<Timestamp>,
    /// Until when. Without it, for good.
    #[serde(default, deserialize_with = "moment")]
    #[schemars(schema_with = "moments")]
    until: Option<Timestamp>,
    /// How long before `from` they are put aside, in seconds; half an hour if it is not said.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(schema_with = "leads")]
    lead_s: Option<Duration>,
    /// What is not used so long after `from` goes back, in seconds. Without it, what is not used stays until the end.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(schema_with = "no_shows")]
    no_show_s: Option<Duration>,
}

/// The terms that a reservation has from now on. What is left out is as in a new one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReservationChangeBody {
    /// How many.
    #[serde(deserialize_with = "count")]
    #[schemars(schema_with = "counts")]
    count: u32,
    /// When they are needed: a time with a zone, or seconds since the epoch.
    #[serde(default, deserialize_with = "moment")]
    #[schemars(schema_with = "moments")]
    from: Option<Timestamp>,
    /// Until when.
    #[serde(default, deserialize_with = "moment")]
    #[schemars(schema_with = "moments")]
    until: Option<Timestamp>,
    /// How long before `from` they are put aside, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(schema_with = "leads")]
    lead_s: Option<Duration>,
    /// What is not used so long after `from` goes back, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(schema_with = "no_shows")]
    no_show_s: Option<Duration>,
}

impl ReservationBody {
    /// From JSON.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        object(body)
    }

    /// Its id, if it says one.
    pub(crate) const fn id(&self) -> Option<ReservationId> {
        self.id
    }

    /// What it reserves, by the names of `policy`.
    pub(crate) fn terms(&self, policy: &Policy) -> Result<ReservationTerms, Problem> {
        let prefix = match (&self.flavour, &self.prefix) {
            (Some(flavour), None) => {
                let of_flavour = policy.flavours().get(flavour).map(|flavour| flavour.prefix.clone());
                let unknown =
                    || Problem::new(Code::UnknownFlavour, format!("The policy has no flavour {flavour}."));
                of_flavour.ok_or_else(unknown)?
            }
            (None, Some(prefix)) => prefix.clone(),
            _ => return Err(Problem::invalid("Say what is reserved by one of flavour and prefix.")),
        };
        let Self { count, from, until, lead_s, no_show_s, .. } = self;
        Ok(ReservationTerms {
            tenant: self.tenant.clone(),
            prefix,
            count: *count,
            from: *from,
            until: *until,
            lead: lead_s.unwrap_or(LEAD),
            no_show: *no_show_s,
        })
    }
}

impl ReservationChangeBody {
    /// From JSON.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        object(body)
    }

    /// What becomes of `terms`.
    pub(crate) fn applied(&self, terms: &ReservationTerms) -> ReservationTerms {
        ReservationTerms {
            tenant: terms.tenant.clone(),
            prefix: terms.prefix.clone(),
            count: self.count,
            from: self.from,
            until: self.until,
            lead: self.lead_s.unwrap_or(LEAD),
            no_show: self.no_show_s,
        }
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D, what: &str) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let number =
                number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=LARGEST_EXACT as f64).contains(n));
            number.map(|number| Some(number as u64)).ok_or_else(|| D::Error::custom(what))
        }
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => Err(D::Error::custom(what)),
    }
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let what = "count must be a whole number from 1 to 100000";
    let number = whole(deserializer, what)?.and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| D::Error::custom(what))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let number = whole(deserializer, "a whole number of seconds is expected")?;
    Ok(number.map(Duration::from_secs))
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    const WHAT: &str = "a time with a zone is expected, such as \"2026-12-07T09:00+01:00\", or whole seconds since the epoch";
    let told = Value::deserialize(deserializer)?;
    if let Some(text) = told.as_str() {
        return Timestamp::parse_zoned(text).map(Some).ok_or_else(|| D::Error::custom(WHAT));
    }
    Ok(whole(told, WHAT).map_err(D::Error::custom)?.map(Timestamp::from_secs))
}

fn counts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MOST_SANDBOXES })
}

fn leads(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "minimum": 0, "maximum": LONGEST_LEAD.as_secs() })
}

fn no_shows(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "minimum": 1, "maximum": LONGEST.as_secs() })
}

fn moments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "examples": ["2026-12-07T09:00+01:00", "2026-12-07T09:00[Europe/Berlin]"] },
            { "type": "integer", "minimum": 0, "maximum": LARGEST_EXACT },
            { "type": "null" },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_text_with_a_zone_or_a_number() {
        let from = |text: &str| {
            let body = format!(r#"{{"tenant":"acme","prefix":"lab-","count":3.0,"from":{text},"lead_s":0}}"#);
            ReservationBody::parse(body.as_bytes()).and_then(|body| body.terms(&Policy::default()))
        };
        let nine = Timestamp::from_secs(1_796_630_400);
        for text in [
            "\"2026-12-07T09:00+01:00\"",
            "\"2026-12-07T09:00[Europe/Berlin]\"",
            "1796630400",
            "1796630400.0",
        ] {
            let terms = from(text).unwrap();
            assert_eq!((terms.from, terms.count, terms.lead), (Some(nine), 3, Duration::ZERO), "{text}");
        }
        assert_eq!(from("null").unwrap().from, None);
        for wrong in ["\"2026-12-07T09:00\"", "\"tomorrow\"", "-1", "1.5", "true", "[]"] {
            assert_eq!(from(wrong).unwrap_err().code(), Code::ValidationError, "{wrong}");
        }
    }

    #[test]
    fn what_is_reserved_is_a_flavour_or_a_prefix_for_a_tenant() {
        let policy = Policy::parse("[flavour.small]\nprefix = \"lab-\"\n").unwrap();
        let terms = |body: &str| ReservationBody::parse(body.as_bytes()).and_then(|body| body.terms(&policy));
        let small = terms(r#"{"tenant":"acme","flavour":"small","count":1}"#).unwrap();
        assert_eq!((small.prefix.as_str(), small.lead), ("lab-", LEAD));
        let unknown = terms(r#"{"tenant":"acme","flavour":"large","count":1}"#).unwrap_err();
        assert_eq!(unknown.code(), Code::UnknownFlavour);
        for wrong in [
            r#"{"tenant":"acme","count":1}"#,
            r#"{"tenant":"acme","flavour":"small","prefix":"lab-","count":1}"#,
            r#"{"tenant":"a b","prefix":"lab-","count":1}"#,
            r#"{"prefix":"lab-","count":1}"#,
            r#"{"tenant":"acme","prefix":"lab-"}"#,
            r#"{"tenant":"acme","prefix":"lab-","count":"1"}"#,
            r#"{"tenant":"acme","prefix":"lab-","count":1,"id":"x"}"#,
            r#"{"tenant":"acme","prefix":"lab-","count":1,"colour":"red"}"#,
            "",
            "[]",
        ] {
            assert_eq!(terms(wrong).unwrap_err().code(), Code::ValidationError, "{wrong}");
        }
    }
}
