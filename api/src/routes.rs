//! Every route there is:
//!
//! | method, path | what |
//! |---|---|
//! | `POST /v1/allocate` | a sandbox for a track |
//! | `POST /v1/sandboxes/{id}/mark-for-deletion` | the owner gives it back |
//! | `GET /v1/sandboxes/{id}` | the owner looks at it |
//! | `GET /v1/requests/{request_id}` | what became of a request that was answered 202 |
//! | `DELETE /v1/requests/{request_id}` | it is not wanted any more |
//! | `GET /v1/admin/sandboxes` | a page of the pool |
//! | `GET /v1/admin/stats` | how many there are in each state |
//! | `POST /v1/admin/sync`, `cleanup`, `auto-expire`, `auto-delete-stale`, `bulk-delete` | a run of a job |
//! | `GET /v1/admin/jobs/{request_id}` | what became of a run that was answered 202 |
//! | `GET /v1/admin/dead-letters`, `…/{id}` | a page of them, one whole |
//! | `POST /v1/admin/dead-letters/replay`, `…/discard` | sends them again, or says that nobody wants them |
//! | `GET /healthz` | the process lives; touches nothing |
//! | `GET /readyz` | it can serve, by what is known already; asks nobody |
//! | `GET /metrics` | Prometheus |
//!
//! `HEAD` is `GET` without the body. Segments are split before they are decoded, so an encoded slash stays inside its
//! segment (and is no valid id). What it does not do: look at anything but method and path.

use std::borrow::Cow;

use http::Method;
use http::header::{self, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::problem::{Code, Problem};

/// Where a request goes. Ids are decoded, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    Allocate,
    Mark(Cow<'p, str>),
    Sandbox(Cow<'p, str>),
    Request(Cow<'p, str>),
    Cancel(Cow<'p, str>),
    Admin(Admin<'p>),
    Health,
    Ready,
    Metrics,
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admin<'p> {
    Sandboxes,
    Stats,
    Sync,
    Cleanup,
    Expire,
    PurgeStale,
    BulkDelete,
    Job(Cow<'p, str>),
    DeadLetters,
    DeadLetter(Cow<'p, str>),
    Replay,
    Discard,
}

/// What stands in logs and metrics for a path that is no route.
pub(crate) const UNMATCHED: &str = "unmatched";

/// A request that goes nowhere.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) problem: Problem,
    /// What stands in logs and metrics for where it was meant to go.
    pub(crate) template: &'static str,
}

impl From<Problem> for Lost {
    fn from(problem: Problem) -> Self {
        Self { problem, template: UNMATCHED }
    }
}

/// The route of a request.
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Result<Route<'p>, Lost> {
    let mut segments = [""; 5];
    let mut count = 0;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        *segments.get_mut(count).ok_or_else(not_found)? = segment;
        count += 1;
    }
    let (route, allowed) = match segments[..count] {
        ["v1", "allocate"] => (Route::Allocate, Method::POST),
        ["v1", "sandboxes", id, "mark-for-deletion"] => (Route::Mark(decode(id)?), Method::POST),
        ["v1", "sandboxes", id] => (Route::Sandbox(decode(id)?), Method::GET),
        ["v1", "requests", id] if *method == Method::DELETE => (Route::Cancel(decode(id)?), Method::DELETE),
        ["v1", "requests", id] => (Route::Request(decode(id)?), Method::GET),
        ["v1", "admin", "sandboxes"] => (Route::Admin(Admin::Sandboxes), Method::GET),
        ["v1", "admin", "stats"] => (Route::Admin(Admin::Stats), Method::GET),
        ["v1", "admin", "sync"] => (Route::Admin(Admin::Sync), Method::POST),
        ["v1", "admin", "cleanup"] => (Route::Admin(Admin::Cleanup), Method::POST),
        ["v1", "admin", "auto-expire"] => (Route::Admin(Admin::Expire), Method::POST),
        ["v1", "admin", "auto-delete-stale"] => (Route::Admin(Admin::PurgeStale), Method::POST),
        ["v1", "admin", "bulk-delete"] => (Route::Admin(Admin::BulkDelete), Method::POST),
        ["v1", "admin", "jobs", id] => (Route::Admin(Admin::Job(decode(id)?)), Method::GET),
        ["v1", "admin", "dead-letters"] => (Route::Admin(Admin::DeadLetters), Method::GET),
        ["v1", "admin", "dead-letters", "replay"] => (Route::Admin(Admin::Replay), Method::POST),
        ["v1", "admin", "dead-letters", "discard"] => (Route::Admin(Admin::Discard), Method::POST),
        ["v1", "admin", "dead-letters", id] => (Route::Admin(Admin::DeadLetter(decode(id)?)), Method::GET),
        ["healthz"] => (Route::Health, Method::GET),
        ["readyz"] => (Route::Ready, Method::GET),
        ["metrics"] => (Route::Metrics, Method::GET),
        _ => return Err(not_found().into()),
    };
    if *method == allowed || (*method == Method::HEAD && allowed == Method::GET) {
        return Ok(route);
    }
    let allow = if matches!(route, Route::Request(_)) {
        "GET, HEAD, DELETE"
    } else if allowed == Method::GET {
        "GET, HEAD"
    } else {
        "POST"
    };
    let problem = Problem::new(Code::MethodNotAllowed, format!("Only {allow} is allowed here."));
    let problem = problem.with(header::ALLOW, HeaderValue::from_static(allow));
    Err(Lost { problem, template: route.template() })
}

impl Route<'_> {
    /// The route with names in place of ids, for logs, metrics and fingerprints.
    pub(crate) const fn template(&self) -> &'static str {
        match self {
            Self::Allocate => "/v1/allocate",
            Self::Mark(_) => "/v1/sandboxes/{id}/mark-for-deletion",
            Self::Sandbox(_) => "/v1/sandboxes/{id}",
            Self::Request(_) | Self::Cancel(_) => "/v1/requests/{request_id}",
            Self::Admin(admin) => admin.template(),
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::Metrics => "/metrics",
        }
    }
}

/// Whether this is for probes and scrapers, which no rate limits.
pub(crate) const fn is_probe(route: &Route<'_>) -> bool {
    matches!(route, Route::Health | Route::Ready | Route::Metrics)
}

impl Admin<'_> {
    const fn template(&self) -> &'static str {
        match self {
            Self::Sandboxes => "/v1/admin/sandboxes",
            Self::Stats => "/v1/admin/stats",
            Self::Sync => "/v1/admin/sync",
            Self::Cleanup => "/v1/admin/cleanup",
            Self::Expire => "/v1/admin/auto-expire",
            Self::PurgeStale => "/v1/admin/auto-delete-stale",
            Self::BulkDelete => "/v1/admin/bulk-delete",
            Self::Job(_) => "/v1/admin/jobs/{request_id}",
            Self::DeadLetters => "/v1/admin/dead-letters",
            Self::DeadLetter(_) => "/v1/admin/dead-letters/{id}",
            Self::Replay => "/v1/admin/dead-letters/replay",
            Self::Discard => "/v1/admin/dead-letters/discard",
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(method: &Method, path: &str) -> Code {
        find(method, path).unwrap_err().problem.code()
    }

    #[test]
    fn every_route_is_found_under_its_method() {
        assert_eq!(find(&Method::POST, "/v1/allocate").unwrap(), Route::Allocate);
        assert_eq!(
            find(&Method::POST, "/v1/sandboxes/a/mark-for-deletion").unwrap(),
            Route::Mark("a".into())
        );
        assert_eq!(find(&Method::GET, "/v1/sandboxes/a").unwrap(), Route::Sandbox("a".into()));
        assert_eq!(find(&Method::HEAD, "/v1/sandboxes/a").unwrap(), Route::Sandbox("a".into()));
        assert_eq!(find(&Method::GET, "/v1/requests/a").unwrap(), Route::Request("a".into()));
        assert_eq!(find(&Method::DELETE, "/v1/requests/a").unwrap(), Route::Cancel("a".into()));
        assert_eq!(find(&Method::GET, "/healthz").unwrap(), Route::Health);
        assert_eq!(find(&Method::GET, "/readyz").unwrap(), Route::Ready);
        assert_eq!(find(&Method::GET, "/metrics").unwrap(), Route::Metrics);
    }

    #[test]
    fn another_method_is_405_and_another_path_404() {
        assert_eq!(code(&Method::GET, "/v1/allocate"), Code::MethodNotAllowed);
        assert_eq!(code(&Method::HEAD, "/v1/allocate"), Code::MethodNotAllowed);
        assert_eq!(code(&Method::DELETE, "/v1/sandboxes/a"), Code::MethodNotAllowed);
        assert_eq!(code(&Method::PUT, "/v1/requests/a"), Code::MethodNotAllowed);
        for path in [
            "",
            "/",
            "*",
            "/v1",
            "/v1/allocate/",
            "//v1/allocate",
            "/V1/allocate",
            "/v1/a/b/c/d/e/f",
            "/v2/allocate",
        ] {
            assert_eq!(code(&Method::POST, path), Code::NotFound, "{path}");
        }
    }

    #[test]
    fn a_405_is_counted_under_the_route_that_it_missed() {
        assert_eq!(find(&Method::GET, "/v1/allocate").unwrap_err().template, "/v1/allocate");
        assert_eq!(find(&Method::PUT, "/v1/sandboxes/a").unwrap_err().template, "/v1/sandboxes/{id}");
        assert_eq!(find(&Method::GET, "/v1/nothing").unwrap_err().template, UNMATCHED);
    }

    #[test]
    fn an_encoded_slash_does_not_make_a_segment() {
        let path = "/v1/sandboxes/a%2Fmark-for-deletion";
        assert_eq!(find(&Method::GET, path).unwrap(), Route::Sandbox("a/mark-for-deletion".into()));
        assert_eq!(find(&Method::GET, "/v1/sandboxes/a%3Ab%40c").unwrap(), Route::Sandbox("a:b@c".into()));
        assert_eq!(code(&Method::GET, "/v1/sandboxes/%ff"), Code::ValidationError);
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in any::<String>()) {
            let _ = find(&Method::GET, &path);
        }
    }
}
