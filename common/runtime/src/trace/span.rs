//! A span, or none where nothing is traced.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::{TraceContext, current, export};
use broker_domain::Timestamp;

/// SQS in the messaging conventions.
const SQS: &str = "aws_sqs";

/// A span under way; ended when dropped. Without tracing it is empty, and still passes the caller's context on.
#[derive(Debug, Default)]
pub struct Span {
    /// Boxed, because it is mostly empty.
    live: Option<Box<opentelemetry_sdk::trace::Span>>,
    context: Option<TraceContext>,
}

impl Span {
    /// The span of an HTTP request to `route` (a template, if there is one), with the client's context as its parent.
    pub fn server(parent: Option<TraceContext>, method: &'static str, route: Option<&'static str>) -> Self {
        let Some(tracer) = export::tracer() else { return Self::under(parent) };
        let name = route.map_or(Cow::Borrowed(method), |route| format!("{method} {route}").into());
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        Self::start(tracer, name, SpanKind::Server, attributes, parent)
    }

    /// No span, only the caller's context.
    pub const fn under(context: Option<TraceContext>) -> Self {
        Self { live: None, context }
    }

    /// The span of sending one message to `queue` (a name or a template), under the current one; none outside a trace.
    pub fn send(queue: &Arc<str>) -> Self {
        let context = current();
        let (Some(tracer), Some(_)) = (export::tracer(), context) else { return Self::under(context) };
        let attributes = messaging("send", queue).to_vec();
        Self::start(tracer, format!("send {queue}"), SpanKind::Producer, attributes, context)
    }

    /// The span of processing one message from `queue`: a child of the span that sent it, or a trace of its own.
    pub fn process(queue: &Arc<str>, sent_by: Option<TraceContext>) -> Self {
        let Some(tracer) = export::tracer() else { return Self::under(sent_by) };
        let attributes = messaging("process", queue).to_vec();
        Self::start(tracer, format!("process {queue}"), SpanKind::Consumer, attributes, sent_by)
    }

    /// The span of one outgoing call, under the current one; none unless the current one is recorded.
    pub fn client(name: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>)) -> Self {
        let context = current();
        let recorded = context.filter(TraceContext::is_sampled);
        let (Some(tracer), Some(_)) = (export::tracer(), recorded) else { return Self::under(context) };
        let (name, attributes) = name();
        Self::start(tracer, name, SpanKind::Client, attributes, context)
    }

    fn start(
        tracer: &SdkTracer,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        parent: Option<TraceContext>,
    ) -> Self {
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        let parent = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent.span_context())
        });
        let live = tracer.build_with_context(builder, &parent);
        let context = TraceContext::of(live.span_context());
        Self { live: Some(Box::new(live)), context }
    }

    /// The context for its children.
    pub const fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// The `traceparent` for a message or a call under it.
    pub fn traceparent(&self) -> Option<String> {
        self.context.map(|context| context.to_string())
    }

    /// Whether its attributes are kept.
    pub fn is_recorded(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_recording())
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(live) = &mut self.live {
            live.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks it as failed; `why` is a word, never a text with ids.
    pub fn failed(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(live) = &mut self.live {
            let why = why.into();
            live.set_attribute(KeyValue::new("error.type", why.clone().into_owned()));
            live.set_status(Status::error(why));
        }
    }
}

/// The attributes of every span about a queue.
fn messaging(operation: &'static str, queue: &Arc<str>) -> [KeyValue; 4] {
    // Only a reply queue's label is a template.
    let destination =
        if queue.ends_with('*') { "messaging.destination.template" } else { "messaging.destination.name" };
    [
        KeyValue::new("messaging.system", SQS),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new(destination, Arc::clone(queue)),
    ]
}

/// One poll, shared by its messages: its span is created when the last of them is processed, with a link to the sender of
/// each. None without tracing.
#[derive(Clone, Debug, Default)]
pub struct ReceivedPoll(Option<Arc<Poll>>);

#[derive(Debug)]
struct Poll {
    queue: Arc<str>,
    began: Timestamp,
    ended: Timestamp,
    messages: usize,
    sent_by: Mutex<Vec<TraceContext>>,
}

impl ReceivedPoll {
    /// A poll of `queue` that returned `messages`.
    pub fn new(queue: &Arc<str>, began: Timestamp, ended: Timestamp, messages: usize) -> Self {
        let traced = export::tracer().filter(|_| messages > 0);
        Self(traced.map(|_| {
            let (queue, sent_by) = (Arc::clone(queue), Mutex::default());
            Arc::new(Poll { queue, began, ended, messages, sent_by })
        }))
    }

    /// Links the sender of one of its messages.
    pub fn link(&self, sent_by: TraceContext) {
        if let Some(poll) = &self.0 {
            poll.sent_by.lock().unwrap_or_else(PoisonError::into_inner).push(sent_by);
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let sent_by = std::mem::take(self.sent_by.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Some(tracer) = export::tracer().filter(|_| !sent_by.is_empty()) else { return };
        let links = sent_by.into_iter().map(|context| Link::with_context(context.span_context()));
        let count = i64::try_from(self.messages).unwrap_or(i64::MAX);
        let mut attributes = messaging("receive", &self.queue).to_vec();
        attributes.push(KeyValue::new("messaging.batch.message_count", count));
        let builder = SpanBuilder::from_name(format!("receive {}", self.queue))
            .with_kind(SpanKind::Client)
            .with_start_time(self.began)
            .with_attributes(attributes)
            .with_links(links.collect());
        let mut span = tracer.build_with_context(builder, &Context::new());
        span.end_with_timestamp(self.ended.into());
    }
}
