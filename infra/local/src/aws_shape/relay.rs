//! A relay before the endpoints, which shapes every call: what `broker up --aws-latency` talks to.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use broker_runtime::own_pages::OwnPages;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Answer, ShapedService, Shaper};

const TARGET: &str = "x-amz-target";

/// A call that gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks")]
pub struct Broken;

/// The service behind. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// One call on its way to the service behind.
#[derive(Clone, Debug)]
pub struct Passing {
    upstream: Upstream,
    head: Parts,
}

/// `DynamoDB_20120810.GetItem` is `GetItem`.
pub fn operation(head: &Parts) -> &str {
    let target = head.headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or("unknown");
    target.rsplit_once('.').map_or(target, |(_, operation)| operation)
}

impl Upstream {
    /// The service at `url`.
    pub fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, url: url.trim_end_matches('/').to_owned() }
    }

    /// A call with this head.
    pub fn passing(&self, head: Parts) -> Passing {
        Passing { upstream: self.clone(), head }
    }
}

impl Passing {
    /// The service's own answer to `operation` with this body.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn pass_on(&self, operation: &str, body: Bytes) -> Result<Answer, Broken> {
        let Self { upstream: Upstream { client, url }, head } = self;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("{url}{path}").parse().map_err(|_| Broken)?;
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = without_length(head.headers.clone());
        let target = head.headers.get(TARGET).and_then(|target| target.to_str().ok());
        if let Some((service, _)) = target.and_then(|target| target.rsplit_once('.')) {
            let target = HeaderValue::try_from(format!("{service}.{operation}")).map_err(|_| Broken)?;
            request.headers_mut().insert(TARGET, target);
        }
        let (head, body) = client.request(request).await.map_err(|_| Broken)?.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = without_length(head.headers);
        Ok(answer)
    }
}

/// The length is that of the body that is sent on, and the service is another host.
fn without_length(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, HOST] {
        headers.remove(name);
    }
    headers
}

/// Stands before one service.
#[derive(Clone, Debug)]
pub struct Relay {
    service: ShapedService,
    upstream: Upstream,
    shaper: Shaper,
}

impl Relay {
    /// A relay before the `service` at `url`.
    pub fn new(service: ShapedService, url: &str, shaper: Shaper) -> Self {
        Self { service, upstream: Upstream::new(url), shaper }
    }

    /// Listens on `address` and serves until `stop`; where it listens.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn start(self, address: SocketAddr, stop: CancellationToken) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        tokio::spawn(async move { stop.run_until_cancelled(self.serve(listener)).await });
        Ok(bound)
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            // Answers are small: they must not wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            let relay = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let relay = relay.clone();
                    async move { Ok::<_, Infallible>(relay.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(None)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the relay broke off");
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if OwnPages::on_loopback().check(request.headers(), request.uri().authority()).is_err() {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::FORBIDDEN;
            return answer;
        }
        let shaped = async {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
            let (there, back) = self.shaper.hop(self.service);
            tokio::time::sleep(there).await;
            let operation = operation(&head).to_owned();
            let passing = self.upstream.passing(head);
            let answer = self.shaper.carry(self.service, &operation, body, &passing).await?;
            tokio::time::sleep(back).await;
            Ok::<_, Broken>(answer)
        };
        shaped.await.map(|answer| answer.map(Full::from)).unwrap_or_else(|_broken| {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        })
    }
}
