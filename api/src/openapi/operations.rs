//! Operations of the routes: one match, so no route is forgotten.

use serde_json::{Value, json};

use super::headers::{ENTITY_TAG, LOCATION, MAYBE_RETRY_AFTER, PREFERENCE_APPLIED, RETRY_AFTER};
use super::operation::{ADMIN, Components, OPEN, Operation, TRACK};
use super::parameters;
use super::{reservations, supply, tenants, waiting};
use crate::overview::{Overview, ScheduledJob};
use crate::request::body::{AllocateBody, RenewBody, ReportBody};
use crate::request::parameters as query;
use crate::response::bodies::{
    Alive, AllocationBody, AuditPage, Flavours, Marked, OwnedSandbox, PolicyReport, PoolPage, Queued,
    QueuedRun, Readiness, Renewed, Reported, RequestReport, RunBody, Stats,
};
use crate::response::codes::Code;
use crate::routes::{Admin, Route};
use crate::story::{SandboxStory, TrackStory};
use broker_dead_letters::{PageView, ReplayReport, WholeView};

pub(super) const PROCESS: &str = "the process";

/// The operation of `route`.
pub(super) fn operation(route: Route, parts: &mut Components) -> Value {
    match route {
        Route::Allocate => allocate(parts),
        Route::ReturnSandbox => return_sandbox(parts),
        Route::Renew => renew(parts),
        Route::ReportBroken => report_broken(parts),
        Route::Sandbox => sandbox(parts),
        Route::Quota => tenants::quota(parts),
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
            .fails(&OPEN)
            .finish(),
        Route::Docs => Operation::by_anyone(parts, PROCESS, "getDocs", "This document as a page")
            .answers_text("text/html", "A page: Swagger UI.")
            .fails(&OPEN)
            .finish(),
        Route::Console => Operation::by_anyone(parts, PROCESS, "getConsole", "The operator's page")
            .says("It holds no data: what it shows, it asks of the operators' routes with the token that is typed into it.")
            .answers_text("text/html", "A page.")
            .fails(&OPEN)
            .finish(),
        Route::ConsoleFile => Operation::by_anyone(parts, PROCESS, "getConsoleFile", "Files of the operator's page")
            .takes(parameters::console_file())
            .answers_text("*/*", "The file.")
            .fails(&[Code::NotFound])
            .fails(&OPEN)
            .finish(),
        Route::DocsFile => Operation::by_anyone(parts, PROCESS, "getDocsFile", "Files of the page")
            .says("Compressed with gzip, whatever the client accepts.")
            .takes(parameters::file())
            .answers_text("text/*", "The file.")
            .fails(&[Code::NotFound])
            .fails(&OPEN)
            .finish(),
    }
}

fn allocate(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "allocate", "Allocates a sandbox for a track")
        .says(
            "The same owner and key get the same sandbox again until it is returned or expires. An empty pool is answered \
             409 at once; a wait that runs out 202, with a `Location` to poll for the outcome; or, if the request had no \
             `Prefer`, 503 `STILL_QUEUED` with the same `Location`. Of `respond-async` requests of one tenant `BROKER_ASYNC_BURST` \
             (1,000) at once and `BROKER_ASYNC_RATE` (100) a second are taken, more are 429 `RATE_LIMIT_EXCEEDED`.",
        )
        .takes(parameters::track_name())
        .takes(parameters::name_prefix())
        .takes(parameters::flavour())
        .takes(parameters::idempotency_key())
        .prefers(parameters::prefer_or_async())
        .takes_body::<AllocateBody>("May be omitted.")
        .answers::<AllocationBody<'_>>(201, "A new allocation.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<AllocationBody<'_>>(200, "The key holds this sandbox already.", &[LOCATION, PREFERENCE_APPLIED])
        .answers::<Queued>(
            202,
            "Queued: sent with `respond-async`, or the preferred wait ran out.",
            &[LOCATION, RETRY_AFTER, PREFERENCE_APPLIED],
        )
        .leads_to(201, "getSandbox", "id", "sandbox_id")
        .leads_to(201, "markForDeletion", "id", "sandbox_id")
        .leads_to(202, "getRequest", "request_id", "request_id")
        .leads_to(202, "cancelRequest", "request_id", "request_id")
        .fails(&[Code::UnknownFlavour, Code::NoSandboxesAvailable, Code::QuotaExceeded, Code::CannotWait, Code::IdempotencyKeyReused, Code::StillQueued])
        .finish()
}

fn return_sandbox(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "markForDeletion", "Returns a sandbox")
        .says("By its owner, at any time while the allocation lives, however late and often.")
        .takes(parameters::sandbox())
        .prefers(parameters::prefer())
        .answers::<Marked<'_>>(200, "It is given back.", &[PREFERENCE_APPLIED])
        .answers::<Queued>(202, "The preferred wait ran out.", &[LOCATION, RETRY_AFTER, PREFERENCE_APPLIED])
        .leads_to(200, "getSandbox", "id", "sandbox_id")
        .leads_to(202, "getRequest", "request_id", "request_id")
        .fails(&[Code::NotSandboxOwner, Code::AllocationExpired, Code::SandboxNotFound, Code::StillQueued])
        .finish()
}

fn renew(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "renew", "Renews the lease of a sandbox")
        .says(
            "Never shortens it, and never beyond the longest lease from its allocation; the answer says what was granted. Without \
             a body: for as long again as it was asked for, from now; a lease with a heartbeat for three. Possible for as long \
             as the sandbox was not taken back, also in the grace after its end. A renewal by less than a minute, and a \
             heartbeat that moves the end by less than one, are answered without a write.",
        )
        .takes(parameters::sandbox())
        .takes_body::<RenewBody>("May be omitted.")
        .answers::<Renewed<'_>>(200, "When it expires now.", &[])
        .leads_to(200, "getSandbox", "id", "sandbox_id")
        .fails(&[Code::NotSandboxOwner, Code::AllocationExpired, Code::SandboxNotFound, Code::NotRenewable])
        .finish()
}

fn report_broken(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "reportBroken", "Returns a sandbox that does not work")
        .says("As a return, but the sandbox goes into quarantine with its owner's words, for an operator to look at.")
        .takes(parameters::sandbox())
        .takes_body::<ReportBody>("May be omitted.")
        .answers::<Reported<'_>>(200, "Its lease has ended.", &[])
        .leads_to(200, "getSandbox", "id", "sandbox_id")
        .fails(&[Code::NotSandboxOwner, Code::AllocationExpired, Code::SandboxNotFound])
        .finish()
}

fn sandbox(parts: &mut Components) -> Value {
    Operation::by_track(parts, TRACK, "getSandbox", "Shows a sandbox to its owner")
        .says("Also after it was returned or expired, for good.")
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
        .says("Only one that was sent with `Prefer: respond-async` or `max_wait_s` and is still queued; it will never claim.")
        .takes(parameters::request())
        .answers::<RequestReport>(200, "It is cancelled.", &[])
        .fails(&[Code::RequestNotFound, Code::NotCancellable])
        .finish()
}

fn by_operator(admin: Admin, parts: &mut Components) -> Value {
    match admin {
        Admin::Overview => overview(parts),
        Admin::SandboxHistory => sandbox_history(parts),
        Admin::Track => track(parts),
        Admin::PauseJob => job_switch(parts, "pauseJob", "Pauses the schedule of a job")
            .says("`serve` runs on while requests may wait, or a line is listed.")
            .fails(&[Code::NotPausable])
            .finish(),
        Admin::ResumeJob => job_switch(parts, "resumeJob", "Resumes the schedule of a job").finish(),
        Admin::Audit => Operation::by_operator(parts, ADMIN, "listAudit", "Lists the acts of operators on a day")
            .says("The newest first; one read of the table.")
            .takes_query(query::AUDIT)
            .answers::<AuditPage<'_>>(200, "The page.", &[])
            .finish(),
        Admin::Sandboxes => Operation::by_operator(parts, ADMIN, "listSandboxes", "Lists sandboxes")
            .says(
                "By state. Continue while there is a `next_cursor`; a page may be short, or empty, and still have one.",
            )
            .takes_query(query::SANDBOXES)
            .answers::<PoolPage<'_>>(200, "The page.", &[])
            .fails(&[Code::UnknownFlavour])
            .finish(),
        Admin::Stats => Operation::by_operator(parts, ADMIN, "getStats", "Counts sandboxes by state")
            .takes_query(&[query::LIVE.parameter()])
            .answers::<Stats>(200, "The counts.", &[])
            .finish(),
        Admin::Sync => run(parts, "sync", "Compares the pool with the provider's list")
            .takes_query(&[query::ACCEPT_STALE.parameter()])
            .finish(),
        Admin::Cleanup => run(parts, "cleanup", "Plans deletions at the provider").finish(),
        Admin::Expire => run(parts, "autoExpire", "Ends leases past their time").finish(),
        Admin::PurgeStale => run(parts, "autoDeleteStale", "Removes sandboxes that have been stale for long")
            .takes_query(&[query::GRACE_PERIOD.parameter()])
            .finish(),
        Admin::BulkDelete => run(parts, "bulkDelete", "Removes records of one state from the table")
            .takes_query(&[query::REMOVABLE])
            .finish(),
        Admin::Job => job_report(parts),
        Admin::DeadLetters => dead_letters(parts),
        Admin::DeadLetter => {
            Operation::by_operator(parts, ADMIN, "getDeadLetter", "Shows a dead letter, byte for byte")
                .takes(parameters::letter())
                .answers::<WholeView>(200, "The letter.", &[])
                .fails(&[Code::NotFound])
                .finish()
        }
        Admin::Replay => action(parts, "replayDeadLetters", "Sends the messages of dead letters again")
            .takes_query(&[query::RENEW_DEADLINE.parameter()])
            .finish(),
        Admin::Discard => {
            action(parts, "discardDeadLetters", "Discards dead letters").takes_query(&[query::WHY]).finish()
        }
        Admin::Flavours => {
            Operation::by_operator(parts, ADMIN, "listFlavours", "Lists flavours with their counts")
                .takes_query(&[query::LIVE.parameter()])
                .answers::<Flavours<'_>>(200, "The flavours.", &[])
                .finish()
        }
        Admin::Policy => Operation::by_operator(parts, ADMIN, "getPolicy", "Shows the policy")
            .says("Its TOML text in one form for each meaning; empty if none was ever applied.")
            .answers_with("text/plain", json!({ "type": "string" }), 200, "The policy.", &[ENTITY_TAG])
            .finish(),
        Admin::PutPolicy => put_policy(parts),
        Admin::Refill => supply::refill(parts),
        Admin::PauseRefill => supply::pause_refill(parts),
        Admin::ResumeRefill => supply::resume_refill(parts),
        Admin::Quarantine => supply::quarantine(parts),
        Admin::AddToQuarantine => supply::add_to_quarantine(parts),
        Admin::ReleaseFromQuarantine => supply::release_from_quarantine(parts),
        Admin::RetireFromQuarantine => supply::retire_from_quarantine(parts),
        Admin::Waiting => waiting::list(parts),
        Admin::CancelWaiting => waiting::cancel(parts),
        Admin::Tenants => tenants::list(parts),
        Admin::Reservations => reservations::list(parts),
        Admin::Reserve => reservations::create(parts),
        Admin::Reservation => reservations::show(parts),
        Admin::ChangeReservation => reservations::change(parts),
        Admin::DeleteReservation => reservations::delete(parts),
    }
}

fn overview(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "getOverview", "Shows what is there, the last hour, and what is wrong right now")
            .says(
                "Seven reads whatever the size of the pool (census, ticks, pool, processes, the minutes of the hour, how refill \
                 stands, the reservations) and the depth of the requests queue; while reserved sandboxes are missing, also what \
                 is free and asked for of their flavours. A process reads once in two seconds at most, for all callers.",
            )
            .answers::<Overview>(200, "The overview.", &[])
            .finish()
}

fn sandbox_history(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "getSandboxHistory", "Tells the story of a sandbox")
            .says(
                "Eleven reads at most: its record, its last lease, that lease's request, and eight days of the audit, a \
                 megabyte of each at most.",
            )
            .takes(parameters::sandbox())
            .answers::<SandboxStory>(200, "The sandbox, and what happened to it.", &[])
            .fails(&[Code::SandboxNotFound])
            .finish()
}

fn track(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "getTrack", "Tells what a track has, and why")
        .says("Seven reads at most: the lease of its key, that lease's sandbox and request, the census, whether the pool is closed, and \
             the list of the lines, twice for a track whose lease's tenant has no place of it. And sixteen of places at most, \
             and the permits of a hundred limits at most, of which eight are told.")
        .takes(parameters::track_in_path())
        .takes_query(&[query::KEY_OF_TRACK])
        .answers::<TrackStory>(200, "What its lease says.", &[])
        .finish()
}

fn job_report(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "getJob", "Shows a run that was answered 202")
        .takes(parameters::request())
        .answers_either::<RunBody<'_>, QueuedRun<'_>>(
            200,
            "Its report, or that it has not ended.",
            &[MAYBE_RETRY_AFTER],
        )
        .fails(&[Code::RequestNotFound])
        .finish()
}

fn dead_letters(parts: &mut Components) -> Value {
    let operation = Operation::by_operator(parts, ADMIN, "listDeadLetters", "Lists dead letters")
        .says("The oldest first. A page may be short, or empty, and still have a `next_cursor`.");
    operation
        .takes_query(query::LETTER_FILTERS)
        .takes_query(query::LETTER_PAGE)
        .answers::<PageView>(200, "The page.", &[])
        .finish()
}

fn put_policy(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "putPolicy", "Replaces the policy")
            .says(
                "As a whole, if it is the one that `If-Match` names; a policy that is wrong anywhere changes nothing. Every \
                 process follows within 5 s. The same policy again changes nothing.",
            )
            .takes(parameters::if_match())
            .takes_query(&[query::POLICY_DRY_RUN.parameter()])
            .takes_text("The policy, TOML.")
            .answers::<PolicyReport<'_>>(200, "What changed.", &[ENTITY_TAG])
            .fails(&[Code::PolicyChanged, Code::IfMatchMissing])
            .finish()
}

/// A pause of a job's schedule, or its end.
fn job_switch<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::job())
        .answers::<ScheduledJob>(200, "Its schedule.", &[])
        .fails(&[Code::NotFound])
}

/// A replay or discard: of ids, or by filters, or of all.
fn action<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .says("Select letters by `id`, by filters, or with `all`. If the response has `more`, the same call continues, with its \
               `next_cursor` as `cursor` if it has one: letters before it are not looked at again.")
        .takes_query(query::LETTER_SELECTION)
        .takes_query(query::LETTER_FILTERS)
        .takes_query(query::ACTION_OPTIONS)
        .takes(parameters::prefer())
        .answers::<ReplayReport>(200, "The report.", &[])
}

/// A run of a job, through the maintenance queue.
fn run<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::prefer())
        .answers::<RunBody<'_>>(200, "Its report.", &[])
        .answers::<QueuedRun<'_>>(202, "The wait ran out.", &[LOCATION, RETRY_AFTER])
        .leads_to(202, "getJob", "request_id", "request_id")
}
