//! Routes of the API:
//!
//! | method, path | what |
//! |---|---|
//! | `POST /v1/allocate` | allocate a sandbox |
//! | `POST /v1/sandboxes/{id}/mark-for-deletion` | return a sandbox |
//! | `POST /v1/sandboxes/{id}/renew` | renew its lease |
//! | `POST /v1/sandboxes/{id}/report-broken` | return a sandbox that does not work |
//! | `GET /v1/sandboxes/{id}` | show a sandbox to its owner |
//! | `GET /v1/quota` | what the caller's tenant may hold, and holds |
//! | `GET /v1/requests/{request_id}` | show a request that was answered 202 |
//! | `DELETE /v1/requests/{request_id}` | cancel it |
//! | `GET /v1/admin/sandboxes` | list the pool |
//! | `GET /v1/admin/stats` | count sandboxes by state |
//! | `POST /v1/admin/sync`, `cleanup`, `auto-expire`, `auto-delete-stale`, `bulk-delete` | a run of a job |
//! | `GET /v1/admin/jobs/{request_id}` | show a run that was answered 202 |
//! | `GET /v1/admin/dead-letters`, `…/{id}` | list dead letters, show one |
//! | `POST /v1/admin/dead-letters/replay`, `…/discard` | replay or discard them |
//! | `GET /v1/admin/overview` | what is there, the last hour, what is wrong right now |
//! | `GET /v1/admin/sandboxes/{id}/history` | the story of a sandbox |
//! | `GET /v1/admin/tracks/{track}` | what a track has, and why |
//! | `POST /v1/admin/jobs/{job}/pause`, `…/resume` | pause or resume the schedule of a job |
//! | `GET /v1/admin/audit` | list the acts of operators |
//! | `GET /console`, `/console/{file}` | the operator's page |
//! | `GET /v1/admin/flavours` | list flavours with their counts |
//! | `GET /v1/admin/policy` | show the policy |
//! | `PUT /v1/admin/policy` | replace it |
//! | `GET /v1/admin/refill` | list the flavours that are refilled, and what holds them up |
//! | `POST /v1/admin/refill/{flavour}/pause`, `…/resume` | pause or resume asking for more |
//! | `GET /v1/admin/quarantine` | list the sandboxes in quarantine |
//! | `GET /v1/admin/tenants` | list what tenants may hold and hold |
//! | `GET /v1/admin/waiting` | list the requests that wait |
//! | `POST /v1/admin/waiting/cancel` | cancel requests that wait |
//! | `POST /v1/admin/quarantine/add`, `release`, `retire` | put sandboxes there, let them go, have them deleted |
//! | `GET`, `POST /v1/admin/reservations` | list reservations, make one |
//! | `GET`, `PUT`, `DELETE /v1/admin/reservations/{id}` | show, change, end one |
//! | `GET /healthz` | liveness |
//! | `GET /readyz` | readiness, from cached state |
//! | `GET /metrics` | Prometheus |
//! | `GET /v1/openapi.json` | OpenAPI document |
//! | `GET /v1/docs`, `/v1/docs/{file}` | the same as a page: Swagger UI |
//!
//! One match, [`Route::place`], has the method and path of each; both the search for a request's route and the OpenAPI
//! document are made from [`Route::ALL`], so an undocumented route cannot be reached (and one that is left out of the list is
//! never constructed, which the compiler reports). `HEAD` is `GET` without the body. Segments are split before they are
//! decoded, so an encoded slash stays inside its segment (and is no valid id). Only method and path are read here.

mod properties;

use std::borrow::Cow;

use http::Method;
use http::header::{self, HeaderValue};
use percent_encoding::percent_decode_str;

pub(crate) use self::properties::{Audience, Effect};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Allocate,
    ReturnSandbox,
    Renew,
    ReportBroken,
    Sandbox,
    Quota,
    Request,
    Cancel,
    Admin(Admin),
    Health,
    Ready,
    Metrics,
    OpenApi,
    Docs,
    DocsFile,
    Console,
    ConsoleFile,
}

/// An admin route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    Sandboxes,
    Stats,
    Sync,
    Cleanup,
    Expire,
    PurgeStale,
    BulkDelete,
    Job,
    DeadLetters,
    Replay,
    Discard,
    DeadLetter,
    Overview,
    SandboxHistory,
    Track,
    PauseJob,
    ResumeJob,
    Audit,
    Flavours,
    Policy,
    PutPolicy,
    Refill,
    PauseRefill,
    ResumeRefill,
    Quarantine,
    AddToQuarantine,
    ReleaseFromQuarantine,
    RetireFromQuarantine,
    Tenants,
    Waiting,
    CancelWaiting,
    Reservations,
    Reserve,
    Reservation,
    ChangeReservation,
    DeleteReservation,
}

/// The label in logs and metrics of a path that is no route.
pub(crate) const UNMATCHED: &str = "unmatched";

/// A request without a route.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) problem: Problem,
    /// The label in logs and metrics of the closest route.
    pub(crate) template: &'static str,
}

impl From<Problem> for Lost {
    fn from(problem: Problem) -> Self {
        Self { problem, template: UNMATCHED }
    }
}

impl Route {
    /// Every route, in the order in which paths are compared: fixed paths before those with an id.
    pub(crate) const ALL: [Self; 52] = [
        Self::Allocate,
        Self::ReturnSandbox,
        Self::Renew,
        Self::ReportBroken,
        Self::Sandbox,
        Self::Quota,
        Self::Request,
        Self::Cancel,
        Self::Admin(Admin::Sandboxes),
        Self::Admin(Admin::Stats),
        Self::Admin(Admin::Sync),
        Self::Admin(Admin::Cleanup),
        Self::Admin(Admin::Expire),
        Self::Admin(Admin::PurgeStale),
        Self::Admin(Admin::BulkDelete),
        Self::Admin(Admin::Job),
        Self::Admin(Admin::DeadLetters),
        Self::Admin(Admin::Replay),
        Self::Admin(Admin::Discard),
        Self::Admin(Admin::DeadLetter),
        Self::Admin(Admin::Overview),
        Self::Admin(Admin::SandboxHistory),
        Self::Admin(Admin::Track),
        Self::Admin(Admin::PauseJob),
        Self::Admin(Admin::ResumeJob),
        Self::Admin(Admin::Audit),
        Self::Admin(Admin::Flavours),
        Self::Admin(Admin::Policy),
        Self::Admin(Admin::PutPolicy),
        Self::Admin(Admin::Refill),
        Self::Admin(Admin::PauseRefill),
        Self::Admin(Admin::ResumeRefill),
        Self::Admin(Admin::Quarantine),
        Self::Admin(Admin::AddToQuarantine),
        Self::Admin(Admin::ReleaseFromQuarantine),
        Self::Admin(Admin::RetireFromQuarantine),
        Self::Admin(Admin::Tenants),
        Self::Admin(Admin::Waiting),
        Self::Admin(Admin::CancelWaiting),
        Self::Admin(Admin::Reservations),
        Self::Admin(Admin::Reserve),
        Self::Admin(Admin::Reservation),
        Self::Admin(Admin::ChangeReservation),
        Self::Admin(Admin::DeleteReservation),
        Self::Health,
        Self::Ready,
        Self::Metrics,
        Self::OpenApi,
        Self::Docs,
        Self::DocsFile,
        Self::Console,
        Self::ConsoleFile,
    ];

    /// Its method, and its path with a name in place of an id.
    const fn place(self) -> (Method, &'static str) {
        match self {
            Self::Allocate => (Method::POST, "/v1/allocate"),
            Self::ReturnSandbox => (Method::POST, "/v1/sandboxes/{id}/mark-for-deletion"),
            Self::Renew => (Method::POST, "/v1/sandboxes/{id}/renew"),
            Self::ReportBroken => (Method::POST, "/v1/sandboxes/{id}/report-broken"),
            Self::Sandbox => (Method::GET, "/v1/sandboxes/{id}"),
            Self::Quota => (Method::GET, "/v1/quota"),
            Self::Request => (Method::GET, "/v1/requests/{request_id}"),
            Self::Cancel => (Method::DELETE, "/v1/requests/{request_id}"),
            Self::Admin(Admin::Sandboxes) => (Method::GET, "/v1/admin/sandboxes"),
            Self::Admin(Admin::Stats) => (Method::GET, "/v1/admin/stats"),
            Self::Admin(Admin::Sync) => (Method::POST, "/v1/admin/sync"),
            Self::Admin(Admin::Cleanup) => (Method::POST, "/v1/admin/cleanup"),
            Self::Admin(Admin::Expire) => (Method::POST, "/v1/admin/auto-expire"),
            Self::Admin(Admin::PurgeStale) => (Method::POST, "/v1/admin/auto-delete-stale"),
            Self::Admin(Admin::BulkDelete) => (Method::POST, "/v1/admin/bulk-delete"),
            Self::Admin(Admin::Job) => (Method::GET, "/v1/admin/jobs/{request_id}"),
            Self::Admin(Admin::DeadLetters) => (Method::GET, "/v1/admin/dead-letters"),
            Self::Admin(Admin::Replay) => (Method::POST, "/v1/admin/dead-letters/replay"),
            Self::Admin(Admin::Discard) => (Method::POST, "/v1/admin/dead-letters/discard"),
            Self::Admin(Admin::DeadLetter) => (Method::GET, "/v1/admin/dead-letters/{id}"),
            Self::Admin(Admin::Overview) => (Method::GET, "/v1/admin/overview"),
            Self::Admin(Admin::SandboxHistory) => (Method::GET, "/v1/admin/sandboxes/{id}/history"),
            Self::Admin(Admin::Track) => (Method::GET, "/v1/admin/tracks/{track}"),
            Self::Admin(Admin::PauseJob) => (Method::POST, "/v1/admin/jobs/{job}/pause"),
            Self::Admin(Admin::ResumeJob) => (Method::POST, "/v1/admin/jobs/{job}/resume"),
            Self::Admin(Admin::Audit) => (Method::GET, "/v1/admin/audit"),
            Self::Admin(Admin::Flavours) => (Method::GET, "/v1/admin/flavours"),
            Self::Admin(Admin::Policy) => (Method::GET, "/v1/admin/policy"),
            Self::Admin(Admin::PutPolicy) => (Method::PUT, "/v1/admin/policy"),
            Self::Admin(Admin::Refill) => (Method::GET, "/v1/admin/refill"),
            Self::Admin(Admin::PauseRefill) => (Method::POST, "/v1/admin/refill/{flavour}/pause"),
            Self::Admin(Admin::ResumeRefill) => (Method::POST, "/v1/admin/refill/{flavour}/resume"),
            Self::Admin(Admin::Quarantine) => (Method::GET, "/v1/admin/quarantine"),
            Self::Admin(Admin::AddToQuarantine) => (Method::POST, "/v1/admin/quarantine/add"),
            Self::Admin(Admin::ReleaseFromQuarantine) => (Method::POST, "/v1/admin/quarantine/release"),
            Self::Admin(Admin::RetireFromQuarantine) => (Method::POST, "/v1/admin/quarantine/retire"),
            Self::Admin(Admin::Tenants) => (Method::GET, "/v1/admin/tenants"),
            Self::Admin(Admin::Waiting) => (Method::GET, "/v1/admin/waiting"),
            Self::Admin(Admin::CancelWaiting) => (Method::POST, "/v1/admin/waiting/cancel"),
            Self::Admin(Admin::Reservations) => (Method::GET, "/v1/admin/reservations"),
            Self::Admin(Admin::Reserve) => (Method::POST, "/v1/admin/reservations"),
            Self::Admin(Admin::Reservation) => (Method::GET, "/v1/admin/reservations/{id}"),
            Self::Admin(Admin::ChangeReservation) => (Method::PUT, "/v1/admin/reservations/{id}"),
            Self::Admin(Admin::DeleteReservation) => (Method::DELETE, "/v1/admin/reservations/{id}"),
            Self::Health => (Method::GET, "/healthz"),
            Self::Ready => (Method::GET, "/readyz"),
            Self::Metrics => (Method::GET, "/metrics"),
            Self::OpenApi => (Method::GET, "/v1/openapi.json"),
            Self::Docs => (Method::GET, "/v1/docs"),
            Self::DocsFile => (Method::GET, "/v1/docs/{file}"),
            Self::Console => (Method::GET, "/console"),
            Self::ConsoleFile => (Method::GET, "/console/{file}"),
        }
    }

    /// Its method; with `GET` also `HEAD`.
    pub(crate) fn method(self) -> Method {
        self.place().0
    }

    /// Its path with a name in place of an id, for logs, metrics, fingerprints and the document.
    pub(crate) fn template(self) -> &'static str {
        self.place().1
    }
}

/// The route of a request at a listener for `audience`, and the id in its path, decoded but not yet checked; empty where the route has
/// none.
pub(crate) fn find<'p>(
    audience: Audience,
    method: &Method,
    path: &'p str,
) -> Result<(Route, Cow<'p, str>), Lost> {
    let routes = || Route::ALL.into_iter().filter(|route| audience.include(*route));
    let of_path = |route: Route| Some((route, id_in(route.template(), path)?));
    let (nearest, id) = routes().find_map(of_path).ok_or_else(not_found)?;
    // A path has one place only: a fixed path wins over an id.
    let here = || routes().filter(|route| route.template() == nearest.template());
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    match here().find(|route| route.method() == *wanted) {
        Some(route) => Ok((route, decode(id)?)),
        None => Err(Lost { problem: not_allowed(here()), template: nearest.template() }),
    }
}

/// The segment of `path` where `template` has a name, empty if it has none; `None` if they differ.
fn id_in<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let mut id = "";
    let mut segments = path.split('/');
    for expected in template.split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            id = segment;
        } else if segment != expected {
            return None;
        }
    }
    segments.next().is_none().then_some(id)
}

/// 405, with the methods of the routes at this path.
fn not_allowed(here: impl Iterator<Item = Route>) -> Problem {
    let mut allow = Vec::new();
    for route in here {
        let method = route.method();
        let head = (method == Method::GET).then_some(Method::HEAD);
        allow.extend([Some(method), head].into_iter().flatten());
    }
    let allow = allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let problem = Problem::new(Code::MethodNotAllowed, format!("Only {allow} is allowed here."));
    match HeaderValue::try_from(allow) {
        Ok(allow) => problem.with(header::ALLOW, allow),
        Err(_never) => problem,
    }
}

/// The method as a label: clients may send any word.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Problem> {
    percent_decode_str(segment).decode_utf8().map_err(|_| Problem::invalid("The path is not UTF-8 text."))
}

fn not_found() -> Problem {
    Problem::new(Code::NotFound, "There is nothing at this path.")
}
