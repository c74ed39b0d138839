//! HTTP server: accepts connections and serves HTTP/1.1 on each, within bounds.
//!
//! Invariants: no more connections than configured are served, and a few more for probes (others wait in the kernel); no head, body or idle connection
//! takes longer or is larger than [`limits`](crate::limits) says; a lame duck serves as before, but each response closes its
//! connection; on drain nothing new is accepted and requests under way are finished.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_runtime::clock::Clock;
use http::Request;
use http::header::{self, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::http::connection::{Busy, Connection, ConnectionBounds};
use crate::http::early_errors::EarlyErrors;
use crate::limits::{BUFFER_BYTES, HEAD_BYTES};
use crate::request::seat::{Seat, Seats};
use crate::service::{Door, Service};

/// The pause after an accept that failed for lack of file descriptors or memory.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// The server of one listener.
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Clock,
    pub(crate) refusals: EarlyErrors,
    pub(crate) seats: Seats,
    /// Whose requests are answered here.
    pub(crate) door: Door,
    /// Cancelled when the process becomes a lame duck: clients must connect elsewhere.
    pub(crate) leaving: CancellationToken,
}

impl Server {
    /// Accepts until `soft`, then serves until every connection has ended, or until `hard`.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        soft: &CancellationToken,
        hard: &CancellationToken,
    ) {
        let graceful = GracefulShutdown::new();
        while let Some(accepted) = soft.run_until_cancelled(accept(&listener, &self.seats)).await {
            match accepted {
                Ok((stream, peer, seat)) => self.spawn(stream, peer, seat, &graceful),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    soft.run_until_cancelled(tokio::time::sleep(AFTER_FAILED_ACCEPT)).await;
                }
            }
        }
        drop(listener);
        tracing::info!(connections = graceful.count(), "draining connections");
        hard.run_until_cancelled(graceful.shutdown()).await;
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, seat: Seat, graceful: &GracefulShutdown) {
        // Responses are one small write each; waiting for more only adds latency. A socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
        let busy = Busy::default();
        let wire = Connection::new(
            stream,
            busy.clone(),
            self.refusals.clone(),
            if seat.is_spare() { ConnectionBounds::of_spare() } else { ConnectionBounds::default() },
            self.clock.clone(),
        );
        let (service, leaving, door) = (Arc::clone(&self.service), self.leaving.clone(), self.door.clone());
        let of_answers = seat.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, busy, leaving) = (Arc::clone(&service), busy.clone(), leaving.clone());
            let (door, seat) = (door.clone(), of_answers.clone());
            async move {
                let _answering = busy.begin();
                let mut response = service.serve(request, peer.ip(), &door, &seat).await;
                if leaving.is_cancelled() || seat.is_spare() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            // A client that has said all it has to say still waits for its answer.
            .half_close(true)
            // Heads and bodies apart: a large body is written from the one place where it is.
            .writev(true)
            .serve_connection(TokioIo::new(wire), answer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(seat);
        });
    }
}

async fn accept(listener: &TcpListener, seats: &Seats) -> io::Result<(TcpStream, SocketAddr, Seat)> {
    let seat = seats.take().await.ok_or_else(|| io::Error::other("the seats are closed"))?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, seat))
}
