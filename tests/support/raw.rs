//! Raw connections, for bytes that no HTTP client would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::Api;
use crate::wait::{PATIENCE, within};

/// Sends `bytes` on a connection of its own and returns everything that came back until the server closed it, or the
/// first answer's head if it leaves the connection open.
///
/// A server may answer and close before it has read everything; that is not an error here.
pub async fn exchange(api: &Api, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address()).await.expect("the API listens");
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(1..) =
            stream.read(&mut chunk).await.inspect(|&n| received.extend_from_slice(&chunk[..n]))
        {
            if received.windows(4).any(|four| four == b"\r\n\r\n") {
                break;
            }
        }
    };
    within(PATIENCE, "the answer to a raw request", read).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends `bytes` on a connection of its own and returns all that came back until the server closed it.
pub async fn exchange_to_end(api: &Api, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address()).await.expect("the API listens");
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let _ = within(PATIENCE, "the end of a raw connection", stream.read_to_end(&mut received)).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends the beginning of something, says that nothing follows (a FIN), and returns all that came back.
pub async fn break_off(api: &Api, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address()).await.expect("the API listens");
    stream.write_all(bytes).await.expect("the API reads");
    stream.shutdown().await.expect("half of a connection can be closed");
    let mut received = Vec::new();
    let _ = within(PATIENCE, "the end of a raw connection", stream.read_to_end(&mut received)).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// A connection of its own on which `bytes` were sent.
pub async fn open(api: &Api, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(api.address()).await.expect("the API listens");
    stream.write_all(bytes).await.expect("the API reads");
    stream
}

/// Ends a connection at once, for both sides (an RST).
pub fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("the option is set");
    drop(stream);
}

/// Whether the server has closed a connection on which nothing was answered.
pub fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Opens `count` connections that say nothing.
pub async fn idle(api: &Api, count: usize) -> Vec<TcpStream> {
    let mut idle = Vec::with_capacity(count);
    while idle.len() < count {
        idle.push(TcpStream::connect(api.address()).await.expect("the API listens"));
    }
    idle
}

/// Sends `bytes` one by one with a pause before each, and returns what came back until the server closed the
/// connection, which it must do before the bytes are at an end.
pub async fn trickle(api: &Api, bytes: &[u8], pause: Duration) -> String {
    let mut stream = TcpStream::connect(api.address()).await.expect("the API listens");
    let mut pauses = tokio::time::interval(pause);
    let mut received = Vec::new();
    for byte in bytes {
        tokio::select! {
            _ = pauses.tick() => if stream.write_all(&[*byte]).await.is_err() { break },
            read = stream.read_buf(&mut received) => if let Ok(0) | Err(_) = read { break },
        }
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// The status code of a raw answer.
///
/// # Panics
///
/// When it does not begin with a status line.
pub fn status_of(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("no status line: {answer:?}"))
}
