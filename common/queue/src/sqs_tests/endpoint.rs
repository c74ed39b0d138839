//! An SQS endpoint for tests that counts its calls and fails on demand.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};
use rustack_sqs_model::error::{SqsError, SqsErrorCode};
use rustack_sqs_model::operations::SqsOperation;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Queue, QueueKind, QueueNames, QueueUrls, topology};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;

/// Clients of an endpoint of their own.
pub(super) struct Sqs {
    pub(super) aws: Aws,
    pub(super) names: QueueNames,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    ledger: Arc<Mutex<Ledger>>,
    server: JoinHandle<()>,
}

/// The calls of the endpoint, and the failures to come.
#[derive(Default)]
struct Ledger {
    asked: HashMap<&'static str, usize>,
    under_way: HashMap<&'static str, usize>,
    most_at_once: HashMap<&'static str, usize>,
    /// How many of the next calls of an operation succeed, how many then fail, and with what.
    failing: HashMap<&'static str, (usize, usize, SqsErrorCode)>,
}

impl Drop for Sqs {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Sqs {
    /// An endpoint without queues.
    pub(super) async fn empty() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let ledger = Arc::<Mutex<Ledger>>::default();
        let config = SqsConfig { host: "127.0.0.1".to_owned(), port: address.port(), ..SqsConfig::default() };
        let inner = RustackSqsHandler::new(Arc::new(RustackSqs::new(config)));
        let handler = Arc::new(Counting { inner: Arc::new(inner), ledger: Arc::clone(&ledger) });
        let server = tokio::spawn(serve(listener, SqsHttpService::new(handler, SqsHttpConfig::default())));
        let clock = Clock::system();
        let aws = aws_at(&format!("http://{address}"), &clock);
        let names = QueueNames::new("test").expect("a valid prefix");
        Self { aws, names, clock, entropy: Entropy::seeded(1), ledger, server }
    }

    /// An endpoint with the four queues.
    pub(super) async fn with_queues() -> (Self, QueueUrls) {
        let sqs = Self::empty().await;
        topology::ensure(&sqs.aws, &sqs.names, Duration::from_secs(30)).await.expect("the queues are made");
        let urls = QueueUrls::resolve(&sqs.aws, &sqs.names).await.expect("the queues are there");
        (sqs, urls)
    }

    /// The number of calls of an operation.
    pub(super) fn asked(&self, operation: SqsOperation) -> usize {
        self.ledger().asked.get(operation.as_str()).copied().unwrap_or_default()
    }

    /// The number of calls of an operation in progress.
    pub(super) fn under_way(&self, operation: SqsOperation) -> usize {
        self.ledger().under_way.get(operation.as_str()).copied().unwrap_or_default()
    }

    /// The most calls of an operation that were in progress at once.
    pub(super) fn most_at_once(&self, operation: SqsOperation) -> usize {
        self.ledger().most_at_once.get(operation.as_str()).copied().unwrap_or_default()
    }

    /// Lets the next `times` calls of an operation fail.
    pub(super) fn fail(&self, operation: SqsOperation, times: usize, code: SqsErrorCode) {
        self.ledger().failing.insert(operation.as_str(), (0, times, code));
    }

    /// Lets one call of an operation fail, after so many that do not.
    pub(super) fn fail_after(&self, operation: SqsOperation, calls: usize, code: SqsErrorCode) {
        self.ledger().failing.insert(operation.as_str(), (calls, 1, code));
    }

    /// Visible and in flight.
    pub(super) async fn depth(&self, queue: &Queue) -> (u64, u64) {
        let depth =
            topology::depth(&self.aws, queue, queue.label().to_string()).await.expect("the queue is there");
        (depth.visible, depth.in_flight)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients of the endpoint at `url`.
pub(super) fn aws_at(url: &str, clock: &Clock) -> Aws {
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(url)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    Aws::new(&config, clock, Duration::from_secs(20))
}

/// The requests queue, for tests that need only one.
pub(super) fn requests(urls: &QueueUrls) -> Queue {
    urls.get(QueueKind::Requests)
}

async fn serve(listener: TcpListener, service: SqsHttpService<Counting>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        let serving = hyper::server::conn::http1::Builder::new();
        connections.spawn(async move { serving.serve_connection(TokioIo::new(stream), service).await });
    }
}

struct Counting {
    inner: Arc<RustackSqsHandler>,
    ledger: Arc<Mutex<Ledger>>,
}

/// One call in progress.
struct UnderWay {
    operation: &'static str,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger.under_way.entry(self.operation).or_default() -= 1;
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<SqsResponseBody>, SqsError>> + Send>>;

impl SqsHandler for Counting {
    fn handle_operation(&self, operation: SqsOperation, body: Bytes) -> Answer {
        let name = operation.as_str();
        let failure = self.enter(name);
        let under_way = UnderWay { operation: name, ledger: Arc::clone(&self.ledger) };
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let _under_way = under_way;
            match failure {
                Some(code) => Err(SqsError::new(code, "on demand")),
                None => inner.handle_operation(operation, body).await,
            }
        })
    }
}

impl Counting {
    fn enter(&self, operation: &'static str) -> Option<SqsErrorCode> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger.asked.entry(operation).or_default() += 1;
        let under_way = ledger.under_way.entry(operation).or_default();
        *under_way += 1;
        let under_way = *under_way;
        let most = ledger.most_at_once.entry(operation).or_default();
        *most = under_way.max(*most);
        let (before, times, code) = ledger.failing.get_mut(operation)?;
        if *before > 0 {
            *before -= 1;
            return None;
        }
        *times = times.checked_sub(1)?;
        Some(*code)
    }
}
