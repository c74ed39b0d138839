//! Tests of connections as hyper serves them on a [`Connection`], over real sockets, with bounds of milliseconds.

use std::convert::Infallible;
use std::time::Duration;

use broker_domain::Timestamp;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http::connection::{Busy, Connection, ConnectionBounds};
use crate::http::early_errors::EarlyErrors;
use crate::limits::HEAD_BYTES;

/// A bound that passes during a test.
const SHORT: Duration = Duration::from_millis(50);
/// A bound that never passes.
const LONG: Duration = Duration::from_secs(600);
/// Many times the short one: an event that has not happened by then will not.
const AWHILE: Duration = Duration::from_millis(500);
/// The timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(30);

const BOUNDS: ConnectionBounds =
    ConnectionBounds { head_read: LONG, first_byte: LONG, idle: LONG, write: LONG, linger: SHORT };
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A client of a server that answers every request after `takes` with `size` bytes.
async fn serve(
    bounds: ConnectionBounds,
    takes: Duration,
    size: usize,
) -> (TcpStream, JoinHandle<hyper::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (client, serve_on(stream, bounds, takes, size))
}

/// The server of [`serve`] on the server's end of a connection.
fn serve_on(
    stream: TcpStream,
    bounds: ConnectionBounds,
    takes: Duration,
    size: usize,
) -> JoinHandle<hyper::Result<()>> {
    let refusals = EarlyErrors::new(Clock::manual(Timestamp::from_secs(1)), Entropy::seeded(1));
    let busy = Busy::default();
    let wire = Connection::new(stream, busy.clone(), refusals, bounds, Clock::system());
    let answer = service_fn(move |_: Request<Incoming>| {
        let busy = busy.clone();
        async move {
            let _answering = busy.begin();
            tokio::time::sleep(takes).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; size]))))
        }
    });
    let connection =
        http1::Builder::new().max_header_size(HEAD_BYTES).serve_connection(TokioIo::new(wire), answer);
    tokio::spawn(connection)
}

/// Everything that comes until the server closes the connection.
async fn rest(client: &mut TcpStream) -> String {
    let mut all = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut all))
        .await
        .expect("the connection ends")
        .expect("and not by a reset");
    String::from_utf8(all).unwrap()
}

/// Reads until a response of `size` bytes has come.
async fn one_answer(client: &mut TcpStream, size: usize) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(&vec![b'x'; size]) {
        let read = timeout(PATIENCE, client.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "the connection ended early");
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_head_that_stops_midway_is_told_so_and_ends() {
    let (mut client, _server) =
        serve(ConnectionBounds { head_read: SHORT, ..BOUNDS }, Duration::ZERO, 1).await;
    client.write_all(&GET[..10]).await.unwrap();
    let told = rest(&mut client).await;
    assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("REQUEST_TIMEOUT"), "{told}");
}

#[tokio::test]
async fn a_head_that_trickles_gets_no_more_time_than_one_that_stops() {
    let (mut client, _server) =
        serve(ConnectionBounds { head_read: AWHILE, ..BOUNDS }, Duration::ZERO, 1).await;
    let trickle = async {
        loop {
            if client.write_all(b"G").await.is_err() {
                return;
            }
            if let Ok(Ok(read)) = timeout(SHORT, client.read(&mut [0; 1024])).await {
                assert_ne!(read, 0, "it is told so");
                return;
            }
        }
    };
    timeout(PATIENCE, trickle).await.expect("it ends");
}

#[tokio::test]
async fn a_head_that_comes_behind_a_request_and_stops_midway_is_told_so_and_ends() {
    for takes in [Duration::ZERO, SHORT * 2] {
        let (mut client, _server) = serve(ConnectionBounds { head_read: SHORT, ..BOUNDS }, takes, 1).await;
        client.write_all(&[GET, GET, &GET[..10]].concat()).await.unwrap();
        let told = rest(&mut client).await;
        assert_eq!(told.matches("HTTP/1.1 200 ").count(), 2, "{told}");
        assert!(told.contains("HTTP/1.1 408 ") && told.contains("REQUEST_TIMEOUT"), "{told}");
    }
}

#[tokio::test]
async fn a_line_end_behind_a_request_begins_no_head() {
    let (mut client, _server) =
        serve(ConnectionBounds { head_read: SHORT, ..BOUNDS }, Duration::ZERO, 3).await;
    client.write_all(&[GET, b"\r\n"].concat()).await.unwrap();
    one_answer(&mut client, 3).await;
    client.write_all(b"\r\n").await.unwrap();
    assert!(timeout(AWHILE, client.read(&mut [0])).await.is_err(), "it is still open");
    client.write_all(GET).await.unwrap();
    one_answer(&mut client, 3).await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_bound_of_heads_and_ends_without_a_word() {
    let (mut client, _server) =
        serve(ConnectionBounds { head_read: SHORT, ..BOUNDS }, Duration::ZERO, 3).await;
    client.write_all(GET).await.unwrap();
    one_answer(&mut client, 3).await;
    assert!(timeout(AWHILE, client.read(&mut [0])).await.is_err(), "it is still open");
    client.write_all(GET).await.unwrap();
    one_answer(&mut client, 3).await;

    let (mut client, _server) = serve(ConnectionBounds { idle: SHORT, ..BOUNDS }, Duration::ZERO, 3).await;
    client.write_all(GET).await.unwrap();
    assert!(rest(&mut client).await.ends_with("xxx"), "it ends after its answer");
}

#[tokio::test]
async fn a_connection_that_never_says_anything_is_let_go() {
    let (mut client, _server) =
        serve(ConnectionBounds { first_byte: SHORT, ..BOUNDS }, Duration::ZERO, 3).await;
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn no_bound_runs_while_a_request_is_answered() {
    let (mut client, _server) = serve(ConnectionBounds { head_read: SHORT, ..BOUNDS }, AWHILE, 3).await;
    client.write_all(GET).await.unwrap();
    let answer = one_answer(&mut client, 3).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go() {
    // Far more than the sockets hold.
    let (mut client, server) =
        serve(ConnectionBounds { write: AWHILE, ..BOUNDS }, Duration::ZERO, 32 << 20).await;
    client.write_all(GET).await.unwrap();
    let ended = timeout(PATIENCE, server).await.expect("the connection ends").unwrap();
    assert!(ended.is_err(), "it did not end well");
}

#[tokio::test]
async fn a_client_that_never_reads_its_refusal_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    // As earlier answers would, until the sockets hold no more.
    while timeout(AWHILE, stream.writable()).await.is_ok() {
        let _ = stream.try_write(&[b'x'; 1 << 16]);
    }
    let server = serve_on(stream, ConnectionBounds { write: AWHILE, ..BOUNDS }, Duration::ZERO, 1);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let ended = timeout(PATIENCE, server).await.expect("the connection ends").unwrap();
    assert!(ended.is_err(), "it did not end well");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let (mut client, _server) = serve(ConnectionBounds { linger: AWHILE, ..BOUNDS }, Duration::ZERO, 1).await;
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    client.write_all(huge.as_bytes()).await.unwrap();
    let told = rest(&mut client).await;
    assert!(told.starts_with("HTTP/1.1 431 ") && told.contains("HEADERS_TOO_LARGE"), "{told}");
    assert!(told.contains("\r\nx-request-id: ") && told.contains("\r\nconnection: close\r\n"), "{told}");
}
