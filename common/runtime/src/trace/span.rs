//! One span, or none.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::{TraceContext, current, export};
use broker_domain::Timestamp;

/// What the messaging conventions call SQS.
const SQS: &str = "aws_sqs";

/// A span under way; ended when dropped. Where nothing is traced it is none, and still hands a caller's context on.
#[derive(Debug, Default)]
pub struct Span {
    /// Boxed: mostly there is none.
    live: Option<Box<opentelemetry_sdk::trace::Span>>,
    context: Option<TraceContext>,
}

impl Span {
    /// The span of an HTTP request to `route` (a template, if there is one), under what its client says.
    pub fn server(parent: Option<TraceContext>, method: &'static str, route: Option<&'static str>) -> Self {
        let Some(tracer) = export::tracer() else { return Self::under(parent) };
        let name = route.map_or(Cow::Borrowed(method), |route| format!("{method} {route}").into());
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        Self::start(tracer, name, SpanKind::Server, attributes, parent)
    }

    /// No span of our own, only the place that a caller named.
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

    /// The span of working on one message from `queue`, under the span that sent it, or a trace of its own.
    pub fn process(queue: &Arc<str>, sent_by: Option<TraceContext>) -> Self {
        let Some(tracer) = export::tracer() else { return Self::under(sent_by) };
        let attributes = messaging("process", queue).to_vec();
        Self::start(tracer, format!("process {queue}"), SpanKind::Consumer, attributes, sent_by)
    }

    /// The span of one call to something else, under the current one; none unless that is recorded.
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

    /// Where what happens under it belongs.
    pub const fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// What a message or a call under it carries.
    pub fn traceparent(&self) -> Option<String> {
        self.context.map(|context| context.to_string())
    }

    /// Whether anything told about it is kept.
    pub fn is_recorded(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_recording())
    }

    /// Tells something about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(live) = &mut self.live {
            live.set_attribute(KeyValue::new(key, value));
        }
    }

    /// It failed; `why` is a word, never a text with ids.
    pub fn failed(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(live) = &mut self.live {
            let why = why.into();
            live.set_attribute(KeyValue::new("error.type", why.clone().into_owned()));
            live.set_status(Status::error(why));
        }
    }
}

/// What every span about a queue says.
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

/// One poll, shared by the messages that it brought: its span is made when the last of them was taken up, linked to what
/// sent each. None where nothing is traced.
#[derive(Clone, Debug, Default)]
pub struct Received(Option<Arc<Poll>>);

#[derive(Debug)]
struct Poll {
    queue: Arc<str>,
    began: Timestamp,
    ended: Timestamp,
    messages: usize,
    sent_by: Mutex<Vec<TraceContext>>,
}

impl Received {
    /// A poll of `queue` that brought `messages`.
    pub fn new(queue: &Arc<str>, began: Timestamp, ended: Timestamp, messages: usize) -> Self {
        let traced = export::tracer().filter(|_| messages > 0);
        Self(traced.map(|_| {
            let (queue, sent_by) = (Arc::clone(queue), Mutex::default());
            Arc::new(Poll { queue, began, ended, messages, sent_by })
        }))
    }

    /// One of its messages was sent there.
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
