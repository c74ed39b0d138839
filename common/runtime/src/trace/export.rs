//! From spans to the collector: batches over OTLP/HTTP (protobuf), by a thread of the SDK's.
//!
//! Invariants: nobody who is traced waits for the exporter, which drops what its queue cannot hold; a call to the
//! collector is bounded; the end takes [`END`] at most. That the collector is away is logged once, and once that it is
//! back. What it does not do: try a batch again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, SdkTracer, SdkTracerProvider,
};

use super::sampler::Follow;
use crate::config::TraceConfig;
use crate::entropy::Entropy;
use crate::https;

/// How long a batch may be on its way, and how long opening a connection may take.
const CALL: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// How long the last batch may take when the process ends.
const END: Duration = Duration::from_secs(2);
/// How long a span waits for others.
const COLLECT: Duration = Duration::from_secs(1);
/// Spans that wait at most, and those of one batch: what the SDK's specification proposes.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
/// The largest answer of a collector that is read.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What the process's spans are made by; unset where nothing is traced.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// Why traces could not start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No certificates are found.
    #[error("BROKER_OTLP_ENDPOINT: {0}")]
    Connector(String),
    /// The exporter refuses its settings (its headers come from OTEL_EXPORTER_OTLP_HEADERS).
    #[error("traces could not start: {0}")]
    Build(#[from] ExporterBuildError),
    /// There is a tracer already.
    #[error("traces were started twice")]
    Twice,
}

/// Starts to trace this process, called `service`, if a collector is configured. Call it within the runtime.
pub fn start(
    config: Option<&TraceConfig>,
    service: &str,
    entropy: &Entropy,
) -> Result<Exporter, ExportError> {
    let Some(config) = config else { return Ok(Exporter(None)) };
    let client = Client {
        http: https::client(&config.endpoint, CONNECT).map_err(ExportError::Connector)?,
        runtime: tokio::runtime::Handle::current(),
        failing: AtomicBool::new(false),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(traces_of(&config.endpoint))
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(COLLECT)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(Follow { ratio: config.ratio })
        .with_id_generator(Ids(entropy.clone()))
        .with_resource(resource(service, entropy))
        .build();
    let scope = InstrumentationScope::builder("sandbox-broker").with_version(env!("CARGO_PKG_VERSION"));
    TRACER.set(provider.tracer_with_scope(scope.build())).map_err(|_| ExportError::Twice)?;
    Ok(Exporter(Some(provider)))
}

fn resource(service: &str, entropy: &Entropy) -> Resource {
    let attributes = [
        KeyValue::new("service.name", service.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", entropy.uuid().to_string()),
    ];
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Where a collector whose base is `endpoint` takes traces (OTLP, "OTLP/HTTP Request").
fn traces_of(endpoint: &Uri) -> String {
    format!("{}/v1/traces", endpoint.to_string().trim_end_matches('/'))
}

/// What ends the tracing of the process.
#[derive(Debug)]
#[must_use = "its end sends what still waits"]
pub struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    /// Sends what still waits, for `END` at most; what ends later is not traced.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(END)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector");
        }
    }
}

/// Trace and span ids from the process's own randomness.
#[derive(Debug)]
struct Ids(Entropy);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from_bytes(self.0.bytes())
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from_bytes(self.0.bytes())
    }
}

/// The way to the collector. The SDK calls it from a thread of its own, which has no runtime: calls run in the process's.
#[derive(Debug)]
struct Client {
    http: https::Client<Full<Bytes>>,
    runtime: tokio::runtime::Handle,
    /// Whether the last batch did not arrive.
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = call(self.http.clone(), request.map(Full::new));
        // A timer, too, is made inside of the runtime only.
        let bounded = async move { tokio::time::timeout(CALL, call).await };
        let answered = match self.runtime.spawn(bounded).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_elapsed)) => Err(format!("no answer within {} s", CALL.as_secs())),
            Err(_ended) => Err("the process ends".to_owned()),
        };
        self.tell(answered.as_ref().map_or_else(
            |problem| Some(problem.clone()),
            |answer| (!answer.status().is_success()).then(|| format!("status {}", answer.status().as_u16())),
        ));
        answered.map_err(HttpError::from)
    }
}

impl Client {
    fn tell(&self, problem: Option<String>) {
        let outcome = if problem.is_some() { "failed" } else { "ok" };
        metrics::counter!("broker_trace_exports_total", "outcome" => outcome).increment(1);
        let failed_before = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed_before => {
                tracing::warn!(problem, "the collector does not take spans: they are dropped");
            }
            None if failed_before => tracing::info!("the collector takes spans again"),
            Some(_) | None => {}
        }
    }
}

async fn call(
    http: https::Client<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, String> {
    let response = http.request(request).await.map_err(|error| https::told(&error))?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, https::whole(body, LARGEST_ANSWER).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_to_their_path_under_the_collectors_base() {
        let of = |base: &str| traces_of(&base.parse().unwrap());
        assert_eq!(of("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(of("https://otel.example/base/"), "https://otel.example/base/v1/traces");
    }

    #[test]
    fn ids_are_of_the_process_own_randomness() {
        let ids = || Ids(Entropy::seeded(7));
        assert_eq!(ids().new_trace_id(), ids().new_trace_id());
        let one = ids();
        assert_ne!(one.new_span_id(), one.new_span_id());
    }
}
