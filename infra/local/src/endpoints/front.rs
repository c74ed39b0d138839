//! Front of the embedded DynamoDB endpoint: only requests of programs on this machine go through.
//!
//! The library answers every page of every site, under any name. So it listens at a loopback address that is not told, and
//! this stands before it: each head is read and checked ([`OwnPages`]), then passed on with its body, byte for byte. Invariant:
//! nothing is passed on whose end it does not know; what it refuses ends the connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use broker_runtime::entropy::Entropy;
use broker_runtime::own_pages::OwnPages;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The longest head.
const HEAD_BYTES: usize = 64 * 1024;
const HEADERS: usize = 128;

/// A listener at a loopback address that no page can guess, where there are such addresses.
pub(super) fn hidden(entropy: &Entropy) -> io::Result<std::net::TcpListener> {
    let [_, a, b, c] = entropy.uuid().as_fields().0.to_be_bytes();
    let somewhere = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
    let bound = std::net::TcpListener::bind((somewhere, 0))
        .or_else(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// Passes the requests of `listener` on to `behind`, until `shutdown`.
pub(super) async fn serve(listener: TcpListener, behind: SocketAddr, shutdown: CancellationToken) {
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(super::ACCEPT_BACKOFF).await;
            continue;
        };
        tokio::spawn(async move {
            if let Err(error) = connection(client, behind).await {
                tracing::debug!(%error, "a connection to the DynamoDB endpoint broke");
            }
        });
    }
}

/// Ends when either side does.
async fn connection(client: TcpStream, behind: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(behind).await?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let refused = {
        let answers = copy(&mut from_server, &mut to_client);
        tokio::select! {
            passed = pass(from_client, to_server) => passed?,
            answered = answers => return answered.map(drop),
        }
    };
    match refused {
        Some(why) => {
            let body = format!("{{\"message\":\"{why}\"}}");
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            to_client.write_all(answer.as_bytes()).await
        }
        // The client has said all; it still waits for answers.
        None => copy(&mut from_server, &mut to_client).await.map(drop),
    }
}

/// Passes requests on until the client's end, or until one is refused: the reason.
async fn pass(mut client: OwnedReadHalf, mut server: OwnedWriteHalf) -> io::Result<Option<String>> {
    let guard = OwnPages::on_loopback();
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let Some(Head { length, body, refused }) = read_head(&guard, &buffer) else {
            if buffer.len() > HEAD_BYTES || client.read_buf(&mut buffer).await? == 0 {
                return Ok(None);
            }
            continue;
        };
        if refused.is_some() {
            return Ok(refused);
        }
        let read_of_body = (buffer.len() - length).min(usize::try_from(body).unwrap_or(usize::MAX));
        let here = length + read_of_body;
        server.write_all(&buffer[..here]).await?;
        buffer.drain(..here);
        let rest = body - u64::try_from(read_of_body).unwrap_or(body);
        if copy(&mut (&mut client).take(rest), &mut server).await? < rest {
            return Ok(None);
        }
    }
}

/// A head of so many bytes, its body's length, and why it is refused.
struct Head {
    length: usize,
    body: u64,
    refused: Option<String>,
}

/// The head at the beginning of `bytes`, if it is whole.
fn read_head(guard: &OwnPages, bytes: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let refuse = |why: &str| Some(Head { length: 0, body: 0, refused: Some(why.to_owned()) });
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return refuse("This is no HTTP/1.1."),
    };
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        match (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value)) {
            (Ok(name), Ok(value)) => headers.append(name, value),
            _ => return refuse("A header is malformed."),
        };
    }
    let Ok(uri) = request.path.unwrap_or_default().parse::<http::Uri>() else {
        return refuse("The target is malformed.");
    };
    if let Err(refused) = guard.check(&headers, uri.authority()) {
        return refuse(&refused.to_string());
    }
    let mut lengths = headers.get_all(http::header::CONTENT_LENGTH).iter();
    // Digits only: a number's parser takes a sign, too.
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |value: &HeaderValue| value.to_str().ok().filter(digits).and_then(|text| text.parse().ok());
    let said = lengths.next().map(number);
    match (said, lengths.next().is_some() || headers.contains_key(http::header::TRANSFER_ENCODING)) {
        (None, false) => Some(Head { length, body: 0, refused: None }),
        (Some(Some(body)), false) => Some(Head { length, body, refused: None }),
        _ => refuse("Send one Content-Length and no Transfer-Encoding."),
    }
}
