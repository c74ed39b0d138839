//! `POST /v1/sandboxes/{id}/renew`: the owner keeps a sandbox for longer, or says that it lives.
//!
//! Invariants: the end that is answered stands in the table, on sandbox and lease, in one transaction; a 200 holds. A renewal
//! and an expiry at the same moment have one winner, because both are conditional on the lease. No worker is asked: there is
//! nothing to choose, and heartbeats must not wait behind allocates.

use broker_domain::{
    Allocation, EndReason, LeaseBounds, NotRenewable, RenewRequest, RenewVerdict, Renewal, RequestId,
    Sandbox, SandboxId, TrackId, judge_renewal, renew,
};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_store::{Store, Write, retry_on_conflict};
use http::StatusCode;
use serde_json::json;

use crate::request::body::RenewBody;
use crate::response::Response;
use crate::response::bodies::Renewed;
use crate::response::codes::Code;
use crate::response::outcome;
use crate::response::problem::Problem;

/// How often a renewal is decided on anew because the lease changed at the same moment.
const TRIES: usize = 5;

/// The handler of renewals.
pub(crate) struct Renewals {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) bounds: LeaseBounds,
}

impl Renewals {
    pub(crate) async fn handle(
        &self,
        id: RequestId,
        track: &TrackId,
        sandbox: &str,
        body: &[u8],
    ) -> Result<Response, Problem> {
        let sandbox_id = SandboxId::new(sandbox)?;
        let wanted = RenewBody::parse(body)?.wanted()?;
        for _ in 0..TRIES {
            let read = retry_on_conflict(&self.entropy, || self.store.sandboxes.get(&sandbox_id)).await?;
            let sandbox =
                read.ok_or_else(|| Problem::new(Code::SandboxNotFound, "There is no sandbox with this id."))?;
            let allocation = live(&sandbox, track)?;
            if let Some(renewal) = self.renewed(&sandbox, allocation, &wanted).await? {
                return Ok(told(&sandbox_id, renewal, id));
            }
        }
        Err(Problem::unavailable("The lease changes all the time."))
    }

    /// The lease's new end, which stands in the table; `None` if the lease is not as it was read.
    async fn renewed(
        &self,
        sandbox: &Sandbox,
        allocation: &Allocation,
        wanted: &RenewRequest,
    ) -> Result<Option<Renewal>, Problem> {
        let now = self.clock.now();
        let renewal = renew(allocation, sandbox.term, wanted, &self.bounds, now).map_err(not_renewable)?;
        if !renewal.moves {
            return Ok(Some(renewal));
        }
        crash_points::point(Point::BeforeRenew);
        let write = || self.store.leases.renew(&sandbox.id, allocation, renewal.expires_at, now);
        let written = retry_on_conflict(&self.entropy, write).await?;
        crash_points::point(Point::Renewed);
        Ok(match written {
            Write::Applied => Some(renewal),
            Write::Rejected(()) => None,
        })
    }
}

/// The live lease of `track` on `sandbox`.
fn live<'s>(sandbox: &'s Sandbox, track: &TrackId) -> Result<&'s Allocation, Problem> {
    match judge_renewal(sandbox, track) {
        RenewVerdict::Live(allocation) => Ok(allocation),
        RenewVerdict::Ended(reason) => Err(Problem::new(Code::AllocationExpired, ended(reason))),
        RenewVerdict::NotOwner => {
            Err(Problem::new(Code::NotSandboxOwner, "The sandbox does not belong to the caller."))
        }
        RenewVerdict::Newer => Err(Problem::new(Code::Unavailable, outcome::NEWER)),
    }
}

const fn ended(reason: Option<EndReason>) -> &'static str {
    match reason {
        Some(EndReason::Expired) => "The allocation expired and the sandbox was taken back.",
        Some(EndReason::Abandoned) => "The heartbeats stopped and the sandbox was taken back.",
        Some(EndReason::Returned) => "The sandbox was given back.",
        Some(EndReason::Released) => "An operator took the sandbox back.",
        Some(EndReason::Reported) => "The sandbox was reported broken.",
        Some(EndReason::Unknown) | None => "The allocation has ended.",
    }
}

fn not_renewable(NotRenewable { nearest, latest }: NotRenewable) -> Problem {
    let (nearest, latest) = (nearest.as_secs(), latest.as_secs());
    let why = format!(
        "The lease cannot end exactly then: {nearest} is nearest, and {latest} the latest that it can end."
    );
    Problem::new(Code::NotRenewable, why)
}

fn told(sandbox_id: &SandboxId, renewal: Renewal, id: RequestId) -> Response {
    let body = Renewed {
        sandbox_id: sandbox_id.as_str(),
        expires_at: renewal.expires_at.as_secs(),
        max_expires_at: renewal.latest.as_secs(),
        request_id: id.to_string(),
    };
    Response::json(StatusCode::OK, json!(body), if renewal.moves { "renewed" } else { "unchanged" })
}
