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
pub(crate) use request::RequestRecords;
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
/// not know 202: it gets a 503 and repeats. In the log and in metrics both are a wait that ran out; `queued` is one that did not
/// wait.
fn answer(answered: &Progress, id: RequestId, preferences: Preferences) -> Result<Response, Problem> {
    let answer = match answered {
        Progress::Ended(ended) => outcome::answer(ended, id),
        Progress::StillQueued if preferences.respond_async => outcome::queued(id),
        Progress::StillQueued => {
            let ran_out = outcome::still_queued(id);
            if !preferences.said {
                return Err(ran_out);
            }
            let mut answer = outcome::queued(id);
            answer.outcome = ran_out.outcome().into();
            answer
        }
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

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;

    use super::*;

    #[test]
    fn the_log_tells_a_wait_that_ran_out_from_a_call_that_did_not_wait() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let told = |said, respond_async| {
            let preferences = Preferences { said, respond_async, ..Preferences::default() };
            match answer(&Progress::StillQueued, id, preferences) {
                Ok(answer) => (answer.status.as_u16(), answer.outcome.into_owned()),
                Err(problem) => (problem.status().as_u16(), problem.outcome()),
            }
        };
        assert_eq!(told(true, true), (202, "queued".to_owned()));
        assert_eq!(told(true, false), (202, "still_queued".to_owned()));
        assert_eq!(told(false, false), (503, "still_queued".to_owned()));
    }
}
