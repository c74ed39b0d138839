//! Trace collector: receives the exports of the processes over OTLP/HTTP (protobuf), for tests to query.
//!
//! It can be down (connections are refused) and come back on the same port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::setup::Setup;
use crate::wait::wait_for_condition;

/// A span as it was exported; ids in hex.
#[derive(Clone, Debug)]
pub struct Span {
    /// Which process's: `service.name`.
    pub service: String,
    /// Its trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's; empty at the root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `Server`, `Client`, `Producer`, `Consumer`, `Internal`.
    pub kind: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    /// Whether its status is an error.
    pub failed: bool,
    /// Begin and end, in nanoseconds since the epoch.
    pub time: (u64, u64),
}

impl Span {
    /// An attribute, as text; empty if there is none.
    pub fn says(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }
}

/// A collector. Dropped, it is away.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// One on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let spans = Arc::default();
        Self { address, serving: tokio::spawn(serve(listener, Arc::clone(&spans))), spans }
    }

    /// A setup whose processes are traced here.
    pub fn setup(&self) -> Setup {
        self.trace(Setup::new())
    }

    /// `setup`, its processes traced here.
    pub fn trace(&self, setup: Setup) -> Setup {
        setup.var("BROKER_OTLP_ENDPOINT", &format!("http://{}", self.address))
    }

    /// Goes down: exports are refused.
    pub async fn leave(&mut self) {
        self.serving.abort();
        wait_for_condition("the collector to be away", async || {
            match tokio::net::TcpStream::connect(self.address).await {
                Ok(_) => Err("it listens"),
                Err(_refused) => Ok(()),
            }
        })
        .await;
    }

    /// Everything that came so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no panic in the collector").clone()
    }

    /// Waits until `found` makes something of the spans that came; `Err` says what is missing.
    pub async fn until<T>(&self, what: &str, found: impl Fn(&[Span]) -> Result<T, String>) -> T {
        wait_for_condition(what, async || found(&self.spans())).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, spans: Arc<Mutex<Vec<Span>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let spans = Arc::clone(&spans);
        let service = service_fn(move |request: Request<Incoming>| take(request, Arc::clone(&spans)));
        connections.spawn(async move {
            // A connection that breaks off is its client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn take(
    request: Request<Incoming>,
    spans: Arc<Mutex<Vec<Span>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    if let Ok(body) = request.into_body().collect().await {
        let export = ExportTraceServiceRequest::decode(body.to_bytes()).expect("protobuf as OTLP defines it");
        spans.lock().expect("no panic in the collector").extend(read(export));
    }
    Ok(Response::new(Full::default()))
}

fn read(export: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in export.resource_spans {
        let attributes = attributes(resource.resource.map(|r| r.attributes).unwrap_or_default());
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(sent.map(|span| read_one(&service, span)));
    }
    spans
}

fn read_one(service: &str, sent: Sent) -> Span {
    let kind = SpanKind::try_from(sent.kind).expect("a kind");
    let links = sent.links.into_iter().map(|link| (hex(&link.trace_id), hex(&link.span_id)));
    Span {
        service: service.to_owned(),
        trace: hex(&sent.trace_id),
        id: hex(&sent.span_id),
        parent: hex(&sent.parent_span_id),
        name: sent.name,
        kind: format!("{kind:?}"),
        attributes: attributes(sent.attributes),
        links: links.collect(),
        failed: sent.status.is_some_and(|status| status.code() == StatusCode::Error),
        time: (sent.start_time_unix_nano, sent.end_time_unix_nano),
    }
}

fn attributes(sent: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    sent.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
