//! Observer of every AWS attempt: records the time of AWS, the outcome and the duration.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aws_sdk_sqs::operation::receive_message::ReceiveMessageOutput;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef, Error,
    FinalizerInterceptorContextRef, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

use super::calls;
use crate::clock::{Clock, http_date};
use crate::trace::Span;
use broker_domain::Timestamp;

/// The interceptor that observes every attempt of its clients.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    clock: Clock,
}

/// The start of the attempt under way.
#[derive(Clone, Copy, Debug)]
struct Began {
    asked: Timestamp,
    instant: Instant,
}

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

/// The span of the call under way, if its caller is traced.
#[derive(Debug)]
struct OpenCall(Mutex<Span>);

impl Storable for OpenCall {
    type Storer = StoreReplace<Self>;
}

impl Observer {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Passes the `Date` of a response to the clock. The server dates a response when it writes it, for a long poll at the
    /// end of the poll; both are between `asked` and now.
    fn observe_date(&self, response: &HttpResponse, asked: Timestamp) {
        let date = response.headers().get("date").and_then(http_date);
        if let Some(date) = date {
            self.clock.observe(date, asked, self.clock.uncorrected());
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for Observer {
    fn name(&self) -> &'static str {
        "BrokerObserver"
    }

    // Not in read_before_execution: a client's interceptor does not know the operation there.
    fn read_before_serialization(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let called = config.load::<Metadata>().map(|call| calls::span(call.service(), call.name()));
        if let Some(span) = called.filter(Span::is_recorded) {
            config.interceptor_state().store_put(OpenCall(Mutex::new(span)));
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(OpenCall(span)) = config.load::<OpenCall>() {
            // Taken out, it ends here and not with the config bag.
            let mut span = std::mem::take(&mut *span.lock().unwrap_or_else(PoisonError::into_inner));
            match outcome(context.response(), context.output_or_error()) {
                "ok" | "empty" => {}
                refused => span.failed(refused),
            }
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let began = Began { asked: self.clock.uncorrected(), instant: self.clock.instant() };
        config.interceptor_state().store_put(began);
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(call) = config.load::<Metadata>() else { return Ok(()) };
        let labels = [
            ("service", call.service().to_ascii_lowercase()),
            ("operation", call.name().to_owned()),
            ("outcome", outcome(context.response(), context.output_or_error()).to_owned()),
        ];
        metrics::counter!("broker_aws_calls_total", &labels).increment(1);
        // Nothing was transmitted when, for example, no credentials were found.
        let Some(began) = config.load::<Began>() else { return Ok(()) };
        let took = self.clock.instant().saturating_duration_since(began.instant);
        metrics::histogram!("broker_aws_call_seconds", &labels[..2]).record(took.as_secs_f64());
        if let Some(response) = context.response() {
            self.observe_date(response, began.asked);
        }
        Ok(())
    }
}

/// The outcome of an attempt, for metrics. Lost conditions are outcomes, as is a poll without messages.
fn outcome(
    response: Option<&HttpResponse>,
    result: Option<Result<&Output, &OrchestratorError<Error>>>,
) -> &'static str {
    match result {
        None => "error",
        Some(Ok(output)) => match output.downcast_ref::<ReceiveMessageOutput>() {
            Some(received) if received.messages().is_empty() => "empty",
            Some(_) | None => "ok",
        },
        Some(Err(error)) if error.is_timeout_error() => "timeout",
        Some(Err(error)) => match error.as_connector_error() {
            Some(connector) if connector.is_timeout() => "timeout",
            Some(_) => "unreachable",
            None => response.map_or("error", refusal),
        },
    }
}

/// The outcome of a response that is an error.
fn refusal(response: &HttpResponse) -> &'static str {
    let body = response.body().bytes().unwrap_or_default();
    match error_code(body).as_deref() {
        Some("ConditionalCheckFailedException") => "conditional_check_failed",
        Some("TransactionCanceledException") => cancellation(body),
        Some("TransactionConflictException" | "TransactionInProgressException") => "conflict",
        Some(
            "ResourceNotFoundException" | "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue",
        ) => "not_found",
        Some(
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "OverLimit",
        ) => "throttled",
        Some(_) | None if response.status().is_server_error() => "server_error",
        Some(_) | None => "error",
    }
}

/// The outcome of a transaction that was cancelled: its reasons say whether the table was asked too much, or another transaction was in
/// the way of it and nothing else.
fn cancellation(body: &[u8]) -> &'static str {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct CancelledTransaction {
        cancellation_reasons: Vec<CancelReason>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct CancelReason {
        code: String,
    }
    let cancelled = serde_json::from_slice(body);
    let codes =
        cancelled.map(|cancelled: CancelledTransaction| cancelled.cancellation_reasons).unwrap_or_default();
    let codes: Vec<_> =
        codes.iter().map(|reason| reason.code.as_str()).filter(|code| *code != "None").collect();
    if codes.iter().any(|code| matches!(*code, "ThrottlingError" | "ProvisionedThroughputExceeded")) {
        "throttled"
    } else if !codes.is_empty() && codes.iter().all(|code| *code == "TransactionConflict") {
        "conflict"
    } else {
        "transaction_canceled"
    }
}

/// The code in the body of an error of the AWS JSON protocols: `{"__type": "namespace#Code"}`.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct AwsError {
        #[serde(rename = "__type")]
        type_: String,
    }
    let AwsError { type_ } = serde_json::from_slice(body).ok()?;
    Some(type_.rsplit_once('#').map_or(type_.clone(), |(_, code)| code.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_is_found_with_and_without_its_namespace() {
        let body = br#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"no"}"#;
        assert_eq!(error_code(body).as_deref(), Some("ConditionalCheckFailedException"));
        assert_eq!(error_code(br#"{"__type":"QueueDoesNotExist"}"#).as_deref(), Some("QueueDoesNotExist"));
        assert_eq!(error_code(b"<html>"), None);
    }

    #[test]
    fn a_cancelled_transaction_tells_by_its_reasons_whether_it_was_throttled_or_met_another_one() {
        let outcome = |codes: &[&str]| {
            let reasons: Vec<_> = codes.iter().map(|code| serde_json::json!({ "Code": code })).collect();
            let body = serde_json::json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "CancellationReasons": reasons,
            });
            let response = HttpResponse::new(400.try_into().unwrap(), body.to_string().into());
            refusal(&response)
        };
        for code in ["ThrottlingError", "ProvisionedThroughputExceeded"] {
            assert_eq!(outcome(&["None", code]), "throttled");
            assert_eq!(outcome(&["ConditionalCheckFailed", "TransactionConflict", code]), "throttled");
        }
        assert_eq!(outcome(&["TransactionConflict", "None"]), "conflict");
        for codes in
            [&["ConditionalCheckFailed", "TransactionConflict"][..], &["ValidationError"], &["None"], &[]]
        {
            assert_eq!(outcome(codes), "transaction_canceled", "{codes:?}");
        }
        assert_eq!(cancellation(br#"{"__type":"TransactionCanceledException"}"#), "transaction_canceled");
    }
}
