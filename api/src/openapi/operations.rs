//! Operations of the routes: one match, so no route is forgotten.

use broker_domain::STALE_GRACE_HOURS;
use serde_json::{Value, json};

use super::headers::{LOCATION, MAYBE_RETRY_AFTER, PREFERENCE_APPLIED, RETRY_AFTER};
use super::operation::{Components, Operation};
use super::parameters;
use crate::limits;
use crate::request::body::AllocateBody;
use crate::response::codes::Code;
use crate::routes::{Admin, Route};
use broker_dead_letters::{PageView, ReplayReport, WholeView};

use crate::response::bodies::{
    Alive, Allocation, Marked, OwnedSandbox, Page, Queued, QueuedRun, Readiness, RequestReport, Run, Stats,
};

/// The tags of the routes.
pub(super) const TRACK: &str = "tracks";
pub(super) const ADMIN: &str = "operators";
pub(super) const PROCESS: &str = "the process";

/// The operation of `route`.
pub(super) fn operation(route: Route, parts: &mut Components) -> Value {
    match route {
        Route::Allocate => allocate(parts),
        Route::ReturnSandbox => return_sandbox(parts),
        Route::Sandbox => sandbox(parts),
        Route::Request => request(parts),
        Route::Cancel => cancel(parts),
        Route::Admin(admin) => by_operator(admin, parts),
        Route::Health => Operation::by_anyone(parts, PROCESS, "getHealth", "Liveness of the process")
            .answers::<Alive>(200, "It does.", &[])
            .finish(),
        Route::Ready => Operation::by_anyone(parts, PROCESS, "getReadiness", "Readiness of the process")
            .says("From cached state; no dependency is called.")
            .answers::<Readiness>(200, "It can.", &[])
            .answers::<Readiness>(503, "It cannot.", &[RETRY_AFTER])
            .finish(),
        Route::Metrics => Operation::by_anyone(parts, PROCESS, "getMetrics", "Metrics for Prometheus")
            .answers_text("text/plain", "Metrics.")
            .finish(),
        Route::OpenApi => Operation::by_anyone(parts, PROCESS, "getOpenApi", "This document")
            .answers_with("application/json", json!({ "type": "object" }), 200, "OpenAPI 3.1.", &[])
            .fails(&[Code::RateLimitExceeded])
            .finish(),
        Route::Docs => Operation::by_anyone(parts, PROCESS, "getDocs", "This document as a page")
            .answers_text("text/html", "A page: Swagger UI.")
            .fails(&[Code::RateLimitExceeded])
            .finish(),
        Route::DocsFile => Operation::by_anyone(parts, PROCESS, "getDocsFile", "Files of the page")
            .says("Compressed with gzip, whatever the client accepts.")
            .takes(parameters::file())
            .answers_text("text/*", "The file.")
            .fails(&[Code::NotFound, Code::RateLimitExceeded])
            .finish(),
    }
}

fn allocate(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "allocate", "Allocates a sandbox for a track")
        .says(
            "The same owner and key get the same sandbox again until it is returned or expires. An empty pool is answered \
             409 at once; a wait that runs out 202, with a `Location` to poll for the outcome; or, if the request had no \
             `Prefer`, 503 `STILL_QUEUED` with the same `Location`.",
        )
        .takes(parameters::track_name())
        .takes(parameters::name_prefix())
        .takes(parameters::idempotency_key())
        .takes(parameters::prefer_or_async())
        .takes_body::<AllocateBody>("May be omitted.")
        .answers::<Allocation<'_>>(201, "A new allocation.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<Allocation<'_>>(200, "The key holds this sandbox already.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<Queued>(
            202,
            "Queued: sent with `respond-async`, or the preferred wait ran out.",
            &[LOCATION, RETRY_AFTER, PREFERENCE_APPLIED],
        )
        .leads_to(201, "getSandbox", "id", "sandbox_id")
        .leads_to(201, "markForDeletion", "id", "sandbox_id")
        .leads_to(202, "getRequest", "request_id", "request_id")
        .leads_to(202, "cancelRequest", "request_id", "request_id")
        .fails(&[Code::NoSandboxesAvailable, Code::IdempotencyKeyReused, Code::Overloaded, Code::StillQueued])
        .finish()
}

fn return_sandbox(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "markForDeletion", "Returns a sandbox")
        .says("By its owner, at any time while the allocation lives, however late and often.")
        .takes(parameters::sandbox())
        .takes(parameters::prefer())
        .answers::<Marked<'_>>(200, "It is pending deletion.", &[PREFERENCE_APPLIED])
        .answers::<Queued>(202, "The preferred wait ran out.", &[LOCATION, RETRY_AFTER, PREFERENCE_APPLIED])
        .leads_to(200, "getSandbox", "id", "sandbox_id")
        .leads_to(202, "getRequest", "request_id", "request_id")
        .fails(&[
            Code::NotSandboxOwner,
            Code::AllocationExpired,
            Code::SandboxNotFound,
            Code::Overloaded,
            Code::StillQueued,
        ])
        .finish()
}

fn sandbox(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "getSandbox", "Shows a sandbox to its owner")
        .says("Also for 30 days after it was returned or expired.")
        .takes(parameters::sandbox())
        .answers::<OwnedSandbox<'_>>(200, "The sandbox.", &[])
        .fails(&[Code::NotSandboxOwner, Code::SandboxNotFound])
        .finish()
}

fn request(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "getRequest", "Shows a request that was answered 202")
        .says("For 30 days. `response` is the response that the call itself would have had.")
        .takes(parameters::request())
        .answers::<RequestReport>(200, "Its state.", &[MAYBE_RETRY_AFTER])
        .fails(&[Code::RequestNotFound])
        .finish()
}

fn cancel(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "cancelRequest", "Cancels a request")
        .says("Only one that was sent with `Prefer: respond-async` and is still queued; it will never claim.")
        .takes(parameters::request())
        .answers::<RequestReport>(200, "It is cancelled.", &[])
        .fails(&[Code::RequestNotFound, Code::NotCancellable])
        .finish()
}

fn by_operator(admin: Admin, parts: &mut Components) -> Value {
    match admin {
        Admin::Sandboxes => Operation::by_operator(parts, ADMIN, "listSandboxes", "Lists sandboxes")
            .says("Continue while there is a `next_cursor`; a page may be short, or empty, and still have one.")
            .takes(parameters::status())
            .takes(parameters::track())
            .takes(parameters::lab())
            .takes(parameters::number("limit", "Sandboxes of a page.", 1, limits::MAX_SANDBOXES_PER_PAGE, limits::SANDBOXES_PER_PAGE))
            .takes(parameters::cursor())
            .answers::<Page<'_>>(200, "The page.", &[])
            .finish(),
        Admin::Stats => {
            Operation::by_operator(parts, ADMIN, "getStats", "Counts sandboxes by state")
                .takes(parameters::flag(
                    "live",
                    "Count now, instead of returning the last census.",
                ))
                .answers::<Stats>(200, "The counts.", &[])
                .finish()
        }
        Admin::Sync => run(parts, "sync", "Compares the pool with the provider's list")
            .takes(parameters::flag("accept_stale", "Make missing sandboxes stale, however many there are."))
            .finish(),
        Admin::Cleanup => run(parts, "cleanup", "Plans deletions at the provider").finish(),
        Admin::Expire => run(parts, "autoExpire", "Ends leases past their time").finish(),
        Admin::PurgeStale => {
            let (what, most) = ("How long a sandbox must have been stale.", broker_domain::LONGEST_STALE_GRACE_HOURS);
            run(parts, "autoDeleteStale", "Removes sandboxes that have been stale for long")
                .takes(parameters::number("grace_period_hours", what, 0, most, STALE_GRACE_HOURS))
                .finish()
        }
        Admin::BulkDelete => run(parts, "bulkDelete", "Removes records of one state from the table")
            .takes(parameters::removable())
            .finish(),
        Admin::Job => {
            Operation::by_operator(parts, ADMIN, "getJob", "Shows a run that was answered 202")
                .takes(parameters::request())
                .answers_either::<Run<'_>, QueuedRun<'_>>(
                    200,
                    "Its report, or that it has not ended.",
                    &[MAYBE_RETRY_AFTER],
                )
                .fails(&[Code::RequestNotFound])
                .finish()
        }
        Admin::DeadLetters => {
            let operation = Operation::by_operator(parts, ADMIN, "listDeadLetters", "Lists dead letters")
                .says("The oldest first. A page may be short, or empty, and still have a `next_cursor`.");
            with_letter_filters(operation)
                .takes(parameters::number("limit", "Letters of a page.", 1, limits::MAX_LETTERS_PER_PAGE, limits::LETTERS_PER_PAGE))
                .takes(parameters::letter_cursor())
                .answers::<PageView>(200, "The page.", &[])
                .finish()
        }
        Admin::DeadLetter => Operation::by_operator(parts, ADMIN, "getDeadLetter", "Shows a dead letter, byte for byte")
            .takes(parameters::letter())
            .answers::<WholeView>(200, "The letter.", &[])
            .fails(&[Code::NotFound])
            .finish(),
        Admin::Replay => action(parts, "replayDeadLetters", "Sends the messages of dead letters again")
            .takes(parameters::flag(
                "renew_deadline",
                "Renew deadlines; otherwise an allocate past its deadline ends as `expired` and claims nothing.",
            ))
            .finish(),
        Admin::Discard => action(parts, "discardDeadLetters", "Discards dead letters")
            .takes(parameters::why())
            .finish(),
    }
}

/// Adds the filters of dead letters.
fn with_letter_filters(operation: Operation<'_>) -> Operation<'_> {
    let most = limits::LONGEST_AGE_S;
    operation
        .takes(parameters::letter_queue())
        .takes(parameters::letter_kind())
        .takes(parameters::letter_reason())
        .takes(parameters::letter_track())
        .takes(parameters::letter_state())
        .takes(parameters::age(
            "older_than_s",
            "Only messages that were first sent longer ago, in seconds.",
            most,
        ))
        .takes(parameters::age("newer_than_s", "Only messages that were first sent since, in seconds.", most))
}

/// A replay or discard: of ids, or by filters, or of all.
fn action<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    let operation = Operation::by_operator(parts, ADMIN, id, summary)
        .says("Select letters by `id`, by filters, or with `all`. If the response has `more`, the same call continues.")
        .takes(parameters::letter_ids())
        .takes(parameters::flag("all", "Every letter."));
    with_letter_filters(operation)
        .takes(parameters::number(
            "limit",
            "Letters of this call.",
            1,
            limits::MAX_LETTERS_PER_ACTION,
            limits::LETTERS_PER_ACTION,
        ))
        .takes(parameters::rate())
        .takes(parameters::flag("dry_run", "Only report what would be done."))
        .takes(parameters::prefer())
        .answers::<ReplayReport>(200, "The report.", &[])
}

/// A run of a job, through the maintenance queue.
fn run<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::prefer())
        .answers::<Run<'_>>(200, "Its report.", &[])
        .answers::<QueuedRun<'_>>(202, "The wait ran out.", &[LOCATION, RETRY_AFTER])
        .leads_to(202, "getJob", "request_id", "request_id")
        .fails(&[Code::Overloaded])
}
