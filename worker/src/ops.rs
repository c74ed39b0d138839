//! Operations port of the worker: `/metrics`, `/healthz`, `/readyz`. Everything else is 404.
//!
//! Invariant: a probe is answered however many connections others hold, and these cost no more than [`MOST`] do: the oldest
//! one makes room.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use broker_runtime::metrics::Handle;
use broker_runtime::own_pages::OwnPages;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// The pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The most connections at a time: probes and scrapers are few.
const MOST: usize = 128;

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    own_pages: Option<OwnPages>,
    handle: Handle,
    health: Health,
    stop: CancellationToken,
) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: some will be free again.
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (handle, health, own_pages) = (handle.clone(), health.clone(), own_pages.clone());
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let check = |own: &OwnPages| own.check(request.headers(), request.uri().authority());
            let answer = match own_pages.as_ref().map(check) {
                Some(Err(refused)) => told(StatusCode::FORBIDDEN, format!("{refused}\n")),
                Some(Ok(())) | None => answer(request.uri().path(), &handle, &health),
            };
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let stop = stop.clone();
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        // A broken connection is the client's problem.
        let served =
            tokio::spawn(async move { stop.run_until_cancelled(connection).await.and_then(Result::err) });
        open.push_back(served.abort_handle());
    }
}

fn answer(path: &str, handle: &Handle, health: &Health) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if health.is_ready() => (StatusCode::OK, "ready\n".to_owned()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        "/metrics" => {
            metrics::gauge!("broker_ready").set(f64::from(u8::from(health.is_ready())));
            (StatusCode::OK, handle.render())
        }
        _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
    };
    told(status, body)
}

fn told(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
