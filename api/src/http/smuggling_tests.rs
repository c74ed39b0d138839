//! Tests of the smuggling guard: requests that it refuses, requests that pass, and that hyper sees the same messages.

use std::convert::Infallible;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

const POST: &str = "POST /v1/allocate HTTP/1.1\r\nhost: x\r\n";

/// Why it is refused, followed in pieces of this size.
fn refusal(stream: &[u8], piece: usize) -> Option<Refusal> {
    let mut bytes = stream.to_vec();
    let mut framing = Framing::default();
    let seen: usize = bytes.chunks_mut(piece).map(|piece| framing.follow(piece)).sum();
    let changed: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != stream[*at]).collect();
    match framing.refused() {
        None => assert!(changed.is_empty() && seen == stream.len(), "{changed:?}"),
        Some(_) => assert!(changed == [seen - 1] || stream[seen - 1] == SPOILT, "{changed:?}"),
    }
    framing.refused()
}

/// The same, in whatever pieces it comes.
#[track_caller]
fn refused(stream: &str) -> Option<Refusal> {
    let whole = refusal(stream.as_bytes(), stream.len());
    for piece in [1, 2, 3, 17] {
        assert_eq!(refusal(stream.as_bytes(), piece), whole, "in pieces of {piece}: {stream}");
    }
    whole
}

#[test]
fn a_head_that_is_framed_twice_or_ends_its_lines_otherwise_is_spoilt() {
    for framing in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 2",
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2\r\nx: y\r\ncontent-length: 3",
        "content-length: x\r\ncontent-length: 3",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: , chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: chunked;a=b",
        "transfer-encoding:",
        "x: y\nz: a",
    ] {
        assert_eq!(refused(&format!("{POST}{framing}\r\n\r\n")), Some(Refusal::Ambiguous), "{framing}");
    }
    for head in [
        "GET / HTTP/1.1\nhost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\n",
        "\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(refused(head), Some(Refusal::Ambiguous), "{head}");
    }
}

#[test]
fn what_is_written_at_length_is_followed_all_the_same() {
    let (blanks, zeros) = (" ".repeat(60), "0".repeat(60));
    let long = "a".repeat(2_000);
    let body = "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n";
    for framing in [
        format!("content-length:{blanks}{}", body.len()),
        format!("content-length: {}{blanks}", body.len()),
        format!("content-length: {zeros}{}", body.len()),
        format!("x: {long}\r\ncontent-length: {}", body.len()),
        format!("Content-LENGTH:\t{}\t", body.len()),
    ] {
        let whole = format!("{POST}{framing}\r\n\r\n{body}");
        assert_eq!(refused(&whole), None, "{framing}");
        assert_eq!(refused(&whole.repeat(2)), None, "{framing}");
        assert_eq!(refused(&format!("{whole}{body}")), Some(Refusal::Ambiguous), "{framing}");
    }
    let twice = format!("{POST}content-length:{blanks}1\r\ncontent-length: {zeros}1\r\n\r\n");
    assert_eq!(refused(&twice), Some(Refusal::Ambiguous));
}

#[test]
fn a_length_that_no_body_has_and_a_coding_that_is_not_understood_are_told_as_that() {
    for length in
        ["18446744073709551615", "18446744073709551614", "18446744073709551616", "+1", "-1", "1,1", "0x1", ""]
    {
        let head = format!("{POST}content-length: {length}\r\n\r\n");
        assert_eq!(refused(&head), Some(Refusal::Length), "{length}");
    }
    assert_eq!(refused(&format!("{POST}content-length: 18446744073709551613\r\n\r\n")), None);
    for coding in ["gzip, chunked", "GZIP ,\tChunked", "identity, chunked", "br, gzip, chunked"] {
        let head = format!("{POST}transfer-encoding: {coding}\r\n\r\n");
        assert_eq!(refused(&head), Some(Refusal::Coding), "{coding}");
    }
}

#[test]
fn what_is_no_head_is_followed_no_further() {
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Refusal::Version));
    assert_eq!(refused("GET / HTTP/3\r\n\r\n"), Some(Refusal::Version));
    for head in ["GET / HTTP/1.1\r\nhost : x\r\n\r\n", "GET / HTTP/1.1\r\n folded: x\r\n\r\n", "\0\r\n\r\n"] {
        assert_eq!(refused(head), Some(Refusal::Malformed), "{head}");
    }
    let many = "a: b\r\n".repeat(HEADERS + 1);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Some(Refusal::TooLarge));
    let fits = |bytes: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(bytes - 23));
    assert_eq!(fits(HEAD_BYTES).len(), HEAD_BYTES);
    assert_eq!(refused(&fits(HEAD_BYTES)), None);
    assert_eq!(refused(&fits(HEAD_BYTES + 1)), Some(Refusal::TooLarge));
}

#[test]
fn chunks_are_followed_as_they_are_meant_and_no_other_way() {
    let chunked = |body: &str| refused(&format!("{POST}transfer-encoding: chunked\r\n\r\n{body}"));
    for body in [
        "0\r\n\r\n",
        "3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n",
        "0000000000003 \t\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n",
    ] {
        assert_eq!(chunked(body), None, "{body}");
        assert_eq!(chunked(&format!("{body}GET / HTTP/1.1\n")), Some(Refusal::Ambiguous), "{body}");
    }
    let long = format!("1;{}\r\n", "a".repeat(CHUNK_LINE));
    for body in [
        "3\nabc\r\n",
        "3;a\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "\r\n",
        " 3\r\n",
        "+3\r\n",
        "0x3\r\n",
        "-1\r\n",
        "3;a\rb\r\n",
        "10000000000000000\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n\n",
        &long,
    ] {
        assert_eq!(chunked(body), Some(Refusal::Ambiguous), "{body}");
    }
}

#[test]
fn a_request_behind_others_is_looked_at_and_what_lies_in_bodies_is_not() {
    let hidden = "content-length: 1\r\ncontent-length: 1\r\n\n";
    let ambiguous = format!("{POST}content-length: 1\r\ncontent-length: 1\r\n\r\n");
    let before = [
        format!("{POST}content-length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "{POST}transfer-encoding: chunked\r\n\r\n{:x};a=b\r\n{hidden}\r\n0\r\nx: y\r\n\r\n",
            hidden.len()
        ),
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ];
    for before in &before {
        assert_eq!(refused(&before.repeat(3)), None, "{before}");
        assert_eq!(refused(&format!("{before}{ambiguous}")), Some(Refusal::Ambiguous), "{before}");
    }
}

/// A request as either reader sees it: its path and its body.
type Message = (String, Vec<u8>);

/// The messages that the guard sees end, in its own reading of the bytes.
fn seen_by_guard(stream: &[u8]) -> Vec<Message> {
    let mut framing = Framing::default();
    let (mut head, mut body, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for byte in stream {
        match &framing.part {
            Part::Head(_) => head.push(*byte),
            Part::Body(_) | Part::Chunk(_) => body.push(*byte),
            Part::ChunkSize(_) | Part::ChunkEnd(_) | Part::Trailers(_) => {}
        }
        if framing.follow(&mut [*byte]) == 0 || framing.refused().is_some() {
            break;
        }
        let at_start = matches!(&framing.part, Part::Head(section) if section.bytes.is_empty());
        if at_start && head.iter().any(|byte| !b"\r\n".contains(byte)) {
            let text = String::from_utf8_lossy(&head);
            let path = text.split_whitespace().nth(1).expect("a path").to_owned();
            messages.push((path, std::mem::take(&mut body)));
            head.clear();
        }
    }
    messages
}

/// A client that has sent all of `stream` behind the guard and listens to nothing.
struct Guarded {
    stream: Cursor<Vec<u8>>,
    piece: usize,
    framing: Framing,
    /// What it is told.
    told: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.framing.refused().is_some() {
            buf.put_slice(self.framing.behind(buf.remaining()));
            return Poll::Ready(Ok(()));
        }
        let mut piece = vec![0; self.piece.min(buf.remaining())];
        let read = std::io::Read::read(&mut self.stream, &mut piece)?;
        let seen = self.framing.follow(&mut piece[..read]);
        buf.put_slice(&piece[..seen]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.told.lock().unwrap().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The messages that hyper sees end behind the guard, what it answers, and whether it found fault with none.
fn seen_by_hyper(stream: &[u8], piece: usize) -> (Vec<Message>, String, bool) {
    let (seen, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let path = request.uri().to_string();
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().unwrap().push((path, body.to_bytes().to_vec()));
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let guarded = Guarded {
        stream: Cursor::new(stream.to_vec()),
        piece,
        framing: Framing::default(),
        told: Arc::clone(&told),
    };
    let connection = http1::Builder::new()
        .max_header_size(HEAD_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(guarded), service);
    let ended = runtime.block_on(connection);
    drop(runtime);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let told = String::from_utf8(std::mem::take(&mut *told.lock().unwrap())).unwrap();
    (seen, told, ended.is_ok())
}

#[test]
fn what_is_refused_is_answered_in_its_turn_in_whatever_pieces_it_comes() {
    let good = "GET /good HTTP/1.1\r\n\r\n";
    for bad in [
        "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "GET / HTTP/1.1\r\nx: y\nz: a\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for piece in 1..90 {
            let (seen, told, well) = seen_by_hyper(format!("{good}{bad}{good}").as_bytes(), piece);
            assert_eq!((seen.len(), well), (1, false), "{bad}");
            assert!(
                told.starts_with("HTTP/1.1 200 ") && told.contains("\r\n\r\nHTTP/1.1 400 "),
                "{bad}: {told}"
            );
        }
    }
}

/// Requests, well formed or nearly.
fn any_requests() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "GET /a HTTP/1.1\r\n",
        "POST /b HTTP/1.1\r\n",
        "POST /c HTTP/1.0\r\n",
        "CONNECT x:1 HTTP/1.1\r\n",
        "content-length: 3\r\n",
        "Content-Length:                                                              3\r\n",
        "content-length: 00000000000000000000000000000000000000000000000000000000000003\r\n",
        "content-length: 18446744073709551615\r\n",
        "content-length: +3\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\t \r\n",
        "transfer-encoding : chunked\r\n",
        "upgrade: x\r\n",
        "expect: 100-continue\r\n",
        "connection: close\r\n",
        "x: y\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
        "3\r\nabc\r\n",
        "3;x=y\r\nabc\r\n",
        "3;x\n",
        "0\r\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
    ];
    let piece = prop_oneof![
        12 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let framings = [
        "content-length: 3\r\n",
        "content-length: 14\r\n",
        "transfer-encoding: chunked\r\n",
        "x: y\n",
        "x: y\r\n",
    ];
    let bodies = [
        "",
        "abc",
        "3\r\nabc\r\n0\r\n",
        "0\r\nx: y\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x\r\nabc\r\n0\r\nx: y\r\n\r\n",
    ];
    let nearly = (
        prop::collection::vec(prop::sample::select(framings.to_vec()), 0..3),
        prop::sample::select(bodies.to_vec()),
    )
        .prop_map(|(framing, body)| {
            format!("POST /n HTTP/1.1\r\n{}\r\n{body}", framing.concat()).into_bytes()
        });
    let whole = prop_oneof![
        4 => nearly,
        1 => Just(b"GET /w HTTP/1.1\r\n\r\n".to_vec()),
        1 => Just(b"POST /x HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc".to_vec()),
        1 => Just(b"POST /y HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()),
        2 => prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat()),
    ];
    prop::collection::vec(whole, 1..5).prop_map(|requests| requests.concat())
}

/// Differential: two readers of one stream, of which ours decides.
mod fuzz {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4_000)))]

        #[test]
        fn hyper_sees_the_messages_that_the_guard_sees(stream in any_requests(), piece in 1_usize..60) {
            let ours = seen_by_guard(&stream);
            let (theirs, _, well) = seen_by_hyper(&stream, piece);
            prop_assert!(ours.starts_with(&theirs), "{:?} is not the beginning of {:?}", theirs, ours);
            let text = String::from_utf8_lossy(&stream).to_ascii_lowercase();
            let may_end_early = ["connection", "http/1.0", "connect"].iter().any(|word| text.contains(word));
            if well && !may_end_early && refusal(&stream, stream.len().max(1)).is_none() {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
