//! Traces: what one request meets on its way through HTTP, SQS, workers, the table and the provider.
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
//! Invariants: where no collector is configured no span exists: a caller's `traceparent` is handed on in messages and
//! logged, that is all. A `traceparent` that is none is ignored, never an error. Whoever is traced never waits for the
//! exporter: what it cannot take is dropped. Whether a trace is recorded is decided where it begins (`BROKER_TRACE_RATIO`,
//! or the caller's sampled flag) and holds to its end. What it does not do: logs and metrics; `tracestate`, which the
//! standard lets a participant leave out.
//!
//! Spans are made with the OpenTelemetry SDK itself, not through `tracing` spans: these would exist, and be formatted for
//! a log that does not show them, also where nothing is traced. The tracer is the process's own, like its logger and its
//! metrics recorder; the context of a task is a task-local, so no signature between a handler and its AWS call names it.

mod context;
mod export;
mod sampler;
mod span;

pub use context::TraceContext;
pub use export::{ExportError, Exporter, start};
pub use span::{Received, Span};

use std::pin::pin;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Where the current task stands in a trace, if it does.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Runs `future` at `context`: what it does becomes a child of it.
pub async fn within<F: Future>(context: Option<TraceContext>, future: F) -> F::Output {
    let future = pin!(future);
    match context {
        Some(context) => CURRENT.scope(context, future).await,
        None => future.await,
    }
}

/// `future`, to be run by a task of its own, at the context of this one.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(current(), future)
}

/// Where a message stands that this process sends without a span of its own.
pub fn traceparent() -> Option<String> {
    current().map(|context| context.to_string())
}
