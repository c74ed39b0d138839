//! A source of credentials that now and then takes 4 s, as a container's or a role's does.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use broker_runtime::own_pages::OwnPages;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::hops;

/// Starts one on a free port of loopback; what `AWS_CONTAINER_CREDENTIALS_FULL_URI` is to say.
///
/// # Errors
///
/// When no port can be listened on.
pub async fn start(seed: u64, stop: CancellationToken) -> io::Result<String> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let url = format!("http://{}/credentials", listener.local_addr()?);
    let rng = Arc::new(Mutex::new(SmallRng::seed_from_u64(seed)));
    tokio::spawn(async move { stop.run_until_cancelled(serve(listener, rng)).await });
    Ok(url)
}

async fn serve(listener: TcpListener, rng: Arc<Mutex<SmallRng>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let rng = Arc::clone(&rng);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let guard = OwnPages::on_loopback();
                let refused = guard.check(request.headers(), request.uri().authority()).is_err();
                let takes = hops::credentials_take(&mut rng.lock().unwrap_or_else(PoisonError::into_inner));
                async move {
                    if refused {
                        let mut answer = Response::new(Full::default());
                        *answer.status_mut() = StatusCode::FORBIDDEN;
                        return Ok::<_, Infallible>(answer);
                    }
                    tokio::time::sleep(takes).await;
                    Ok(answer())
                }
            });
            // A connection that breaks off is its client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer() -> Response<Full<Bytes>> {
    let body = json!({
        "AccessKeyId": "test",
        "SecretAccessKey": "test",
        "Token": "test",
        "Expiration": "2099-01-01T00:00:00Z",
    });
    let mut answer = Response::new(Full::from(body.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
