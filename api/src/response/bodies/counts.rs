//! Schemas of counts by state, by flavour and by cause.

use broker_domain::{QuarantineCause, Status};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, json};

pub(super) fn causes(_: &mut SchemaGenerator) -> Schema {
    numbers(&QuarantineCause::ALL.map(QuarantineCause::as_str))
}

pub(super) fn counts_by_flavour(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": counts(generator) })
}

pub(super) fn counts_or_none(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "oneOf": [counts(generator), { "type": "null" }] })
}

pub(super) fn counts(_: &mut SchemaGenerator) -> Schema {
    numbers(&Status::ALL.map(Status::as_str).into_iter().chain(["total"]).collect::<Vec<_>>())
}

/// A number for each of `names`.
fn numbers(names: &[&str]) -> Schema {
    let count = json!({ "type": "integer", "minimum": 0 });
    let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), count.clone())).collect();
    json_schema!({ "type": "object", "properties": properties, "required": names })
}
