//! Front of the embedded DynamoDB endpoint: only requests of programs on this machine go through.
//!
//! The library answers every page of every site, under any name. So it listens at a loopback address that is not told, and
//! this stands before it: each head is read and checked ([`OwnPages`]), then passed on with its body, byte for byte. Descriptions
//! of tables are told from memory ([`Descriptions`]); the frequent operations are run here ([`operations`]), as are PartiQL statements
//! that the library would answer slowly ([`partitions`]). Invariant: nothing is passed on whose end it does not know; what it refuses
//! ends the connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Weak};

use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_runtime::own_pages::OwnPages;
use dynoxide::Database;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::descriptions::{Asks, Descriptions, LONGEST, OpenRequests};
use super::operations::{Answer, TableOperation, Transactions};
use super::partitions;

/// The longest head.
const HEAD_BYTES: usize = 64 * 1024;
const HEADERS: usize = 128;
/// The longest request of an operation that is run here; the longest of the broker are 100 items of a transaction.
const LONGEST_OPERATION: usize = 1024 * 1024;

/// A listener at a loopback address that no page can guess, where there are such addresses.
pub(super) fn hidden(entropy: &Entropy) -> io::Result<std::net::TcpListener> {
    let [_, a, b, c] = entropy.uuid().as_fields().0.to_be_bytes();
    let somewhere = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
    let bound = std::net::TcpListener::bind((somewhere, 0))
        .or_else(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// What is in front of the library.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// Where the library listens.
    pub(super) behind: SocketAddr,
    /// Its tables, for as long as it serves them.
    pub(super) database: Weak<Database>,
    /// The time that answers tell.
    pub(super) clock: Clock,
    /// The ids that answers tell.
    pub(super) entropy: Entropy,
    /// The transactions that are run here.
    pub(super) transactions: Arc<Transactions>,
}

impl Front {
    /// Passes the requests of `listener` on, until `shutdown`.
    pub(super) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let descriptions = Descriptions::default();
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            let Ok((client, _)) = accepted else {
                tokio::time::sleep(super::ACCEPT_BACKOFF).await;
                continue;
            };
            let (front, open) = (self.clone(), OpenRequests::new(descriptions.clone()));
            tokio::spawn(async move {
                if let Err(error) = connection(client, &front, &open).await {
                    tracing::debug!(%error, "a connection to the DynamoDB endpoint broke");
                }
            });
        }
    }

    /// Answers the body of a statement, if it is not left to the library.
    async fn selected(&self, body: Vec<u8>) -> Option<Vec<u8>> {
        let database = self.database.clone();
        let answered = move || partitions::answer(&*database.upgrade()?, &body);
        let body = tokio::task::spawn_blocking(answered).await.ok().flatten()?;
        Some(self.whole((200, body)))
    }

    /// Answers the body of an operation, if it is not left to the library. It runs on this thread, as the library's do.
    fn done(&self, operation: TableOperation, body: &[u8]) -> Option<Vec<u8>> {
        let database = self.database.upgrade()?;
        self.transactions.run(operation, &database, body).map(|answer| self.whole(answer))
    }

    /// An answer with its head.
    fn whole(&self, (status, body): Answer) -> Vec<u8> {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        let (id, length) = (self.entropy.uuid(), body.len());
        let date = httpdate::fmt_http_date(self.clock.now().into());
        let mut whole = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/x-amz-json-1.0\r\nx-amzn-requestid: {id}\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n"
        )
        .into_bytes();
        whole.extend_from_slice(body.as_bytes());
        whole
    }
}

/// Ends when either side does.
async fn connection(client: TcpStream, front: &Front, open: &OpenRequests) -> io::Result<()> {
    let server = TcpStream::connect(front.behind).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let to_client = Mutex::new(to_client);
    let (from_server, to_server) = server.into_split();
    let why = {
        let mut answers = pin!(pass_answers(from_server, &to_client, &front.clock, open));
        let refused = tokio::select! {
            passed = pass(from_client, to_server, (&to_client, front, open)) => passed?,
            answered = &mut answers => return answered,
        };
        match refused {
            Some(why) => why,
            // The client has said all; it still waits for answers.
            None => return answers.await,
        }
    };
    let body = format!("{{\"message\":\"{why}\"}}");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    to_client.into_inner().write_all(answer.as_bytes()).await
}

/// Passes answers on until the server's end, each with the time of now: the library's own date stands still for as long as the
/// machine's clock was set back.
async fn pass_answers(
    mut server: OwnedReadHalf,
    client: &Mutex<OwnedWriteHalf>,
    clock: &Clock,
    open: &OpenRequests,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let Some(answer) = date_answer(&mut buffer, clock) else {
            if buffer.len() > HEAD_BYTES || server.read_buf(&mut buffer).await? == 0 {
                break;
            }
            continue;
        };
        // Without a length it ends with the connection.
        let Some(body) = answer.body else { break };
        let whole = usize::try_from(body).unwrap_or(usize::MAX).saturating_add(answer.head);
        let is_kept = answer.is_success && whole <= LONGEST && open.is_description();
        if is_kept {
            while buffer.len() < whole {
                if server.read_buf(&mut buffer).await? == 0 {
                    return client.lock().await.write_all(&buffer).await;
                }
            }
        }
        let mut client = client.lock().await;
        open.end(is_kept.then(|| &buffer[..whole]));
        let here = buffer.len().min(whole);
        client.write_all(&buffer[..here]).await?;
        buffer.drain(..here);
        let rest = u64::try_from(whole - here).unwrap_or(u64::MAX);
        if copy(&mut (&mut server).take(rest), &mut *client).await? < rest {
            return Ok(());
        }
        open.passed();
    }
    open.lose();
    let mut client = client.lock().await;
    client.write_all(&buffer).await?;
    copy(&mut server, &mut *client).await.map(drop)
}

/// An answer's lengths: of its head, and of its body if it says one.
struct AnswerLengths {
    head: usize,
    body: Option<u64>,
    is_success: bool,
}

/// Writes the time of now over the date of the answer at the beginning of `buffer`, if its head is whole.
fn date_answer(buffer: &mut [u8], clock: &Clock) -> Option<AnswerLengths> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = answer.parse(buffer) else { return None };
    let is_success = answer.code == Some(200);
    let (mut date, mut body) = (None, None);
    for field in answer.headers.iter() {
        if field.name.eq_ignore_ascii_case("date") {
            let begin = field.value.as_ptr().addr() - buffer.as_ptr().addr();
            date = Some(begin..begin + field.value.len());
        } else if field.name.eq_ignore_ascii_case("content-length") {
            body = str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
        }
    }
    let now = httpdate::fmt_http_date(clock.now().into());
    // Every date has 29 characters ("Sun, 06 Nov 1994 08:49:37 GMT", RFC 9110).
    if let Some(date) = date.filter(|date| date.len() == now.len()) {
        buffer[date].copy_from_slice(now.as_bytes());
    }
    Some(AnswerLengths { head, body, is_success })
}

/// Passes requests on until the client's end, or until one is refused: the reason.
async fn pass(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    (to_client, front, open): (&Mutex<OwnedWriteHalf>, &Front, &OpenRequests),
) -> io::Result<Option<String>> {
    let guard = OwnPages::on_loopback();
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let Some(Head { length, body, asks, refused }) = read_head(&guard, &buffer) else {
            if buffer.len() > HEAD_BYTES || client.read_buf(&mut buffer).await? == 0 {
                return Ok(None);
            }
            continue;
        };
        if refused.is_some() {
            return Ok(refused);
        }
        let whole = usize::try_from(body).unwrap_or(usize::MAX).saturating_add(length);
        let mut asked = None;
        let longest = match asks {
            Asks::Description | Asks::Statement => LONGEST,
            Asks::Operation(_) => LONGEST_OPERATION,
            Asks::Change | Asks::Other => 0,
        };
        if whole <= longest {
            while buffer.len() < whole {
                if client.read_buf(&mut buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let answer = match asks {
                Asks::Statement if open.are_answered().await => {
                    front.selected(buffer[length..whole].to_vec()).await
                }
                Asks::Description => open.remembered(&buffer[length..whole]).await,
                Asks::Operation(operation) if open.are_answered().await => {
                    front.done(operation, &buffer[length..whole])
                }
                Asks::Operation(_) | Asks::Statement | Asks::Change | Asks::Other => None,
            };
            if let Some(mut answer) = answer {
                if asks == Asks::Description {
                    date_answer(&mut answer, &front.clock);
                }
                to_client.lock().await.write_all(&answer).await?;
                buffer.drain(..whole);
                continue;
            }
            asked = Some(&buffer[length..whole]);
        }
        open.begin(asks, asked);
        let here = buffer.len().min(whole);
        server.write_all(&buffer[..here]).await?;
        buffer.drain(..here);
        let rest = u64::try_from(whole - here).unwrap_or(u64::MAX);
        if copy(&mut (&mut client).take(rest), &mut server).await? < rest {
            return Ok(None);
        }
    }
}

/// A head of so many bytes, its body's length, what it asks for, and why it is refused.
struct Head {
    length: usize,
    body: u64,
    asks: Asks,
    refused: Option<String>,
}

/// The head at the beginning of `bytes`, if it is whole.
fn read_head(guard: &OwnPages, bytes: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let refuse =
        |why: &str| Some(Head { length: 0, body: 0, asks: Asks::Other, refused: Some(why.to_owned()) });
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
    let is_call = (request.method, request.path, request.version) == (Some("POST"), Some("/"), Some(1));
    let asks = Asks::of(&headers, is_call);
    let said = lengths.next().map(number);
    match (said, lengths.next().is_some() || headers.contains_key(http::header::TRANSFER_ENCODING)) {
        (None, false) => Some(Head { length, body: 0, asks, refused: None }),
        (Some(Some(body)), false) => Some(Head { length, body, asks, refused: None }),
        _ => refuse("Send one Content-Length and no Transfer-Encoding."),
    }
}
