//! Codes of problems: status, title, help and `Retry-After` of each, as in infra/docs/API.md.
//!
//! Invariant: 409, 429 and 503 always carry `Retry-After`.

use http::StatusCode;

/// The code of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is explained by its row in the table")]
pub enum Code {
    ValidationError,
    UnknownFlavour,
    MissingSandboxId,
    Unauthorized,
    Forbidden,
    NotSandboxOwner,
    AllocationExpired,
    SandboxNotFound,
    RequestNotFound,
    ReservationNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    NoSandboxesAvailable,
    QuotaExceeded,
    NotCancellable,
    NotRenewable,
    CannotWait,
    NotPausable,
    ReservationConflict,
    ReservationEnded,
    PolicyChanged,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMedia,
    IdempotencyKeyReused,
    IfMatchMissing,
    RateLimitExceeded,
    HeadersTooLarge,
    InternalError,
    NotImplemented,
    Overloaded,
    StillQueued,
    Unavailable,
}

/// A row of the table of codes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The code in responses.
    pub code: &'static str,
    /// Its HTTP status.
    pub status: StatusCode,
    /// The title, the same for every problem of the code.
    pub title: &'static str,
    /// The advice to the client.
    pub help: &'static str,
    /// The number of seconds after which a repeat may help, unless the problem has its own.
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
    pub const ALL: [Self; 34] = [
        Self::ValidationError,
        Self::UnknownFlavour,
        Self::MissingSandboxId,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotSandboxOwner,
        Self::AllocationExpired,
        Self::SandboxNotFound,
        Self::RequestNotFound,
        Self::ReservationNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::NoSandboxesAvailable,
        Self::QuotaExceeded,
        Self::NotCancellable,
        Self::NotRenewable,
        Self::CannotWait,
        Self::NotPausable,
        Self::ReservationConflict,
        Self::ReservationEnded,
        Self::PolicyChanged,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMedia,
        Self::IdempotencyKeyReused,
        Self::IfMatchMissing,
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
            Self::UnknownFlavour => row("UNKNOWN_FLAVOUR", S::BAD_REQUEST, "There is no such flavour", "Name a flavour of the operator's policy, or none."),
            Self::MissingSandboxId => row("MISSING_SANDBOX_ID", S::BAD_REQUEST, "The owner is missing", "Send X-Instruqt-Sandbox-ID (or X-Track-ID) with the id of the lab instance."),
            Self::Unauthorized => row("UNAUTHORIZED", S::UNAUTHORIZED, "The token is missing or wrong", "Send Authorization: Bearer with a configured token."),
            Self::Forbidden => row("FORBIDDEN", S::FORBIDDEN, "The token may not do this", "Use a token of the right role, or one that is not bound to another track prefix."),
            Self::NotSandboxOwner => row("NOT_SANDBOX_OWNER", S::FORBIDDEN, "The sandbox is not the caller's", "Use the sandbox id that the caller's own allocate answered with."),
            Self::AllocationExpired => row("ALLOCATION_EXPIRED", S::FORBIDDEN, "The allocation had expired", "Nothing is left to give back; allocate again if a sandbox is needed."),
            Self::SandboxNotFound => row("SANDBOX_NOT_FOUND", S::NOT_FOUND, "There is no such sandbox", "Check the sandbox id."),
            Self::RequestNotFound => row("REQUEST_NOT_FOUND", S::NOT_FOUND, "There is no such request", "Only requests answered with 202 or STILL_QUEUED can be asked for, by their own track, for 30 days."),
            Self::ReservationNotFound => row("RESERVATION_NOT_FOUND", S::NOT_FOUND, "There is no such reservation", "Check the id; one that ended is shown for a week."),
            Self::NotFound => row("NOT_FOUND", S::NOT_FOUND, "There is nothing at this path", "Check the path; /v1/docs lists every route."),
            Self::MethodNotAllowed => row("METHOD_NOT_ALLOWED", S::METHOD_NOT_ALLOWED, "The method is not allowed here", "Use a method that the Allow header names."),
            Self::RequestTimeout => row("REQUEST_TIMEOUT", S::REQUEST_TIMEOUT, "The request arrived too slowly", "Send the head within 5 s and the body within 10 s, and repeat with the same key."),
            Self::NoSandboxesAvailable => row("NO_SANDBOXES_AVAILABLE", S::CONFLICT, "No sandbox is available", "Wait for sandboxes to come back, or add to the pool; then repeat with the same key.").again_after(5),
            Self::QuotaExceeded => row("QUOTA_EXCEEDED", S::CONFLICT, "The tenant's limit is reached", "Give sandboxes back, wait with max_wait_s, or ask the operator for more; GET /v1/quota shows the use.").again_after(5),
            Self::NotCancellable => row("NOT_CANCELLABLE", S::CONFLICT, "The request cannot be cancelled", "Only an asynchronous request that is still queued can; read its outcome.").again_after(1),
            Self::NotRenewable => row("NOT_RENEWABLE", S::CONFLICT, "The lease cannot be renewed so", "Leave out exact and take what is granted, or ask for a time that the message allows.").again_after(1),
            Self::CannotWait => row("CANNOT_WAIT", S::CONFLICT, "The request cannot wait", "Leave out max_wait_s: waiting would not help, or is off at this broker.").again_after(5),
            Self::NotPausable => row("NOT_PAUSABLE", S::CONFLICT, "The job cannot be paused", "Turn waiting off everywhere (BROKER_WAITING) and wait until no line is listed; then pause serve.").again_after(60),
            Self::ReservationConflict => row("RESERVATION_CONFLICT", S::CONFLICT, "The reservation does not fit", "Reserve fewer, at another time, or change what the message names.").again_after(60),
            Self::ReservationEnded => row("RESERVATION_ENDED", S::CONFLICT, "The reservation has ended", "Make a new one.").again_after(60),
            Self::PolicyChanged => row("POLICY_CHANGED", S::PRECONDITION_FAILED, "Another policy stands there", "Read the policy again, repeat the change on it, and send its ETag in If-Match."),
            Self::PayloadTooLarge => row("PAYLOAD_TOO_LARGE", S::PAYLOAD_TOO_LARGE, "The body is too large", "Send at most 16 KiB."),
            Self::UriTooLong => row("URI_TOO_LONG", S::URI_TOO_LONG, "The path is too long", "Send at most 2 KiB of path and query."),
            Self::UnsupportedMedia => row("UNSUPPORTED_MEDIA", S::UNSUPPORTED_MEDIA_TYPE, "The body is encoded", "Send the body as it is, without Content-Encoding."),
            Self::IdempotencyKeyReused => row("IDEMPOTENCY_KEY_REUSED", S::UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request", "Use a new key for a new request, or repeat the first one unchanged."),
            Self::IfMatchMissing => row("IF_MATCH_MISSING", S::PRECONDITION_REQUIRED, "The change names nothing that it replaces", "Send If-Match with the ETag of what you read, or * for whatever stands there."),
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_page_lists_every_code() {
        let row = |code: Code| {
            let Entry { code, status, title, help, .. } = code.entry();
            format!("| `{code}` | {} | {title} | {help} |\n", status.as_u16())
        };
        let rows: String = Code::ALL.into_iter().map(row).collect();
        let table = format!("| code | status | cause | what to do |\n|---|---|---|---|\n{rows}");
        let readme = include_str!("../../../infra/docs/API.md");
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
}
