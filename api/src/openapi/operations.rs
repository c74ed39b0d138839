//! What each route does, takes and answers: one match, so no route is forgotten.

use broker_domain::STALE_GRACE_HOURS;
use serde_json::{Value, json};

use super::headers::{LOCATION, MAYBE_RETRY_AFTER, PREFERENCE_APPLIED, RETRY_AFTER};
use super::operation::{Components, Operation};
use super::parameters;
use crate::handlers::admin;
use crate::request::body::AllocateBody;
use crate::response::problem::Code;
use crate::routes::{Admin, Route};
use broker_dead_letters::{PageView, ReplayReport, WholeView};

use crate::response::bodies::{
    Alive, Allocation, Marked, OwnedSandbox, Page, Queued, QueuedRun, Readiness, RequestReport, Run, Stats,
};

/// What routes are listed under.
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
        Route::Health => Operation::by_anyone(parts, PROCESS, "getHealth", "Whether the process lives")
            .answers::<Alive>(200, "It does.", &[])
            .finish(),
        Route::Ready => Operation::by_anyone(parts, PROCESS, "getReadiness", "Whether it can serve")
            .says("By what is known already; asks nobody.")
            .answers::<Readiness>(200, "It can.", &[])
            .answers::<Readiness>(503, "It cannot.", &[RETRY_AFTER])
            .finish(),
        Route::Metrics => {
            Operation::by_anyone(parts, PROCESS, "getMetrics", "What it counted, for Prometheus")
                .answers_text("text/plain", "Metrics.")
                .finish()
        }
        Route::OpenApi => Operation::by_anyone(parts, PROCESS, "getOpenApi", "This document")
            .answers_with("application/json", json!({ "type": "object" }), 200, "OpenAPI 3.1.", &[])
            .fails(&[Code::RateLimitExceeded])
            .finish(),
        Route::Docs => Operation::by_anyone(parts, PROCESS, "getDocs", "This document, for people")
            .answers_text("text/html", "A page: Swagger UI.")
            .fails(&[Code::RateLimitExceeded])
            .finish(),
        Route::DocsFile => Operation::by_anyone(parts, PROCESS, "getDocsFile", "What the page is made of")
            .says("Compressed with gzip, whatever the client accepts.")
            .takes(parameters::file())
            .answers_text("text/*", "The file.")
            .fails(&[Code::NotFound, Code::RateLimitExceeded])
            .finish(),
    }
}

fn allocate(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "allocate", "A sandbox for a track")
        .says(
            "The same owner and key get the same sandbox again until it is given back or expires. The empty pool is \
             answered 409 at once; a wait that runs out 202, with a `Location` that tells the outcome; or, to a client that sent no `Prefer`, 503 \
             `STILL_QUEUED` with the same `Location`.",
        )
        .takes(parameters::track_name())
        .takes(parameters::name_prefix())
        .takes(parameters::idempotency_key())
        .takes(parameters::prefer_or_async())
        .takes_body::<AllocateBody>("May be left out.")
        .answers::<Allocation<'_>>(201, "A new allocation.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<Allocation<'_>>(200, "The key holds this sandbox already.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<Queued>(
            202,
            "Not yet: asked for with `respond-async`, or the preferred wait ran out.",
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
    Operation::by_track(parts, TRACK, "markForDeletion", "The owner gives a sandbox back")
        .says("Any time while the allocation lives, however late, and as often as he likes.")
        .takes(parameters::sandbox())
        .takes(parameters::prefer())
        .answers::<Marked<'_>>(200, "It is on its way back.", &[PREFERENCE_APPLIED])
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
    Operation::by_track(parts, TRACK, "getSandbox", "A sandbox, to its owner")
        .says("Also after it was given back or taken back, for 30 days.")
        .takes(parameters::sandbox())
        .answers::<OwnedSandbox<'_>>(200, "The sandbox.", &[])
        .fails(&[Code::NotSandboxOwner, Code::SandboxNotFound])
        .finish()
}

fn request(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "getRequest", "What became of a request that was answered 202")
        .says("For 30 days. `response` is what the call itself would have been answered.")
        .takes(parameters::request())
        .answers::<RequestReport>(200, "Where it stands.", &[MAYBE_RETRY_AFTER])
        .fails(&[Code::RequestNotFound])
        .finish()
}

fn cancel(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "cancelRequest", "A request is not wanted any more")
        .says("Only one that was sent with `Prefer: respond-async` and is still queued; it will never claim.")
        .takes(parameters::request())
        .answers::<RequestReport>(200, "It is cancelled.", &[])
        .fails(&[Code::RequestNotFound, Code::NotCancellable])
        .finish()
}

fn by_operator(admin: Admin, parts: &mut Components) -> Value {
    match admin {
        Admin::Sandboxes => Operation::by_operator(parts, ADMIN, "listSandboxes", "A page of the pool")
            .says("Go on while there is a `next_cursor`; a page may be short, or empty, and still have one.")
            .takes(parameters::status())
            .takes(parameters::track())
            .takes(parameters::lab())
            .takes(parameters::number("limit", "Sandboxes of a page.", 1, admin::MOST, admin::LIMIT))
            .takes(parameters::cursor())
            .answers::<Page<'_>>(200, "The page.", &[])
            .finish(),
        Admin::Stats => {
            Operation::by_operator(parts, ADMIN, "getStats", "How many sandboxes there are in each state")
                .takes(parameters::flag(
                    "live",
                    "Count now, instead of telling what the last census counted.",
                ))
                .answers::<Stats>(200, "The counts.", &[])
                .finish()
        }
        Admin::Sync => run(parts, "sync", "Compares the pool with the provider's list")
            .takes(parameters::flag("accept_stale", "Make sandboxes stale however many they are."))
            .finish(),
        Admin::Cleanup => run(parts, "cleanup", "Plans deletions at the provider").finish(),
        Admin::Expire => run(parts, "autoExpire", "Takes back what is past its time").finish(),
        Admin::PurgeStale => {
            let (what, most) = ("How long it must have been stale.", admin::LONGEST_GRACE_HOURS);
            run(parts, "autoDeleteStale", "Removes what has been stale for long")
                .takes(parameters::number("grace_period_hours", what, 0, most, STALE_GRACE_HOURS))
                .finish()
        }
        Admin::BulkDelete => run(parts, "bulkDelete", "Removes records from the table only")
            .takes(parameters::removable())
            .finish(),
        Admin::Job => {
            Operation::by_operator(parts, ADMIN, "getJob", "What became of a run that was answered 202")
                .takes(parameters::request())
                .answers_either::<Run<'_>, QueuedRun<'_>>(
                    200,
                    "What it did, or that it has not ended.",
                    &[MAYBE_RETRY_AFTER],
                )
                .fails(&[Code::RequestNotFound])
                .finish()
        }
        Admin::DeadLetters => {
            let operation = Operation::by_operator(parts, ADMIN, "listDeadLetters", "A page of the dead letters")
                .says("The oldest first. A page may be short, or empty, and still have a `next_cursor`.");
            letters(operation)
                .takes(parameters::number("limit", "Letters of a page.", 1, admin::LETTERS_MOST, admin::LETTERS))
                .takes(parameters::letter_cursor())
                .answers::<PageView>(200, "The page.", &[])
                .finish()
        }
        Admin::DeadLetter => Operation::by_operator(parts, ADMIN, "getDeadLetter", "A dead letter, byte for byte")
            .takes(parameters::letter())
            .answers::<WholeView>(200, "The letter.", &[])
            .fails(&[Code::NotFound])
            .finish(),
        Admin::Replay => settled(parts, "replayDeadLetters", "Sends dead letters again, as what they were")
            .takes(parameters::flag(
                "renew_deadline",
                "Give them new deadlines; else an allocation past its own ends as `expired` and claims nothing.",
            ))
            .finish(),
        Admin::Discard => settled(parts, "discardDeadLetters", "Nobody wants them")
            .takes(parameters::why())
            .finish(),
    }
}

/// With the filters of dead letters.
fn letters(operation: Operation<'_>) -> Operation<'_> {
    let most = admin::LONGEST_AGE_S;
    operation
        .takes(parameters::letter_queue())
        .takes(parameters::letter_kind())
        .takes(parameters::letter_reason())
        .takes(parameters::letter_track())
        .takes(parameters::letter_state())
        .takes(parameters::age("older_than_s", "Only what was first sent longer ago, in seconds.", most))
        .takes(parameters::age("newer_than_s", "Only what was first sent since, in seconds.", most))
}

/// A replay or discard: of ids, or by filters, or of all.
fn settled<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    let operation = Operation::by_operator(parts, ADMIN, id, summary)
        .says("Say which: `id`, or filters, or `all`. With `more` in the answer the same call goes on.")
        .takes(parameters::letter_ids())
        .takes(parameters::flag("all", "Every letter."));
    letters(operation)
        .takes(parameters::number("limit", "Letters of this call.", 1, admin::SETTLED_MOST, admin::SETTLED))
        .takes(parameters::rate())
        .takes(parameters::flag("dry_run", "Only tell what would be done."))
        .takes(parameters::prefer())
        .answers::<ReplayReport>(200, "What was done.", &[])
}

/// A run of a job: it goes through the queue, as the schedule's do.
fn run<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::prefer())
        .answers::<Run<'_>>(200, "What it did.", &[])
        .answers::<QueuedRun<'_>>(202, "The wait ran out.", &[LOCATION, RETRY_AFTER])
        .leads_to(202, "getJob", "request_id", "request_id")
        .fails(&[Code::Overloaded])
}
