//! `GET /v1/sandboxes/{id}` and `POST …/report-broken`: the sandbox as its owner sees it, read from the table, also after
//! its return; and the return of one that does not work.
//!
//! A report is written here and not by a worker: it is one transaction, and it needs no place in the queue.

use broker_domain::quarantine::one_line;
use broker_domain::{
    EndReason, LeaseEnd, Quarantine, QuarantineCause, RequestId, ReturnRequest, ReturnVerdict, Sandbox,
    SandboxId, Status, Times, Timestamp, TrackId, TrackName, judge_return,
};
use broker_runtime::clock::Clock;
use broker_store::{Store, StoreError, Write};
use http::StatusCode;
use serde_json::json;

use crate::response::Response;
use crate::response::bodies::{OwnedSandbox, Reported};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The handler of sandboxes.
pub(crate) struct Sandboxes {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
}

/// How often a report is decided on anew when the sandbox changed at the same moment.
const TRIES: usize = 5;

impl Sandboxes {
    pub(crate) async fn show(
        &self,
        id: RequestId,
        track: &TrackId,
        sandbox: &str,
    ) -> Result<Response, Problem> {
        let sandbox_id = SandboxId::new(sandbox)?;
        match self.store.sandboxes.get(&sandbox_id).await? {
            Some(sandbox) => shown(&sandbox, track, id),
            None => Err(not_found()),
        }
    }

    /// Ends the caller's lease and puts the sandbox into quarantine. Repeated by the same owner it tells what stands.
    pub(crate) async fn report_broken(
        &self,
        id: RequestId,
        track: &TrackId,
        sandbox: &str,
        reason: Option<&str>,
    ) -> Result<Response, Problem> {
        let sandbox_id = SandboxId::new(sandbox)?;
        for _ in 0..TRIES {
            let now = self.clock.now();
            let stands = self.store.sandboxes.get(&sandbox_id).await?.ok_or_else(not_found)?;
            let times = Times { enqueued_at: now, reply_by: now, deadline: now };
            let request =
                ReturnRequest { request_id: id, track: track.clone(), sandbox_id: sandbox_id.clone(), times };
            let allocation = match judge_return(&stands, &request) {
                ReturnVerdict::End(allocation) => allocation,
                ReturnVerdict::AlreadyReturned(at) => return Ok(reported(&stands, at, id)),
                ReturnVerdict::Expired => {
                    return Err(Problem::new(Code::AllocationExpired, "The allocation has expired."));
                }
                ReturnVerdict::NotOwner => return Err(not_owner()),
                ReturnVerdict::Superseded | ReturnVerdict::Newer => {
                    return Err(Problem::unavailable("The sandbox cannot be judged now."));
                }
            };
            let words = reason.map(one_line).filter(|words| !words.is_empty());
            let quarantine = Quarantine {
                at: now.floor_to_second(),
                cause: QuarantineCause::Report,
                by: track.to_string(),
                reason: words.unwrap_or_else(|| "no reason given".to_owned()),
            };
            let end = LeaseEnd::by_request(EndReason::Reported, now, now, allocation.expires_at);
            match self.store.leases.report(&sandbox_id, &allocation, &end, &quarantine).await {
                Ok(Write::Applied) => {
                    metrics::counter!("broker_reported_broken_total").increment(1);
                    let stands = Sandbox { status: Status::Quarantined, ..stands };
                    return Ok(reported(&stands, end.at, id));
                }
                Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::unavailable("The sandbox changes all the time."))
    }
}

fn reported(sandbox: &Sandbox, ended_at: Timestamp, id: RequestId) -> Response {
    let body = Reported {
        sandbox_id: sandbox.id.as_str(),
        status: sandbox.status,
        ended_at: ended_at.as_secs(),
        request_id: id.to_string(),
    };
    Response::json(StatusCode::OK, json!(body), "reported")
}

fn not_found() -> Problem {
    Problem::new(Code::SandboxNotFound, "There is no sandbox with this id.")
}

fn not_owner() -> Problem {
    Problem::new(Code::NotSandboxOwner, "The sandbox does not belong to the caller.")
}

/// The sandbox for its owner; any other caller learns only that it is not theirs.
fn shown(sandbox: &Sandbox, track: &TrackId, id: RequestId) -> Result<Response, Problem> {
    let allocation = sandbox.allocation.as_ref().filter(|allocation| allocation.lease_key.track == *track);
    let allocation = allocation.ok_or_else(not_owner)?;
    let body = OwnedSandbox {
        sandbox_id: sandbox.id.as_str(),
        name: sandbox.name.as_str(),
        external_id: sandbox.external_id.as_str(),
        attributes: &sandbox.attributes,
        status: sandbox.status,
        allocated_at: allocation.allocated_at.as_secs(),
        expires_at: allocation.expires_at.as_secs(),
        track_name: allocation.track_name.as_ref().map(TrackName::as_str),
        deletion_requested_at: sandbox.deletion_requested_at.map(Timestamp::as_secs),
        request_id: id.to_string(),
    };
    Ok(Response::json(StatusCode::OK, json!(body), "shown"))
}

#[cfg(test)]
mod tests {
    use broker_domain::{Allocation, ExternalId, IdempotencyKey, LeaseKey, SandboxName};
    use broker_runtime::entropy::Entropy;

    use super::*;
    use crate::response::Content;

    fn track(name: &str) -> TrackId {
        TrackId::new(name).unwrap()
    }

    fn sandbox(owner: Option<&str>, status: Status) -> Sandbox {
        let entropy = Entropy::seeded(1);
        Sandbox {
            id: SandboxId::new("s").unwrap(),
            name: SandboxName::new("name").unwrap(),
            external_id: ExternalId::new("ext").unwrap(),
            attributes: broker_domain::ProviderAttributes::default(),
            status,
            version: 2,
            allocation: owner.map(|owner| Allocation {
                id: entropy.allocation_id(),
                lease_key: LeaseKey { track: track(owner), key: IdempotencyKey::new("secret-key").unwrap() },
                track_name: None,
                allocated_at: Timestamp::from_secs(10),
                expires_at: Timestamp::from_secs(20),
                permit: None,
            }),
            term: broker_domain::Term::default(),
            deletion_requested_at: None,
            end_reason: None,
        }
    }

    #[test]
    fn an_owner_sees_his_sandbox_in_every_state() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        for status in [Status::Allocated, Status::PendingDeletion, Status::DeletionFailed, Status::Deleted] {
            let answer = shown(&sandbox(Some("alice"), status), &track("alice"), id).unwrap();
            let Content::Json(body) = answer.content else { panic!("JSON") };
            assert_eq!(body["status"], status.as_str());
            assert_eq!(body["expires_at"], 20);
        }
    }

    #[test]
    fn nobody_else_learns_whose_it_is() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        for held in [sandbox(Some("alice"), Status::Allocated), sandbox(None, Status::Available)] {
            let problem = shown(&held, &track("bob"), id).unwrap_err();
            assert_eq!(problem.code(), Code::NotSandboxOwner);
            let Content::Problem(body) = problem.into_response(id).content else { panic!("a problem") };
            assert!(!body.to_string().contains("alice"));
        }
    }
}
