//! Date relay: AWS as a process with a wrong clock sees it; it changes the `Date` of every response.
//!
//! The clock of one process cannot be moved; that of everything else, as far as the process can tell, can be. Nothing else is
//! changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::endpoint::Endpoints;

/// How long `Sun, 06 Nov 1994 08:49:37 GMT` is.
const DATE_BYTES: usize = 29;

/// By how much dates are moved. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    seconds: Arc<AtomicI64>,
    /// Added anew with every answer, so that no two agree.
    growth: Arc<AtomicI64>,
}

impl Shift {
    /// Every answer is dated `seconds` later than it is.
    pub fn set(&self, seconds: i64) {
        self.growth.store(0, Ordering::Relaxed);
        self.seconds.store(seconds, Ordering::Relaxed);
    }

    /// Each answer is dated ten minutes later than the one before: there is nothing to correct a clock by.
    pub fn run_wild(&self) {
        self.growth.store(600, Ordering::Relaxed);
    }

    fn next(&self) -> i64 {
        let growth = self.growth.load(Ordering::Relaxed);
        self.seconds.fetch_add(growth, Ordering::Relaxed) + growth
    }
}

/// Relays to the shared endpoints, for [`Setup::var`](crate::Setup::var): names and values of where they listen.
pub async fn relay(shift: &Shift) -> [(&'static str, String); 2] {
    let urls = &Endpoints::shared().await.urls;
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", listen(&urls.dynamodb_url, shift).await),
        ("AWS_ENDPOINT_URL_SQS", listen(&urls.sqs_url, shift).await),
    ]
}

async fn listen(upstream: &str, shift: &Shift) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (upstream, shift) = (upstream.trim_start_matches("http://").to_owned(), shift.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (upstream, shift) = (upstream.clone(), shift.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(upstream).await.expect("the endpoint listens");
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                answers(from_server, to_client, &shift).await;
            });
        }
    });
    url
}

async fn answers(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    shift: &Shift,
) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = from.read(&mut chunk).await {
        let answer = &mut chunk[..size];
        // A head is written at once, and no body of ours holds a line end.
        let found = answer.windows(8).position(|window| window.eq_ignore_ascii_case(b"\r\ndate: "));
        if let Some(date) = found.and_then(|at| answer.get_mut(at + 8..at + 8 + DATE_BYTES)) {
            move_date(date, shift.next());
        }
        if to.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn move_date(date: &mut [u8], seconds: i64) {
    let text = std::str::from_utf8(date).expect("a date");
    let said = DateTime::from_str(text, DateTimeFormat::HttpDate).expect("a date");
    let moved = DateTime::from_secs(said.secs() + seconds).fmt(DateTimeFormat::HttpDate).expect("a date");
    date.copy_from_slice(moved.as_bytes());
}
