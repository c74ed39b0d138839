//! Builder of OpenAPI operations, with the responses and headers that all routes of a kind share.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::headers::{self, Header};
use super::{OPERATOR, PLATFORM, parameters};
use crate::request::parameters::Parameter;
use crate::response::bodies::ProblemBody;
use crate::response::codes::Code;

/// The tags of the routes.
pub(super) const TRACK: &str = "tracks";
pub(super) const ADMIN: &str = "operators";
/// The errors of every request.
const EVERYWHERE: [Code; 5] = [
    Code::ValidationError,
    Code::RequestTimeout,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::NotImplemented,
];
/// The errors of a request that needs a token and may have a body.
const AUTHENTICATED: [Code; 8] = [
    Code::Unauthorized,
    Code::Forbidden,
    Code::PayloadTooLarge,
    Code::UnsupportedMedia,
    Code::RateLimitExceeded,
    Code::InternalError,
    Code::Overloaded,
    Code::Unavailable,
];
/// The errors of a request that needs no token and is no probe's.
pub(super) const OPEN: [Code; 2] = [Code::RateLimitExceeded, Code::Overloaded];

/// The shared components.
pub(super) struct Components {
    schemas: SchemaGenerator,
    failures: Map<String, Value>,
}

impl Components {
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12().for_serialize();
        settings.definitions_path = "/components/schemas".into();
        Self { schemas: settings.into_generator(), failures: Map::new() }
    }

    /// A reference to the response of this status with any of these codes; if `preferred`, with the preference that was applied.
    fn failure(&mut self, status: u16, codes: &[Code], preferred: bool) -> Value {
        let problem = self.schemas.subschema_for::<ProblemBody<'_>>();
        let lines = codes.iter().map(|code| {
            let entry = code.entry();
            format!("- `{}`: {}. {}", entry.code, entry.title, entry.help)
        });
        let names: Vec<_> = codes.iter().map(|code| code.entry().code).collect();
        let narrowed = json!({ "properties": { "error": { "properties": { "code": { "enum": names } } } } });
        let answer = json!({
            "description": lines.collect::<Vec<_>>().join("\n"),
            "headers": headers::references(&headers::of_failure(status, codes, preferred)),
            "content": { "application/problem+json": { "schema": { "allOf": [problem, narrowed] } } },
        });
        let name = names.join(".") + if preferred { ".PREFERRED" } else { "" };
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        self.failures.insert(name, answer);
        reference
    }

    /// All components, with these security schemes.
    pub(super) fn finish(mut self, security_schemes: &Value) -> Value {
        json!({
            "schemas": self.schemas.take_definitions(true),
            "responses": self.failures,
            "headers": headers::all(),
            "securitySchemes": security_schemes,
        })
    }
}

/// An operation under construction.
pub(super) struct Operation<'g> {
    parts: &'g mut Components,
    said: Value,
    parameters: Vec<Value>,
    answers: Map<String, Value>,
    problems: Vec<Code>,
    /// Whether its outcomes tell the preference that was applied.
    prefers: bool,
}

impl<'g> Operation<'g> {
    /// An operation without a token.
    pub(super) fn by_anyone(parts: &'g mut Components, tag: &str, id: &str, summary: &str) -> Self {
        let said = json!({ "tags": [tag], "operationId": id, "summary": summary });
        let (parameters, answers, problems) = (Vec::new(), Map::new(), EVERYWHERE.to_vec());
        Self { parts, said, parameters, answers, problems, prefers: false }
    }

    /// An operation of a platform, for no track.
    pub(super) fn by_platform(parts: &'g mut Components, tag: &str, id: &str, summary: &str) -> Self {
        Self::by_anyone(parts, tag, id, summary).secured(PLATFORM)
    }

    /// An operation of a platform on behalf of a track.
    pub(super) fn by_track(parts: &'g mut Components, tag: &str, id: &str, summary: &str) -> Self {
        Self::by_platform(parts, tag, id, summary).takes(parameters::owner()).fails(&[Code::MissingSandboxId])
    }

    /// An operation of an operator.
    pub(super) fn by_operator(parts: &'g mut Components, tag: &str, id: &str, summary: &str) -> Self {
        Self::by_anyone(parts, tag, id, summary).secured(OPERATOR)
    }

    fn secured(mut self, scheme: &str) -> Self {
        self.said["security"] = json!([{ scheme: [] }]);
        self.fails(&AUTHENTICATED)
    }

    /// Adds the description.
    pub(super) fn says(mut self, description: &str) -> Self {
        self.said["description"] = description.into();
        self
    }

    /// Adds a parameter.
    pub(super) fn takes(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Adds `Prefer`, of which every outcome tells what was applied.
    pub(super) fn prefers(mut self, parameter: Value) -> Self {
        self.prefers = true;
        self.takes(parameter)
    }

    /// Adds parameters of the query.
    pub(super) fn takes_query(mut self, query: &[Parameter]) -> Self {
        self.parameters.extend(query.iter().map(parameters::query));
        self
    }

    /// Adds an optional JSON body.
    pub(super) fn takes_body<T: JsonSchema>(self, description: &str) -> Self {
        self.with_body::<T>(false, description)
    }

    /// Adds a JSON body that must be there.
    pub(super) fn needs_body<T: JsonSchema>(self, description: &str) -> Self {
        self.with_body::<T>(true, description)
    }

    /// Adds a JSON body. Its schema is inline: it may accept more than is ever written.
    fn with_body<T: JsonSchema>(mut self, required: bool, description: &str) -> Self {
        let reading = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let mut schema = reading.into_root_schema_for::<T>();
        schema.remove("$schema");
        self.said["requestBody"] = json!({
            "required": required,
            "description": description,
            "content": { "application/json": { "schema": schema } },
        });
        self
    }

    /// Adds a body of plain text.
    pub(super) fn takes_text(mut self, description: &str) -> Self {
        self.said["requestBody"] = json!({
            "required": true,
            "description": description,
            "content": { "text/plain": { "schema": { "type": "string" } } },
        });
        self
    }

    /// Adds a response with a JSON body of type `T`.
    pub(super) fn answers<T: JsonSchema>(self, status: u16, what: &str, headers: &[Header]) -> Self {
        let schema = json!(self.parts.schemas.subschema_for::<T>());
        self.answers_with("application/json", schema, status, what, headers)
    }

    /// Adds a response with a JSON body of type `T` or `U`.
    pub(super) fn answers_either<T: JsonSchema, U: JsonSchema>(
        self,
        status: u16,
        what: &str,
        headers: &[Header],
    ) -> Self {
        let either = [self.parts.schemas.subschema_for::<T>(), self.parts.schemas.subschema_for::<U>()];
        self.answers_with("application/json", json!({ "oneOf": either }), status, what, headers)
    }

    /// Adds a response with text of this media type.
    pub(super) fn answers_text(self, media_type: &str, what: &str) -> Self {
        self.answers_with(media_type, json!({ "type": "string" }), 200, what, &[])
    }

    /// Adds a response with a body of this media type and schema.
    pub(super) fn answers_with(
        mut self,
        media_type: &str,
        schema: Value,
        status: u16,
        what: &str,
        headers: &[Header],
    ) -> Self {
        let answer = json!({
            "description": what,
            "headers": headers::references(headers),
            "content": { media_type: { "schema": schema } },
        });
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// Adds a link: the response's `field` is the `parameter` of `operation`.
    pub(super) fn leads_to(mut self, status: u16, operation: &str, parameter: &str, field: &str) -> Self {
        let mut parameters = json!({ format!("path.{parameter}"): format!("$response.body#/{field}") });
        if self.said["security"][0].get(PLATFORM).is_some() {
            let owner = parameters::OWNER;
            parameters[format!("header.{owner}")] = format!("$request.header.{owner}").into();
        }
        let link = json!({ "operationId": operation, "parameters": parameters });
        self.answers[&status.to_string()]["links"][operation] = link;
        self
    }

    /// Adds error codes.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.problems.extend(codes);
        self
    }

    /// The finished operation.
    pub(super) fn finish(mut self) -> Value {
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL.into_iter().filter(|code| self.problems.contains(code)) {
            by_status.entry(code.entry().status.as_u16()).or_default().push(code);
        }
        for (status, codes) in by_status {
            // The end of a request that was sent to the workers.
            let preferred = self.prefers && matches!(status, 403 | 404 | 409 | 422 | 500 | 503);
            self.answers.insert(status.to_string(), self.parts.failure(status, &codes, preferred));
        }
        if !self.parameters.is_empty() {
            self.said["parameters"] = self.parameters.into();
        }
        self.said["responses"] = self.answers.into();
        self.said
    }
}
