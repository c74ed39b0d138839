//! Mapping from outcomes to HTTP responses; the only one.
//!
//! [`answer`] makes the response of the synchronous call; [`report`] that of `GET /v1/requests/{id}`, from the same.

use broker_domain::waiting::Standing;
use broker_domain::{Outcome, Quota, RequestId, RequestState};
use http::StatusCode;
use serde_json::{Value, json};

use crate::response::Response;
use crate::response::bodies::{
    AllocationBody, Marked, Queued, RequestReport, RunBody, StoredAnswer, WaitingBody,
};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// What is said of an outcome of a newer program.
pub(crate) const NEWER: &str = "The request ended in a way that only newer processes can tell. Ask again.";
/// The outcome in logs and metrics of a request that stood in a line until its deadline.
pub(crate) const WAITED_IN_VAIN: &str = "waited_in_vain";
/// `Retry-After` of a queued request, in seconds.
const POLL_AGAIN_S: u64 = 1;

/// The response to the request `id` with this outcome.
pub(crate) fn answer(outcome: &Outcome, id: RequestId) -> Response {
    let response = match told(outcome, id) {
        Ok((status, body)) => Response::json(status, body, outcome.as_str()),
        Err(problem) => problem.into_response(id),
    };
    let response = Response { outcome: outcome.as_str().into(), ..response };
    match outcome.grant() {
        Some(grant) => response.located(&format!("/v1/sandboxes/{}", grant.sandbox_id)),
        None => response,
    }
}

/// Status and body of an outcome that is a success; the problem of any other.
fn told(outcome: &Outcome, id: RequestId) -> Result<(StatusCode, Value), Problem> {
    let (code, message) = match outcome {
        Outcome::Created(grant) => return Ok((StatusCode::CREATED, json!(AllocationBody::new(grant, id)))),
        Outcome::Existing(grant) => return Ok((StatusCode::OK, json!(AllocationBody::new(grant, id)))),
        Outcome::Ran(report) => return Ok((StatusCode::OK, json!(RunBody::new(report, id)))),
        Outcome::Marked { sandbox_id, deletion_requested_at, status } => {
            let body = Marked {
                sandbox_id: sandbox_id.as_str(),
                status: *status,
                deletion_requested_at: deletion_requested_at.as_secs(),
                request_id: id.to_string(),
            };
            return Ok((StatusCode::OK, json!(body)));
        }
        Outcome::NoSandboxes => (Code::NoSandboxesAvailable, "No sandbox that fits is available."),
        Outcome::QuotaExceeded(quota) => {
            let Quota { flavour, held, max } = quota;
            let message = if held < max {
                format!(
                    "Others of the tenant wait for {flavour} before this request; it holds {held} of {max}."
                )
            } else {
                format!("The tenant holds {held} of {max} sandboxes of the flavour {flavour}.")
            };
            return Err(Problem::new(Code::QuotaExceeded, message).of_quota(quota.clone()));
        }
        Outcome::KeyReused => {
            (Code::IdempotencyKeyReused, "The key holds a sandbox that a different request was given.")
        }
        Outcome::Superseded => {
            (Code::Unavailable, "A later request of the same key was faster. Repeat the request.")
        }
        Outcome::NotOwner => (Code::NotSandboxOwner, "The sandbox does not belong to the caller."),
        Outcome::AllocationExpired => {
            (Code::AllocationExpired, "The allocation expired and the sandbox was taken back.")
        }
        Outcome::SandboxNotFound => (Code::SandboxNotFound, "There is no sandbox with this id."),
        Outcome::Expired => {
            (Code::Unavailable, "No worker took the request before its deadline; nothing was done.")
        }
        Outcome::Cancelled => (Code::Unavailable, "The request was cancelled; nothing was done."),
        Outcome::DeadLettered { .. } => {
            (Code::InternalError, "The request could not be processed and was kept for the operator.")
        }
        Outcome::Unknown(_) => (Code::Unavailable, NEWER),
    };
    Err(Problem::new(code, message))
}

/// Whether the outcome of a request in a line is what was asked for: its deadline passed, or it was cancelled. Its 503 is no failure.
pub(crate) fn is_as_asked(outcome: &str) -> bool {
    outcome == WAITED_IN_VAIN || outcome == Outcome::Cancelled.as_str()
}

/// The response to a call whose outcome will be found at `GET /v1/requests/{id}`.
pub(crate) fn queued(id: RequestId) -> Response {
    let status = RequestState::Queued.as_str();
    let answer =
        Response::json(StatusCode::ACCEPTED, json!(Queued { request_id: id.to_string(), status }), status);
    answer.located(&place(id)).retry_after(POLL_AGAIN_S)
}

/// The same for a client that sent no `Prefer`, so may not know 202: it repeats the call, and gets the outcome.
pub(crate) fn still_queued(id: RequestId) -> Problem {
    let problem = Problem::new(Code::StillQueued, "The request is queued and its wait is over. Repeat it.");
    problem.retry_after(POLL_AGAIN_S).located(&place(id))
}

/// The path of the outcome of request `id`.
fn place(id: RequestId) -> String {
    format!("/v1/requests/{id}")
}

/// The state of request `id`, which stands in a line.
pub(crate) fn waiting(told: WaitingBody, standing: Standing, id: RequestId) -> Response {
    let status = RequestState::Queued.as_str();
    let report = RequestReport { request_id: id.to_string(), status, waiting: Some(told), response: None };
    Response::json(StatusCode::OK, json!(report), "waiting").retry_after(standing.ask_again_after_s())
}

/// The end of a request that stood in the line of `line` until its deadline.
pub(crate) fn in_vain(line: &str) -> Problem {
    let message = format!(
        "Nothing became free before the deadline that was asked for; until then the request stood in the line of {line}. Nothing was done."
    );
    Problem::new(Code::Unavailable, message)
}

/// The state of request `id`, which stood in the line of `line` until its deadline.
pub(crate) fn waited_in_vain(line: &str, id: RequestId) -> Response {
    let problem = in_vain(line);
    let status = RequestState::Ended(Outcome::Expired).as_str();
    let response = StoredAnswer { status: problem.status().as_u16(), body: problem.body(id) };
    let report =
        RequestReport { request_id: id.to_string(), status, waiting: None, response: Some(response) };
    Response::json(StatusCode::OK, json!(report), status)
}

/// The state of request `id`, with the response that its own call would have had.
pub(crate) fn report(state: &RequestState, id: RequestId) -> Response {
    let status = state.as_str();
    let report =
        |response| json!(RequestReport { request_id: id.to_string(), status, waiting: None, response });
    match state {
        RequestState::Queued => {
            Response::json(StatusCode::OK, report(None), status).retry_after(POLL_AGAIN_S)
        }
        RequestState::Ended(outcome) => {
            let (status_of_call, body) =
                told(outcome, id).unwrap_or_else(|problem| (problem.status(), problem.body(id)));
            let response = StoredAnswer { status: status_of_call.as_u16(), body };
            Response::json(StatusCode::OK, report(Some(response)), status)
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::{
        ExternalId, FlavourName, Grant, JobReport, SandboxId, SandboxName, Status, Timestamp,
    };
    use broker_runtime::entropy::Entropy;
    use http::header;

    use super::*;
    use crate::response::Content;

    fn grant() -> Grant {
        Grant {
            sandbox_id: SandboxId::new("sandbox-1").unwrap(),
            name: SandboxName::new("lab 1").unwrap(),
            external_id: ExternalId::new("identity/accounts/1").unwrap(),
            track_name: None,
            allocated_at: Timestamp::from_secs(100),
            expires_at: Timestamp::from_secs(200),
            attributes: broker_domain::ProviderAttributes::default(),
        }
    }

    fn every_outcome() -> Vec<(Outcome, u16)> {
        vec![
            (Outcome::Created(grant()), 201),
            (Outcome::Existing(grant()), 200),
            (Outcome::NoSandboxes, 409),
            (
                Outcome::QuotaExceeded(Quota {
                    flavour: FlavourName::new("small").unwrap(),
                    held: 2,
                    max: 2,
                }),
                409,
            ),
            (Outcome::KeyReused, 422),
            (Outcome::Superseded, 503),
            (
                Outcome::Marked {
                    sandbox_id: grant().sandbox_id,
                    deletion_requested_at: Timestamp::from_secs(7),
                    status: Status::PendingDeletion,
                },
                200,
            ),
            (Outcome::NotOwner, 403),
            (Outcome::AllocationExpired, 403),
            (Outcome::SandboxNotFound, 404),
            (Outcome::Expired, 503),
            (Outcome::Cancelled, 503),
            (Outcome::Ran(JobReport::default()), 200),
            (Outcome::DeadLettered { reason: "malformed".to_owned() }, 500),
        ]
    }

    #[test]
    fn an_outcome_is_told_in_the_same_words_when_it_is_polled() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        for (outcome, status) in every_outcome() {
            let direct = answer(&outcome, id);
            assert_eq!(direct.status.as_u16(), status, "{outcome:?}");
            assert_eq!(direct.outcome, outcome.as_str());
            let polled = report(&RequestState::Ended(outcome), id);
            let (Content::Json(polled), Content::Json(direct) | Content::Problem(direct)) =
                (polled.content, direct.content)
            else {
                panic!("neither is metrics")
            };
            assert_eq!(polled["response"], json!({ "status": status, "body": direct }));
        }
    }

    #[test]
    fn a_new_allocation_tells_everything_the_client_needs() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let response = answer(&Outcome::Created(grant()), id).into_http(id);
        assert_eq!(response.headers()[header::LOCATION], "/v1/sandboxes/sandbox-1");
        let Content::Json(body) = answer(&Outcome::Created(grant()), id).content else { panic!("JSON") };
        let expected = json!({
            "sandbox_id": "sandbox-1", "name": "lab 1", "external_id": "identity/accounts/1", "allocated_at": 100,
            "expires_at": 200, "track_name": null, "request_id": id.to_string(),
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_queued_request_says_where_and_when_to_ask() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        for (answer, status) in [(queued(id), 202), (still_queued(id).into_response(id), 503)] {
            let response = answer.into_http(id);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::LOCATION], format!("/v1/requests/{id}"));
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
    }
}
