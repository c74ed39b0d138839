//! Traces of requests through HTTP, SQS, workers, the table and the provider.
//!
//! ```text
//! POST /v1/allocate (server)
//!  └ send requests (producer) ──────── traceparent in the message ───────┐
//!     └ process requests (consumer)   ◀─ link ─ receive requests (a trace of its own, one for each poll)
//!        ├ DynamoDB.TransactWriteItems (client)
//!        └ send replies-* (producer) ── traceparent in the reply ──┐
//!           └ process replies-* (consumer)  ◀─ link ─ receive replies-*
//! ```
//!
//! Names and attributes are OpenTelemetry's messaging, database and HTTP conventions; names are templates, never ids. A
//! poll brings messages of many traces, so its span links to them and is the parent of none.
//!
//! Invariants: without a collector no span exists; a caller's `traceparent` is only passed on in messages and logged. An
//! invalid `traceparent` is ignored, never an error. No traced request waits for the exporter, which drops what it cannot
//! take. The decision to record a trace is made where it begins (`BROKER_TRACE_RATIO`, or the caller's sampled flag) and
//! holds to its end. `tracestate` is left out, as the standard permits.
//!
//! Spans are made with the OpenTelemetry SDK itself, not through `tracing` spans: those would be created, and formatted for
//! a log that does not show them, even without a collector. The tracer is process-wide, like the logger and the metrics
//! recorder; the context of a task is a task-local, so no signature between a handler and its AWS call names it.

mod context;
mod export;
mod sampler;
mod span;

pub use context::TraceContext;
pub use export::{ExportError, Exporter, start};
pub use span::{ReceivedPoll, Span};

tokio::task_local! {
    static CURRENT: Option<TraceContext>;
}

/// The trace context of the current task, if it has one.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// `future`, run with `context` as the parent of its spans.
pub fn within<F: Future>(
    context: Option<TraceContext>,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(context, future)
}

/// `future`, to be spawned as a task, with the context of the current one.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(current(), future)
}

/// The `traceparent` of a message that is sent without a span of its own.
pub fn traceparent() -> Option<String> {
    current().map(|context| context.to_string())
}
