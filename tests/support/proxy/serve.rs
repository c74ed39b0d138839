//! Server of the proxy: one call in, at most one response out.

use std::convert::Infallible;
use std::sync::Arc;

use broker_local::aws_shape::{Broken, Upstream, operation};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::faults::TOO_LATE;
use super::{Control, Fault, Outage, ShapedService, wire};

type Answer = Response<Full<Bytes>>;

/// One call to the service behind.
#[derive(Clone)]
struct Call {
    head: http::request::Parts,
    body: Bytes,
}

/// Stands in for one service.
struct Proxy {
    service: ShapedService,
    upstream: Upstream,
    control: Arc<Control>,
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, service: ShapedService, url: &str, control: Arc<Control>) {
    let proxy = Arc::new(Proxy { service, upstream: Upstream::new(url), control });
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
            let (there, back) = (hop(), hop());
            let (shaped_there, shaped_back) =
                self.control.shaper.get().map(|shaper| shaper.hop(self.service)).unwrap_or_default();
            (fault, there + shaped_there, back + shaped_back)
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
            Fault::Refuse(code) => Ok(wire::refused(self.service, code)),
            Fault::RefuseEntries(code) => Ok(wire::entries_refused(&call.body, code)),
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

    /// The service's own answer, or what AWS may say in its place.
    async fn forward(&self, call: Call) -> Result<Answer, Broken> {
        let operation = call.operation();
        let passing = self.upstream.passing(call.head);
        let answer = match self.control.shaper.get() {
            Some(shaper) => shaper.carry(self.service, &operation, call.body, &passing).await?,
            None => passing.pass_on(&operation, call.body).await?,
        };
        Ok(answer.map(Full::from))
    }

    async fn edited(&self, answer: Answer, edit: fn(&[u8], &mut rand::rngs::SmallRng) -> Bytes) -> Answer {
        let (head, body) = answer.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()).map_err(|never: Infallible| never);
        Response::from_parts(head, Full::from(self.control.draw(|rng| edit(&body, rng))))
    }
}

impl Call {
    fn operation(&self) -> String {
        operation(&self.head).to_owned()
    }
}
