//! Embedded SQS endpoint: the queues of `rustack`, behind a wrapper that corrects differences to SQS, served by hyper.
//!
//! Invariant: an AWS SDK client gets, for what the broker uses, the responses and typed errors of SQS. The wrapper adds:
//!
//! - errors carry the shape and query code by which the SDK recognises them, e.g. `QueueDoesNotExist`;
//! - [`queues`]: tags at creation, a `maxReceiveCount` written as a string, one creation at a time (two at once could lose
//!   the queue of the first, with its messages), other attributes are refused with `QueueNameExists` however the redrive
//!   policy is written, the dead-letter queue must exist, attributes are all checked before one is set, deleting
//!   a missing queue is an error, `queueUrls` in `ListDeadLetterSourceQueues`, pages of `ListQueues` that end;
//! - [`messages`]: ranges of waits, visibilities and delays (a negative one ended the queue), malformed receipt
//!   handles, ids and size of a batch, receives counted across redrive, the digest of the attributes returned;
//! - [`fair`]: fair delivery between the message groups of a standard queue;
//! - a call that waits on a queue while it is deleted ends with `QueueDoesNotExist`.
//!
//! Remaining differences. Stricter: a receipt handle is void once its visibility timeout has passed, messages over 256 KiB
//! are refused. A message of a group that is delayed, put back, or has ten attributes takes no turn: it is delivered with
//! those that have no group. Kinder: each message is delivered once and in order unless
//! its visibility ends; nothing expires by retention; attributes change at once; a deleted name is free at once; no
//! limit of messages in flight, no throttling; characters of a body are not checked. Missing: message move tasks
//! (`UnsupportedOperation`), FIFO beyond the basics, permissions, encryption, the X-Ray header, `prefix.*` in
//! `MessageAttributeNames`. Visibility and delays that end while a call waits are noticed within a second.

mod as_sent;
mod fair;
mod handler;
mod messages;
mod missing;
mod queues;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc};

use broker_runtime::{clock::Clock, entropy::Entropy, own_pages::OwnPages};
use http::{
    Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, DATE, HeaderValue},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::rt::TokioIo;
use rustack_sqs_core::{config::SqsConfig, provider::RustackSqs};
use rustack_sqs_http::{
    body::SqsResponseBody,
    service::{SqsHttpConfig, SqsHttpService},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{ACCEPT_BACKOFF, DRAIN};
use handler::EndpointHandler;

/// Account and region of the queues' ARNs and URLs; the values do not matter.
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";

/// Serves on `listener`, which is bound to `address`, until `shutdown`; then ends long polls with no message, lets
/// other requests finish, and forgets every queue.
pub(super) async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let provider = Arc::new(RustackSqs::new(SqsConfig {
        skip_signature_validation: true,
        default_region: REGION.to_owned(),
        account_id: ACCOUNT.to_owned(),
        host: address.ip().to_string(),
        port: address.port(),
    }));
    let handler = EndpointHandler::new(Arc::clone(&provider), Entropy::from_system(), shutdown.clone());
    let service = SqsHttpService::new(Arc::new(handler), SqsHttpConfig::default());

    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, service.clone(), clock.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the SQS endpoint could not accept a connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::debug!(left = connections.len(), "connections to the SQS endpoint were cut off at shutdown");
        connections.shutdown().await;
    }
    provider.shutdown_all().await;
}

/// The answer to a request, with the time of now: hyper's own date stands still for as long as a clock was set back.
async fn dated(
    service: SqsHttpService<EndpointHandler>,
    clock: Clock,
    request: Request<Incoming>,
) -> Result<Response<SqsResponseBody>, Infallible> {
    let mut answer = guarded(service, request).await?;
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(clock.now().into())) {
        answer.headers_mut().insert(DATE, date);
    }
    Ok(answer)
}

/// The answer to a request, unless a page of a browser made it. An old SDK's query protocol is told in words.
async fn guarded(
    service: SqsHttpService<EndpointHandler>,
    request: Request<Incoming>,
) -> Result<Response<SqsResponseBody>, Infallible> {
    let refused = OwnPages::on_loopback().check(request.headers(), request.uri().authority());
    let (status, told) = match refused {
        Err(refused) => (StatusCode::FORBIDDEN, refused.to_string()),
        Ok(()) if speaks_query(&request) => (StatusCode::BAD_REQUEST, OLD_PROTOCOL.to_owned()),
        Ok(()) => return service.call(request).await,
    };
    let body = serde_json::json!({ "__type": "com.amazonaws.sqs#UnsupportedOperation", "message": told });
    let mut answer = Response::new(SqsResponseBody::from_json(body.to_string().into_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(answer)
}

/// What a client of the query protocol is told.
const OLD_PROTOCOL: &str = "This endpoint speaks SQS's JSON protocol (AWS SDKs since late 2023), not the older query protocol: \
    update the SDK or CLI.";

/// Whether a request is of SQS's older protocol: a form instead of `X-Amz-Target`.
fn speaks_query<B>(request: &Request<B>) -> bool {
    let form = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = form.is_some_and(|form| form.starts_with("application/x-www-form-urlencoded"));
    let in_query =
        request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("Action=")));
    !request.headers().contains_key("x-amz-target") && (is_form || in_query)
}

async fn serve_connection(
    stream: TcpStream,
    service: SqsHttpService<EndpointHandler>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut connection = pin!(
        http1::Builder::new()
            // It would also close connections that wait in a client's pool. Only this machine can connect.
            .header_read_timeout(None)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| dated(service.clone(), clock.clone(), request))
            )
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the SQS endpoint broke");
    }
}
