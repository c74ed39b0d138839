//! Server of the proxy: one call in, at most one response out.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::faults::TOO_LATE;
use super::{Control, Fault, Outage, Service, wire};

type Upstream = Client<HttpConnector, Full<Bytes>>;
type Answer = Response<Full<Bytes>>;

/// Why a call gets no answer; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks")]
struct Broken;

/// One call to the service behind.
#[derive(Clone)]
struct Call {
    head: http::request::Parts,
    body: Bytes,
}

/// Stands in for one service.
struct Proxy {
    service: Service,
    upstream: Upstream,
    url: String,
    control: Arc<Control>,
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, service: Service, url: &str, control: Arc<Control>) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let upstream = Client::builder(TokioExecutor::new()).build(connector);
    let proxy = Arc::new(Proxy { service, upstream, url: url.trim_end_matches('/').to_owned(), control });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if matches!(*proxy.control.outages.watch(service).borrow(), Some(Outage::Refused)) {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move { proxy.answer(request).await }
            });
            // A broken connection is what this is about.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Broken> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        let call = Call { head, body };
        let operation = call.operation();
        self.control.state().tallies.of(&operation).calls += 1;
        let mut outage = self.control.outages.watch(self.service);
        let gone = tokio::select! {
            biased;
            gone = outage.wait_for(Option::is_some) => *gone.map_err(|_| Broken)?,
            answer = self.carry_out(&operation, call) => return answer,
        };
        self.control.state().tallies.of(&operation).away += 1;
        if gone == Some(Outage::Silent) {
            // A call without a response ends when the service is back, if its caller is still there.
            let _ = outage.wait_for(Option::is_none).await;
        }
        Err(Broken)
    }

    async fn carry_out(&self, operation: &str, call: Call) -> Result<Answer, Broken> {
        let (fault, there, back) = {
            let mut state = self.control.state();
            let fault = state.decide(operation, &call.body);
            if let Some(fault) = fault {
                *state.tallies.of(operation).faults.entry(fault).or_default() += 1;
            }
            let latency = state.latency;
            let mut hop = || latency.one_way(self.service, &mut state.rng);
            (fault, hop(), hop())
        };
        if !there.is_zero() {
            tokio::time::sleep(there).await;
        }
        let answer = self.with(fault, operation, call).await;
        if !back.is_zero() {
            tokio::time::sleep(back).await;
        }
        answer
    }

    async fn with(&self, fault: Option<Fault>, operation: &str, call: Call) -> Result<Answer, Broken> {
        let Some(fault) = fault else { return self.forward(call).await };
        match fault {
            Fault::Reset => Err(Broken),
            Fault::LoseResponse => {
                self.forward(call).await?;
                Err(Broken)
            }
            Fault::LateResponse => {
                let answer = self.forward(call).await?;
                tokio::time::sleep(TOO_LATE).await;
                Ok(answer)
            }
            Fault::Throttle => Ok(wire::throttled(self.service)),
            Fault::Conflict => Ok(wire::conflict(operation, &call.body)),
            Fault::UnknownQueue => Ok(wire::unknown_queue()),
            Fault::ServerError => Ok(wire::server_error(self.service)),
            Fault::ServerErrorAfterEffect => {
                self.forward(call).await?;
                Ok(wire::server_error(self.service))
            }
            Fault::Duplicate => {
                self.forward(call.clone()).await?;
                self.forward(call).await
            }
            Fault::Reorder if operation == "ReceiveMessage" => {
                let answer = self.forward(call).await?;
                Ok(self.edited(answer, wire::shuffled).await)
            }
            Fault::Reorder => {
                let body = self.control.draw(|rng| wire::held_back(&call.body, rng));
                self.forward(Call { body, ..call }).await
            }
            Fault::FailEntry => {
                let answer = self.forward(call).await?;
                Ok(self.edited(answer, wire::one_failed).await)
            }
        }
    }

    /// The service's own answer.
    async fn forward(&self, call: Call) -> Result<Answer, Broken> {
        let path = call.head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("{}{path}", self.url).parse().map_err(|_| Broken)?;
        let mut request = Request::new(Full::from(call.body));
        *request.method_mut() = call.head.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = without_length(call.head.headers);
        let (head, body) = self.upstream.request(request).await.map_err(|_| Broken)?.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = without_length(head.headers);
        Ok(answer)
    }

    async fn edited(&self, answer: Answer, edit: fn(&[u8], &mut rand::rngs::SmallRng) -> Bytes) -> Answer {
        let (head, body) = answer.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()).map_err(|never: Infallible| never);
        Response::from_parts(head, Full::from(self.control.draw(|rng| edit(&body, rng))))
    }
}

impl Call {
    fn operation(&self) -> String {
        let target = self.head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        wire::operation(target.unwrap_or("unknown")).to_owned()
    }
}

/// The length is that of the body that is sent on.
fn without_length(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers
}
