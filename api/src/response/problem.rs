//! Problems: errors as HTTP responses.
//!
//! A problem is sent as RFC 9457 and, in the same body, as the `error` object that older clients read.

use std::borrow::Cow;
use std::error::Error;

use broker_domain::{InvalidId, Quota, RequestId};
use broker_runtime::errors;
use broker_store::{PolicyUnknown, StoreError};
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::response::bodies::{ErrorBody, ProblemBody, QuotaBody};
use crate::response::codes::{Code, Entry};
use crate::response::{Content, Response};

/// A problem.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    message: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_after: Option<u64>,
    /// The limit that is in the way.
    quota: Option<Box<Quota>>,
    /// The cause, only for the log.
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = code.entry().retry_after;
        Self { code, message: message.into(), headers: Vec::new(), retry_after, quota: None, cause: None }
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ValidationError, message)
    }

    pub(crate) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub(crate) fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Of an act on many: says how many of them were done before.
    pub(crate) fn after(self, done: u64, of: u64) -> Self {
        let message = format!("{} {done} of {of} were done before.", self.message);
        Self { message: message.into(), ..self }
    }

    /// With the limit that is in the way, for programs.
    pub(crate) fn of_quota(self, quota: Quota) -> Self {
        Self { quota: Some(Box::new(quota)), ..self }
    }

    /// Replaces the `Retry-After` of the code.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With `Location`. Our paths hold checked ids only, which are valid in a header.
    pub(crate) fn located(self, path: &str) -> Self {
        match HeaderValue::from_str(path) {
            Ok(value) => self.with(header::LOCATION, value),
            Err(_) => self,
        }
    }

    /// Its code.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The word in metrics.
    pub(crate) fn outcome(&self) -> String {
        self.code.entry().code.to_ascii_lowercase()
    }

    /// The cause and its causes, for the log.
    pub(crate) fn cause_chain(&self) -> Option<String> {
        self.cause.as_deref().map(|cause| errors::chain(cause))
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.code.entry().status
    }

    /// The body of the response to the request `id`.
    pub(crate) fn body(&self, id: RequestId) -> Value {
        let Entry { code, status, title, help, retry_after: _ } = self.code.entry();
        let (id, retry_after) = (id.to_string(), self.retry_after);
        json!(ProblemBody {
            kind: format!("urn:sandbox-broker:problem:{}", code.to_ascii_lowercase().replace('_', "-")),
            title,
            status: status.as_u16(),
            detail: &self.message,
            instance: format!("urn:uuid:{id}"),
            help,
            quota: self.quota.as_ref().map(|quota| QuotaBody {
                flavour: quota.flavour.as_str(),
                held: quota.held,
                max: quota.max,
            }),
            error: ErrorBody { code, message: &self.message, request_id: id, retry_after },
        })
    }

    /// As a response to the request `id`.
    pub(crate) fn into_response(self, id: RequestId) -> Response {
        let content = Content::Problem(self.body(id));
        let mut answer = Response::new(self.status(), content, self.outcome());
        if let Some(seconds) = self.retry_after {
            answer = answer.retry_after(seconds);
        }
        if self.code == Code::Unauthorized {
            answer = answer
                .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sandbox-broker\""));
        }
        self.headers.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<PolicyUnknown> for Problem {
    fn from(error: PolicyUnknown) -> Self {
        Self::unavailable("The policy is not known yet.").because(error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            // What an API writes is bounded and checked before, so a table that refuses it refuses everybody's: that passes.
            StoreError::Refused { .. } => {
                Self::unavailable("The broker's table does not take writes just now.")
            }
            StoreError::Malformed { .. } => {
                Self::new(Code::InternalError, "The broker's table holds something unexpected.")
            }
            StoreError::Conflict
            | StoreError::Unavailable { .. }
            | StoreError::NoTable { .. }
            | StoreError::Denied { .. } => Self::unavailable("The broker's table does not answer."),
        };
        problem.because(error)
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;

    use super::*;

    #[test]
    fn a_problem_is_told_in_both_shapes_and_keeps_its_cause_to_itself() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let problem = Problem::unavailable("words").because(std::io::Error::other("the secret cause"));
        assert_eq!(problem.cause_chain().as_deref(), Some("the secret cause"));
        let answer = problem.into_response(id);
        let Content::Problem(body) = &answer.content else { panic!("a problem") };
        assert_eq!(body["status"], 503);
        assert_eq!(body["detail"], "words");
        let error = json!({ "code": "UNAVAILABLE", "message": "words", "request_id": id.to_string(), "retry_after": 1 });
        assert_eq!(body["error"], error);
        assert!(!body.to_string().contains("secret"));
        let response = answer.into_http(id);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["x-request-id"], id.to_string());
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
