//! Service of one request: id, route, caller, handler, response, log line.
//!
//! Invariant: every request gets exactly one log line and one metric, also one whose client left.

use std::net::IpAddr;
use std::sync::Arc;

use broker_domain::RequestId;
use broker_runtime::clock::Clock;
use broker_runtime::config::Networks;
use broker_runtime::entropy::Entropy;
use broker_runtime::own_pages::OwnPages;
use broker_runtime::trace;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use crate::access_log::AccessLine;
use crate::console;
use crate::handlers::{
    Allocate, HealthChecks, Operator, Quotas, Renewals, RequestRecords, ReturnSandbox, Sandboxes, docs,
};
use crate::limits::PATH_BYTES;
use crate::metrics;
use crate::request::auth::{Authenticator, Identity, TokenRole, TrackCaller};
use crate::request::cors::Cors;
use crate::request::rate_limit::Rate;
use crate::request::seat::Seat;
use crate::request::{body, client_addr, headers};
use crate::response::Response;
use crate::response::codes::Code;
use crate::response::outcome::is_as_asked;
use crate::response::problem::Problem;
use crate::routes::{self, Audience, Route};
use crate::served::ServedCounts;

/// Whose requests a listener answers.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) answers: Audience,
    /// On one person's machine.
    pub(crate) own_pages: Option<OwnPages>,
}

/// The handlers of all routes.
pub(crate) struct Service {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) authenticator: Authenticator,
    pub(crate) trusted_proxies: Networks,
    pub(crate) rate: Option<Rate>,
    pub(crate) cors: Cors,
    /// Wrong tokens of one address.
    pub(crate) wrong_tokens: Rate,
    pub(crate) allocate: Allocate,
    pub(crate) return_sandbox: ReturnSandbox,
    pub(crate) renewals: Renewals,
    pub(crate) quotas: Quotas,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) requests: RequestRecords,
    pub(crate) operator: Operator,
    pub(crate) health: HealthChecks,
    pub(crate) served: ServedCounts,
}

impl Service {
    /// The response to `request`, which came over a connection from `peer`; always.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        door: &Door,
        seat: &Seat,
    ) -> http::Response<Full<Bytes>> {
        let id = self.entropy.request_id(self.clock.now());
        let (head, body) = request.into_parts();
        let sends_body = !body.is_end_stream();
        let client = client_addr::address(peer, &head.headers, &self.trusted_proxies);
        let mut line = AccessLine::begin(id, &head, client, &self.clock);
        let answer = match self.answer(id, &head, body, &mut line, (door, seat)).await {
            Ok(answer) => answer,
            Err(problem) => {
                line.caused_by(problem.cause_chain());
                problem.into_response(id)
            }
        };
        line.end(&answer);
        let answer = self.cors.add_headers(&head.headers, answer);
        let mut response = answer.into_http(id).map(Full::new);
        // hyper's own stands still for as long as a clock was set back.
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(self.clock.now().into())) {
            response.headers_mut().insert(header::DATE, date);
        }
        // Hyper reads on behind a body that was not read. It holds further answers back until one with a body is taken, but not
        // behind one without: a client that takes nothing would fill memory.
        if sends_body && (head.method == Method::HEAD || response.body().is_end_stream()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Checks that hold for all routes come first: the rate, the request's form, CORS.
    async fn answer(
        &self,
        id: RequestId,
        head: &Parts,
        body: Incoming,
        line: &mut AccessLine,
        (door, seat): (&Door, &Seat),
    ) -> Result<Response, Problem> {
        let found = routes::find(door.answers, &head.method, head.uri.path());
        line.routed(found.as_ref().map_or_else(|lost| lost.template, |(route, _)| route.template()));
        // What goes nowhere costs the same as what goes somewhere.
        let is_probe = found.as_ref().is_ok_and(|(route, _)| route.is_probe());
        if !is_probe && !seat.admits().await {
            return Err(Problem::new(Code::Overloaded, "Every connection of this process is taken."));
        }
        if let Some(rate) = self.rate.as_ref().filter(|_| !is_probe) {
            let token = self.authenticator.token_name(&head.headers);
            rate.admit(token, line.client(), self.clock.instant())?;
        }
        if head.uri.path_and_query().is_some_and(|path| path.as_str().len() > PATH_BYTES) {
            return Err(Problem::new(Code::UriTooLong, "The path is longer than 2 KiB."));
        }
        headers::check_host(head)?;
        if let Some(own) = &door.own_pages {
            own.check(&head.headers, head.uri.authority())
                .map_err(|refused| Problem::new(Code::Forbidden, refused.to_string()))?;
        }
        if let Some(answer) = self.cors.preflight(head) {
            return Ok(answer);
        }
        let (route, in_path) = found.map_err(|lost| lost.problem)?;
        if !route.takes_query() && head.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Problem::invalid("This path takes no query."));
        }
        if !is_probe {
            line.traced();
        }
        let trace = line.trace();
        // It is as large as the largest of all handlers: each move of it would copy that.
        let dispatched = Box::pin(self.dispatch((route, &in_path), door.answers, id, head, body, line));
        trace::within(trace, dispatched).await
    }

    /// Every route and its handler, at a listener for `audience`.
    async fn dispatch(
        &self,
        (route, in_path): (Route, &str),
        audience: Audience,
        id: RequestId,
        head: &Parts,
        body: Incoming,
        line: &mut AccessLine,
    ) -> Result<Response, Problem> {
        match route {
            Route::Health => Ok(self.health.alive()),
            Route::Ready => Ok(self.health.ready()),
            Route::Metrics => Ok(self.health.metrics()),
            Route::OpenApi => Ok(docs::document(audience)),
            Route::Docs => Ok(docs::page()),
            Route::DocsFile => docs::file(in_path),
            Route::Console => Ok(console::page()),
            Route::ConsoleFile => console::file(in_path),
            Route::Allocate => {
                let started = self.clock.instant();
                let answered = self.allocate(route, id, head, body, line).await;
                let might_wait = answered.as_ref().is_ok_and(|answer| answer.may_wait);
                let latency = (!might_wait).then(|| started.elapsed());
                self.served.count(&outcome(&answered), broke(&answered), latency);
                metrics::allocated(outcome(&answered), latency);
                answered
            }
            Route::ReturnSandbox => {
                let answered = async {
                    let caller = self.caller(head, line)?;
                    body::expect_none(&body::read(&head.headers, body).await?)?;
                    self.return_sandbox.handle(id, caller, in_path, head).await
                };
                let answered = answered.await;
                metrics::returned(outcome(&answered));
                answered
            }
            Route::Renew => {
                let renewed = async {
                    let TrackCaller { track, .. } = self.caller(head, line)?;
                    let body = body::read(&head.headers, body).await?;
                    self.renewals.handle(id, &track, in_path, &body).await
                };
                let renewed = renewed.await;
                metrics::renewed(outcome(&renewed));
                renewed
            }
            Route::ReportBroken => {
                let TrackCaller { track, .. } = self.caller(head, line)?;
                let report = body::ReportBody::parse(&body::read(&head.headers, body).await?)?;
                self.sandboxes.report_broken(id, &track, in_path, report.reason.as_deref()).await
            }
            Route::Sandbox => {
                let TrackCaller { track, .. } = self.caller(head, line)?;
                body::expect_none(&body::read(&head.headers, body).await?)?;
                self.sandboxes.show(id, &track, in_path).await
            }
            Route::Admin(admin) => {
                let identity = self.identify(head, TokenRole::Admin, line)?;
                line.authenticated(&identity.name);
                identity.may(route.effect())?;
                let body = body::read(&head.headers, body).await?;
                if !admin.takes_body() {
                    body::expect_none(&body)?;
                }
                Box::pin(self.operator.answer(id, &identity, admin, in_path, head, &body)).await
            }
            Route::Quota => self.quota(head, body, line).await,
            Route::Request => {
                let TrackCaller { track, .. } = self.caller(head, line)?;
                body::expect_none(&body::read(&head.headers, body).await?)?;
                self.requests.show(&track, in_path).await
            }
            Route::Cancel => {
                let TrackCaller { track, .. } = self.caller(head, line)?;
                body::expect_none(&body::read(&head.headers, body).await?)?;
                self.requests.cancel(&track, in_path).await
            }
        }
    }

    async fn quota(&self, head: &Parts, body: Incoming, line: &mut AccessLine) -> Result<Response, Problem> {
        let identity = self.identify(head, TokenRole::Track, line)?;
        line.authenticated(&identity.name);
        body::expect_none(&body::read(&head.headers, body).await?)?;
        self.quotas.show(&identity.tenant).await
    }

    async fn allocate(
        &self,
        route: Route,
        id: RequestId,
        head: &Parts,
        body: Incoming,
        line: &mut AccessLine,
    ) -> Result<Response, Problem> {
        let caller = self.caller(head, line)?;
        let body = body::read(&head.headers, body).await?;
        self.allocate.handle(id, caller, head, route.template(), &body).await
    }

    /// Who calls. Wrong tokens are limited for each address, whatever the rate limit is; a right one is never refused for others'
    /// wrong ones, because an address may be shared.
    fn identify(&self, head: &Parts, role: TokenRole, line: &AccessLine) -> Result<Identity, Problem> {
        self.authenticator.authenticate(&head.headers, role).map_err(|problem| {
            let presented = head.headers.contains_key(header::AUTHORIZATION);
            let wrong = presented && problem.code() == Code::Unauthorized;
            let limited = || self.wrong_tokens.admit(None, line.client(), self.clock.instant()).err();
            wrong.then(limited).flatten().unwrap_or(problem)
        })
    }

    /// The caller of a track's route.
    fn caller(&self, head: &Parts, line: &mut AccessLine) -> Result<TrackCaller, Problem> {
        let identity = self.identify(head, TokenRole::Track, line)?;
        line.authenticated(&identity.name);
        let track = headers::owner(&head.headers)?;
        line.owned_by(&track);
        identity.may_act_for(&track)?;
        Ok(TrackCaller { track, tenant: identity.tenant })
    }
}

/// Whether the call failed by no mistake of its client, and not as it was asked to.
fn broke(answered: &Result<Response, Problem>) -> bool {
    let status =
        answered.as_ref().map_or_else(|problem| problem.code().entry().status, |answer| answer.status);
    status.is_server_error() && !is_as_asked(&outcome(answered))
}

fn outcome(answered: &Result<Response, Problem>) -> std::borrow::Cow<'static, str> {
    match answered {
        Ok(answer) => answer.outcome.clone(),
        Err(problem) => problem.outcome().into(),
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::{Outcome, Timestamp};

    use super::*;
    use crate::response::outcome::{WAITED_IN_VAIN, answer};

    #[test]
    fn a_wait_that_ends_as_it_was_asked_to_is_no_failure_of_the_broker() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let mut in_vain = answer(&Outcome::Expired, id);
        in_vain.outcome = WAITED_IN_VAIN.into();
        assert!(broke(&Ok(answer(&Outcome::Expired, id))), "no worker took it");
        assert!(broke(&Ok(answer(&Outcome::Superseded, id))));
        assert!(!broke(&Ok(in_vain)));
        assert!(!broke(&Ok(answer(&Outcome::Cancelled, id))));
        assert!(!broke(&Ok(answer(&Outcome::NoSandboxes, id))));
    }
}
