//! What can go wrong, and how it is said over HTTP: the only mapping from errors to HTTP.
//!
//! [`Code::entry`] is the table of the README: code, status, title, what to do. A problem is sent as RFC 9457 and, in the
//! same body, as the `error` object that older clients read. `outcome` maps how a request ended. Invariant: 409, 429 and
//! 503 always carry `Retry-After`. What it does not do: decide anything.

pub(crate) mod outcome;

use std::borrow::Cow;
use std::error::Error;

use broker_domain::{InvalidId, RequestId};
use broker_store::StoreError;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::json;

use crate::response::bodies::{ErrorBody, ProblemBody};
use crate::response::{Answer, Content};

/// A problem, as clients tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is explained by its row in the table")]
pub enum Code {
    ValidationError,
    MissingSandboxId,
    Unauthorized,
    Forbidden,
    NotSandboxOwner,
    AllocationExpired,
    SandboxNotFound,
    RequestNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    NoSandboxesAvailable,
    NotCancellable,
    PayloadTooLarge,
    UriTooLong,
    IdempotencyKeyReused,
    RateLimitExceeded,
    HeadersTooLarge,
    InternalError,
    NotImplemented,
    Overloaded,
    StillQueued,
    Unavailable,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As clients see it.
    pub code: &'static str,
    /// Its HTTP status.
    pub status: StatusCode,
    /// What it is, always in the same words.
    pub title: &'static str,
    /// What whoever gets it should do.
    pub help: &'static str,
    /// After how many seconds asking again may help, unless the case says otherwise.
    pub retry_after: Option<u64>,
}

const fn row(code: &'static str, status: StatusCode, title: &'static str, help: &'static str) -> Entry {
    Entry { code, status, title, help, retry_after: None }
}

impl Entry {
    const fn again_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl Code {
    /// Every code, in the order of the table.
    pub const ALL: [Self; 23] = [
        Self::ValidationError,
        Self::MissingSandboxId,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotSandboxOwner,
        Self::AllocationExpired,
        Self::SandboxNotFound,
        Self::RequestNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::NoSandboxesAvailable,
        Self::NotCancellable,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::IdempotencyKeyReused,
        Self::RateLimitExceeded,
        Self::HeadersTooLarge,
        Self::InternalError,
        Self::NotImplemented,
        Self::Overloaded,
        Self::StillQueued,
        Self::Unavailable,
    ];

    /// Its row of the table.
    #[rustfmt::skip]
    pub const fn entry(self) -> Entry {
        use StatusCode as S;
        match self {
            Self::ValidationError => row("VALIDATION_ERROR", S::BAD_REQUEST, "The request is not valid", "Correct what the message names; repeating it unchanged does not help."),
            Self::MissingSandboxId => row("MISSING_SANDBOX_ID", S::BAD_REQUEST, "The owner is missing", "Send X-Instruqt-Sandbox-ID (or X-Track-ID) with the id of the lab instance."),
            Self::Unauthorized => row("UNAUTHORIZED", S::UNAUTHORIZED, "The token is missing or wrong", "Send Authorization: Bearer with a configured token."),
            Self::Forbidden => row("FORBIDDEN", S::FORBIDDEN, "The token may not do this", "Use a token of the right role, or one that is not bound to another track prefix."),
            Self::NotSandboxOwner => row("NOT_SANDBOX_OWNER", S::FORBIDDEN, "The sandbox is not the caller's", "Use the sandbox id that the caller's own allocate answered with."),
            Self::AllocationExpired => row("ALLOCATION_EXPIRED", S::FORBIDDEN, "The allocation had expired", "Nothing is left to give back; allocate again if a sandbox is needed."),
            Self::SandboxNotFound => row("SANDBOX_NOT_FOUND", S::NOT_FOUND, "There is no such sandbox", "Check the sandbox id."),
            Self::RequestNotFound => row("REQUEST_NOT_FOUND", S::NOT_FOUND, "There is no such request", "Only requests answered with 202 or STILL_QUEUED can be asked for, by their own track, for 30 days."),
            Self::NotFound => row("NOT_FOUND", S::NOT_FOUND, "There is nothing at this path", "Check the path; /v1/docs lists every route."),
            Self::MethodNotAllowed => row("METHOD_NOT_ALLOWED", S::METHOD_NOT_ALLOWED, "The method is not allowed here", "Use a method that the Allow header names."),
            Self::RequestTimeout => row("REQUEST_TIMEOUT", S::REQUEST_TIMEOUT, "The request arrived too slowly", "Send the head within 5 s and the body within 10 s, and repeat with the same key."),
            Self::NoSandboxesAvailable => row("NO_SANDBOXES_AVAILABLE", S::CONFLICT, "No sandbox is available", "Wait for sandboxes to come back, or add to the pool; then repeat with the same key.").again_after(5),
            Self::NotCancellable => row("NOT_CANCELLABLE", S::CONFLICT, "The request cannot be cancelled", "Only an asynchronous request that is still queued can; read its outcome.").again_after(1),
            Self::PayloadTooLarge => row("PAYLOAD_TOO_LARGE", S::PAYLOAD_TOO_LARGE, "The body is too large", "Send at most 16 KiB."),
            Self::UriTooLong => row("URI_TOO_LONG", S::URI_TOO_LONG, "The path is too long", "Send at most 2 KiB of path and query."),
            Self::IdempotencyKeyReused => row("IDEMPOTENCY_KEY_REUSED", S::UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request", "Use a new key for a new request, or repeat the first one unchanged."),
            Self::RateLimitExceeded => row("RATE_LIMIT_EXCEEDED", S::TOO_MANY_REQUESTS, "Too many requests", "Slow down; repeat after Retry-After.").again_after(1),
            Self::HeadersTooLarge => row("HEADERS_TOO_LARGE", S::REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large", "Send at most 16 KiB of request line and headers, and at most 100 of them."),
            Self::InternalError => row("INTERNAL_ERROR", S::INTERNAL_SERVER_ERROR, "The broker failed", "Report the request id to the operator; repeating with the same key is safe."),
            Self::NotImplemented => row("NOT_IMPLEMENTED", S::NOT_IMPLEMENTED, "The transfer coding is not understood", "Send the body with Content-Length or Transfer-Encoding: chunked, and no other transfer coding."),
            Self::Overloaded => row("OVERLOADED", S::SERVICE_UNAVAILABLE, "Too many requests are waiting", "Nothing was started; repeat with the same key after Retry-After.").again_after(1),
            Self::StillQueued => row("STILL_QUEUED", S::SERVICE_UNAVAILABLE, "The request is still queued", "Repeat with the same key after Retry-After and get what this one is given, or ask at Location. With Prefer: wait=N it is a 202 instead.").again_after(1),
            Self::Unavailable => row("UNAVAILABLE", S::SERVICE_UNAVAILABLE, "The broker cannot answer just now", "Repeat with the same key after Retry-After; that is always safe.").again_after(1),
        }
    }
}

/// A request that was not satisfied.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    message: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_after: Option<u64>,
    /// What only the log is told.
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = code.entry().retry_after;
        Self { code, message: message.into(), headers: Vec::new(), retry_after, cause: None }
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

    /// Asking again helps after `seconds`, in place of what the table says.
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

    #[cfg(test)]
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// The word for it in metrics.
    pub(crate) fn outcome(&self) -> String {
        self.code.entry().code.to_ascii_lowercase()
    }

    /// The cause and its causes, for the log.
    pub(crate) fn told_cause(&self) -> Option<String> {
        let first: &dyn Error = self.cause.as_deref()?;
        let chain = std::iter::successors(Some(first), |&error| error.source());
        Some(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "))
    }

    /// As an answer to the request `id`.
    pub(crate) fn into_answer(self, id: RequestId) -> Answer {
        let Entry { code, status, title, help, retry_after: _ } = self.code.entry();
        let retry_after = self.retry_after;
        let id = id.to_string();
        let body = ProblemBody {
            kind: format!("urn:sandbox-broker:problem:{}", code.to_ascii_lowercase().replace('_', "-")),
            title,
            status: status.as_u16(),
            detail: &self.message,
            instance: format!("urn:uuid:{id}"),
            help,
            error: ErrorBody { code, message: &self.message, request_id: id, retry_after },
        };
        let mut answer = Answer::new(status, Content::Problem(json!(body)), self.outcome());
        if let Some(seconds) = retry_after {
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

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_retryable() {
            Self::unavailable("The broker's table does not answer.").because(error)
        } else {
            Self::new(Code::InternalError, "The broker's table refused or holds something unexpected.")
                .because(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;

    use super::*;

    #[test]
    fn the_page_lists_every_code() {
        let row = |code: Code| {
            let Entry { code, status, title, help, .. } = code.entry();
            format!("| `{code}` | {} | {title} | {help} |\n", status.as_u16())
        };
        let rows: String = Code::ALL.into_iter().map(row).collect();
        let table = format!("| code | status | cause | what to do |\n|---|---|---|---|\n{rows}");
        let readme = include_str!("../../../../infra/docs/API.md");
        let (_, after) = readme.split_once("<!-- codes: ").unwrap();
        let (_, after) = after.split_once(" -->\n").unwrap();
        let (told, _) = after.split_once("<!-- /codes -->").unwrap();
        assert_eq!(told, table, "put this between the codes marks of infra/docs/API.md:\n{table}");
    }

    #[test]
    fn every_code_has_a_row_of_its_own_and_an_error_status() {
        let codes: HashSet<_> = Code::ALL.iter().map(|code| code.entry().code).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            let Entry { status, title, help, retry_after, .. } = code.entry();
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
            assert!(!title.is_empty() && help.ends_with('.'), "{code:?}");
            assert_eq!(retry_after.is_some(), matches!(status.as_u16(), 409 | 429 | 503), "{code:?}");
        }
    }

    #[test]
    fn a_problem_is_told_in_both_shapes_and_keeps_its_cause_to_itself() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let problem = Problem::unavailable("words").because(std::io::Error::other("the secret cause"));
        assert_eq!(problem.told_cause().as_deref(), Some("the secret cause"));
        let answer = problem.into_answer(id);
        let Content::Problem(body) = &answer.content else { panic!("a problem") };
        assert_eq!(body["status"], 503);
        assert_eq!(body["detail"], "words");
        let error = json!({ "code": "UNAVAILABLE", "message": "words", "request_id": id.to_string(), "retry_after": 1 });
        assert_eq!(body["error"], error);
        assert!(!body.to_string().contains("secret"));
        let response = answer.into_response(id);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["x-request-id"], id.to_string());
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
