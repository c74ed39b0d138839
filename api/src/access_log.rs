//! Access log: the one log line, the metric and the span of each request.
//!
//! Invariant: written on drop, so also when a client left before its response. Never contains a token, a query or a body;
//! the client's own request id is bounded and printable.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use broker_domain::{RequestId, TrackId};
use broker_runtime::clock::Clock;
use broker_runtime::trace::{Span, TraceContext};
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;

use crate::metrics;
use crate::response::{Response, X_REQUEST_ID};
use crate::routes::{UNMATCHED, method_label};

/// The status of a request whose client did not wait for the response.
const CLIENT_LEFT: u16 = 499;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest client request id that is logged, in bytes.
const CLIENT_ID_BYTES: usize = 128;

/// The log line of one request.
pub(crate) struct AccessLine {
    clock: Clock,
    started: Instant,
    request_id: RequestId,
    client: IpAddr,
    method: &'static str,
    route: &'static str,
    status: u16,
    outcome: Cow<'static, str>,
    track: Option<TrackId>,
    token: Option<Arc<str>>,
    client_request_id: Option<String>,
    cause: Option<String>,
    may_wait: bool,
    span: Span,
}

impl AccessLine {
    pub(crate) fn begin(request_id: RequestId, head: &Parts, client: IpAddr, clock: &Clock) -> Self {
        let client_id = head.headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        Self {
            clock: clock.clone(),
            started: clock.instant(),
            request_id,
            client,
            method: method_label(&head.method),
            route: UNMATCHED,
            status: CLIENT_LEFT,
            outcome: Cow::Borrowed("client_left"),
            track: None,
            token: None,
            // Header values that are text are ASCII: cutting cannot split a character.
            client_request_id: client_id.map(|id| id[..id.len().min(CLIENT_ID_BYTES)].to_owned()),
            cause: None,
            may_wait: false,
            span: Span::under(traceparent(&head.headers)),
        }
    }

    pub(crate) const fn routed(&mut self, template: &'static str) {
        self.route = template;
    }

    /// Starts the span of the request, if anything is traced. Probes have none.
    pub(crate) fn traced(&mut self) {
        let route = (self.route != UNMATCHED).then_some(self.route);
        self.span = Span::server(self.span.context(), self.method, route);
        if self.span.is_recorded() {
            self.span.set("broker.request_id", self.request_id.to_string());
        }
    }

    /// The trace context of the request.
    pub(crate) const fn trace(&self) -> Option<TraceContext> {
        self.span.context()
    }

    /// The address of the client.
    pub(crate) const fn client(&self) -> IpAddr {
        self.client
    }

    pub(crate) fn authenticated(&mut self, token_name: &Arc<str>) {
        self.token = Some(Arc::clone(token_name));
    }

    pub(crate) fn owned_by(&mut self, track: &TrackId) {
        self.track = Some(track.clone());
    }

    pub(crate) fn caused_by(&mut self, cause: Option<String>) {
        self.cause = cause;
    }

    pub(crate) fn end(mut self, answer: &Response) {
        self.status = answer.status.as_u16();
        self.outcome = answer.outcome.clone();
        self.may_wait = answer.may_wait;
    }
}

impl AccessLine {
    fn tell_span(&mut self) {
        if !self.span.is_recorded() {
            return;
        }
        self.span.set("http.response.status_code", i64::from(self.status));
        self.span.set("broker.outcome", self.outcome.clone());
        if let Some(track) = &self.track {
            self.span.set("broker.track", track.as_str().to_owned());
        }
        // 4xx are no failures of a server (OpenTelemetry, "HTTP server semantic conventions").
        if self.status >= 500 {
            self.span.failed(self.status.to_string());
        }
    }
}

/// The client's trace context. Two headers, or an unreadable one, count as none.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let first = values.next().filter(|_| values.next().is_none())?;
    TraceContext::parse(first.to_str().ok()?)
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let latency = self.clock.instant().saturating_duration_since(self.started);
        metrics::answered(self.method, self.route, self.status, latency);
        self.tell_span();
        // Empty options are left out of the line.
        tracing::info!(
            request_id = %self.request_id,
            trace_id = self.span.context().as_ref().map(TraceContext::trace_id),
            client = %self.client,
            method = self.method,
            route = self.route,
            status = self.status,
            latency_ms = latency.as_micros() as f64 / 1_000.0,
            outcome = %self.outcome,
            track = self.track.as_ref().map(TrackId::as_str),
            token = self.token.as_deref(),
            client_request_id = self.client_request_id.as_deref(),
            cause = self.cause.as_deref(),
            may_wait = self.may_wait.then_some(true),
            "request"
        );
    }
}
