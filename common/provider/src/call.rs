//! One call to the provider with breaker, pause, trace and metrics; a redirect is followed once.

use std::borrow::Cow;

use http::{Method, Uri};
use opentelemetry::KeyValue;

use super::account::AccountId;
use super::breaker::Pass;
use super::http::{Answer, CallFailure};
use super::{Provider, ProviderError};
use broker_runtime::trace::Span;

/// A call that was made.
pub(super) struct Called {
    pub(super) answer: Result<Answer, CallFailure>,
    /// Where the answer came from.
    pub(super) uri: Uri,
    /// To be told how it went.
    pub(super) pass: Pass,
}

impl Provider {
    /// Makes one call, unless nothing is to be asked now.
    pub(super) async fn call(
        &self,
        operation: &'static str,
        method: Method,
        uri: &Uri,
        account: Option<&AccountId>,
    ) -> Result<Called, ProviderError> {
        if let Some(again_after) = self.rest.left(self.clock.instant()) {
            return Err(ProviderError::RateLimited { again_after });
        }
        let pass = self
            .breaker
            .pass(self.clock.instant())
            .map_err(|shut| ProviderError::BreakerOpen { again_after: shut.again_after, why: shut.why })?;
        let began = self.clock.instant();
        let mut span = Span::client(|| span_of(&method, operation));
        let traceparent = span.traceparent();
        let mut uri = uri.clone();
        let mut answer = self.http.call(&method, &uri, traceparent.as_deref()).await;
        let moved = |answer: &Result<Answer, CallFailure>, from: &Uri| {
            answer.as_ref().ok().and_then(|answer| answer.moved(&method, from, account))
        };
        match moved(&answer, &uri) {
            None => {}
            Some(Err(problem)) => answer = Err(elsewhere(problem)),
            Some(Ok(to)) => {
                uri = to;
                answer = self.http.call(&method, &uri, traceparent.as_deref()).await;
                if let Some(again) = moved(&answer, &uri) {
                    let problem = again.err().unwrap_or_else(|| "it redirects twice".to_owned());
                    answer = Err(elsewhere(problem));
                }
            }
        }
        match &answer {
            Ok(answer) => span.set("http.response.status_code", i64::from(answer.status.as_u16())),
            Err(none) => span.failed(none.error.as_str()),
        }
        drop(span);
        let took = self.clock.instant().duration_since(began);
        metrics::histogram!("broker_provider_call_seconds", "operation" => operation).record(took);
        Ok(Called { answer, uri, pass })
    }
}

const fn elsewhere(problem: String) -> CallFailure {
    CallFailure { error: ProviderError::WrongUrl { problem }, was_asked: true }
}

/// The span of a call: by the template of its path.
fn span_of(method: &Method, operation: &'static str) -> (Cow<'static, str>, Vec<KeyValue>) {
    let template = match operation {
        "delete" => "/sandbox/accounts/{uuid}",
        _ => "/current_user/accounts",
    };
    let attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("url.template", template),
    ];
    (format!("{method} {template}").into(), attributes)
}

/// Counts a call by what came of it.
pub(super) fn count(operation: &'static str, result: Result<(), &ProviderError>) {
    let outcome = result.map_or_else(ProviderError::as_str, |()| "ok");
    metrics::counter!("broker_provider_calls_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
}
