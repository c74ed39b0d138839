//! User of a run: a keep-alive connection and the request that it sends.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use broker_tests::TRACK_TOKEN;

/// A connection to one API.
pub(crate) struct User {
    sender: SendRequest<Empty<Bytes>>,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Its status.
    pub(crate) status: u16,
    /// From when it should have been sent until its last byte, in microseconds.
    pub(crate) micros: u64,
    /// When the last byte was here.
    pub(crate) at: Instant,
    /// The track.
    pub(crate) track: String,
    /// The body.
    pub(crate) body: Bytes,
}

impl User {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the API listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("the API speaks HTTP");
        tokio::spawn(connection);
        Self { sender }
    }

    /// Posts `path` for `track`; the latency counts from `due`.
    pub(crate) async fn post(&mut self, path: &str, track: &str, due: Instant) -> Sample {
        let request = Request::post(path)
            .header("host", "bench")
            .header("authorization", format!("Bearer {TRACK_TOKEN}"))
            .header("x-instruqt-sandbox-id", track)
            .body(Empty::new())
            .expect("a valid request");
        self.sender.ready().await.expect("the connection stays open");
        let response = self.sender.send_request(request).await.expect("the API answers");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("the answer is whole").to_bytes();
        let at = Instant::now();
        let micros = u64::try_from(at.duration_since(due).as_micros()).unwrap_or(u64::MAX);
        Sample { status, micros, at, track: track.to_owned(), body }
    }
}
