//! Handlers of the routes, one file each.

pub(crate) mod admin;
mod allocate;
pub(crate) mod docs;
mod health;
mod quota;
mod renew;
mod request;
mod return_sandbox;
mod sandbox;

#[cfg(test)]
pub(crate) use admin::Cursors;
pub(crate) use admin::{LastOverview, Operator};
pub(crate) use allocate::Allocate;
pub(crate) use health::HealthChecks;
pub(crate) use quota::Quotas;
pub(crate) use renew::Renewals;
pub(crate) use request::Requests;
pub(crate) use return_sandbox::ReturnSandbox;
pub(crate) use sandbox::Sandboxes;

use std::time::Duration;

use broker_domain::RequestId;
use http::HeaderValue;
use http::header::HeaderName;

use crate::limits::LONGEST_WAIT;
use crate::request::prefer::Preferences;
use crate::response::Response;
use crate::response::outcome;
use crate::response::problem::Problem;
use crate::rpc::Progress;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a call waits: as its preferences say, up to the longest wait, else as configured.
fn wait(preferences: Preferences, configured: Duration) -> Duration {
    preferences.wait.map_or(configured, |preferred| preferred.min(LONGEST_WAIT))
}

/// The response to a request that was sent to the workers, with the applied preference. A client that sent no `Prefer` may
/// not know 202: it gets a 503 and repeats.
fn answer(answered: &Progress, id: RequestId, preferences: Preferences) -> Result<Response, Problem> {
    let answer = match answered {
        Progress::Ended(ended) => outcome::answer(ended, id),
        Progress::StillQueued if preferences.said => outcome::queued(id),
        Progress::StillQueued => return Err(outcome::still_queued(id)),
    };
    let waited = || preferences.wait.map(|wait| format!("wait={}", wait.min(LONGEST_WAIT).as_secs()));
    let applied = if preferences.respond_async { Some("respond-async".to_owned()) } else { waited() };
    Ok(match applied {
        Some(applied) => match HeaderValue::try_from(applied) {
            Ok(applied) => answer.with(PREFERENCE_APPLIED, applied),
            Err(_never) => answer,
        },
        None => answer,
    })
}
