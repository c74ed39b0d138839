//! Exporter of spans to the collector: batches over OTLP/HTTP (protobuf), on a thread of the SDK.
//!
//! Invariants: no traced request waits for the exporter, which drops spans that its queue cannot hold; a call to the
//! collector is bounded; the shutdown takes [`END`] at most. A collector outage is logged once, and its end once. A failed
//! batch is not sent again.

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

use super::sampler::sampler;
use crate::config::TraceConfig;
use crate::entropy::Entropy;
use crate::errors;
use crate::https;

/// Timeout of a batch, and of opening a connection.
const CALL: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// Timeout of the last batch when the process ends.
const END: Duration = Duration::from_secs(2);
/// How long a span waits for others.
const COLLECT: Duration = Duration::from_secs(1);
/// The most waiting spans, and spans of one batch: the defaults of the SDK specification.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
/// The largest response of a collector that is read.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The process's tracer; unset without a collector.
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

/// Starts tracing this process, called `service`, if a collector is configured. Must be called within the runtime.
pub fn start(
    config: Option<&TraceConfig>,
    service: &str,
    entropy: &Entropy,
) -> Result<Exporter, ExportError> {
    let Some(config) = config else { return Ok(Exporter(None)) };
    let client = OtlpClient {
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
        .with_sampler(sampler(config.ratio))
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

/// The traces URL of a collector with the base `endpoint` (OTLP, "OTLP/HTTP Request").
fn traces_of(endpoint: &Uri) -> String {
    format!("{}/v1/traces", endpoint.to_string().trim_end_matches('/'))
}

/// The guard that ends the tracing of the process.
#[derive(Debug)]
#[must_use = "its end sends what still waits"]
pub struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    /// Sends the waiting spans, for `END` at most; spans that end later are lost.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(END)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector");
        }
    }
}

/// Trace and span ids from the process's randomness.
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

/// The HTTP client of the exporter. The SDK calls it on a thread of its own without a runtime: calls run in the process's.
#[derive(Debug)]
struct OtlpClient {
    http: https::Client<Full<Bytes>>,
    runtime: tokio::runtime::Handle,
    /// Whether the last batch failed.
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = call(self.http.clone(), request.map(Full::new));
        // A timer, too, must be created inside the runtime.
        let bounded = async move { tokio::time::timeout(CALL, call).await };
        let answered = match self.runtime.spawn(bounded).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_elapsed)) => Err(format!("no response within {} s", CALL.as_secs())),
            Err(_ended) => Err("the process ends".to_owned()),
        };
        self.tell(answered.as_ref().map_or_else(
            |problem| Some(problem.clone()),
            |answer| (!answer.status().is_success()).then(|| format!("status {}", answer.status().as_u16())),
        ));
        answered.map_err(HttpError::from)
    }
}

impl OtlpClient {
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
    let response = http.request(request).await.map_err(|error| errors::chain(&error))?;
    let (head, body) = response.into_parts();
    let body = https::whole(body, LARGEST_ANSWER).await.map_err(|error| error.to_string())?;
    Ok(Response::from_parts(head, body))
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
