//! Malformed bytes: each gets its 4xx, none a 5xx, nothing is enqueued, and the next good request works.

use broker_tests::api::{ADMIN_TOKEN, OWNER, TRACK_TOKEN};
use broker_tests::queues::Depth;
use broker_tests::{Api, Broker, Setup, raw, story};
use http::Method;

/// A whole head of an allocate but for its last empty line, with more header lines.
fn head(more: &str) -> String {
    format!(
        "POST /v1/allocate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TRACK_TOKEN}\r\n{OWNER}: a\r\n{more}"
    )
}

/// A whole GET of `path`.
fn get(path: &str) -> Vec<u8> {
    let token = format!("authorization: Bearer {TRACK_TOKEN}\r\n{OWNER}: a\r\n");
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{token}\r\n").into_bytes()
}

/// The status codes of all answers that came over one connection.
fn statuses(answers: &str) -> Vec<&str> {
    let lines = answers.split("HTTP/1.1 ").skip(1).filter_map(|line| line.get(..3));
    lines.filter(|status| status.bytes().all(|digit| digit.is_ascii_digit())).collect()
}

/// Tells a story on one API without workers; whatever was enqueued would stay.
async fn refused(tell: impl AsyncFnOnce(&Api)) {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker: &mut Broker| {
        tell(broker.api(0)).await;
        assert_eq!(broker.queues().requests().await, Depth::default());
        broker.start_worker().await;
        broker.allocate("student-1").send().await.expect_status(201);
    })
    .await;
}

/// Sends each, and checks its status and that the answer is a problem with a request id.
async fn expect(api: &Api, cases: Vec<(&str, Vec<u8>, u16)>) {
    for (what, bytes, status) in cases {
        let answer = raw::exchange(api, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer:?}");
        assert!(answer.contains("\r\nx-request-id: "), "{what}: {answer}");
        assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"), "{what}: {answer}");
        assert_eq!(api.probe("/healthz").await.map(|(status, _)| status), Some(200), "after {what}");
    }
}

#[tokio::test]
async fn heads_that_are_no_http_are_refused() {
    refused(async |api| {
        let cases: Vec<(&str, Vec<u8>, u16)> = vec![
            ("a NUL in a value", [head("x: a").as_bytes(), b"\0b\r\n\r\n"].concat(), 400),
            ("a NUL in a name", head("x\0y: a\r\n\r\n").into_bytes(), 400),
            ("a NUL in the path", b"GET /v1/sandboxes/a\0b HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 400),
            ("a space before the colon", head("x : a\r\n\r\n").into_bytes(), 400),
            ("a folded line", head("x: a\r\n b\r\n\r\n").into_bytes(), 400),
            ("a line without its CR", head("x: a\ny: b\r\n\r\n").into_bytes(), 400),
            ("an end without its CR", head("x: a\r\n\n").into_bytes(), 400),
            ("a first line without its CR", b"GET /v1/nothing HTTP/1.1\nhost: x\r\n\r\n".to_vec(), 400),
            ("a CR alone", head("x: a\ry: b\r\n\r\n").into_bytes(), 400),
            ("a line without a colon", head("nothing\r\n\r\n").into_bytes(), 400),
            ("an empty name", head(": a\r\n\r\n").into_bytes(), 400),
            ("a space in the path", b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 400),
            ("no version", b"GET /healthz\r\n\r\n".to_vec(), 400),
            ("another version", b"GET /healthz HTTP/3.7\r\nhost: x\r\n\r\n".to_vec(), 400),
            ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
            ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), 400),
            ("no host", b"GET /v1/nothing HTTP/1.1\r\n\r\n".to_vec(), 400),
            ("two hosts", b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".to_vec(), 400),
            (
                "a megabyte of a header",
                head(&format!("x: {}\r\n\r\n", "a".repeat(1 << 20))).into_bytes(),
                431,
            ),
            (
                "a megabyte of an id",
                head(&format!("x-track-id: {}\r\n\r\n", "a".repeat(1 << 20))).into_bytes(),
                431,
            ),
            ("a megabyte of a path", get(&format!("/{}", "a".repeat(1 << 20))), 431),
            ("two hundred headers", head(&format!("{}\r\n", "x: a\r\n".repeat(200))).into_bytes(), 431),
        ];
        expect(api, cases).await;
    })
    .await;
}

#[tokio::test]
async fn framing_that_two_readers_could_understand_differently_is_refused() {
    refused(async |api| {
        let framed = |headers: &str, body: &str| format!("{}\r\n{body}", head(headers)).into_bytes();
        let cases = vec![
            ("a length that is no number", framed("content-length: x\r\n", ""), 400),
            ("a negative length", framed("content-length: -1\r\n", ""), 400),
            ("a signed length", framed("content-length: +2\r\n", "{}"), 400),
            ("the same length twice", framed("content-length: 2\r\ncontent-length: 2\r\n", "{}"), 400),
            (
                "a length and chunks",
                framed("content-length: 2\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
                400,
            ),
            (
                "chunks and a length",
                framed("transfer-encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n"),
                400,
            ),
            (
                "chunks twice",
                framed("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
                400,
            ),
            ("a length over two lines", framed("content-length:\r\n 2\r\n", "{}"), 400),
            ("two lengths", framed("content-length: 2\r\ncontent-length: 3\r\n", "{} "), 400),
            ("a list of lengths", framed("content-length: 2, 3\r\n", "{} "), 400),
            ("a huge length", framed("content-length: 99999999999999999999\r\n", ""), 400),
            ("a length that no body has", framed("content-length: 18446744073709551615\r\n", ""), 400),
            ("a length over the bound", framed("content-length: 99999999\r\n", "{"), 413),
            ("an unknown coding", framed("transfer-encoding: cow\r\n", "{}"), 400),
            ("a coding before the chunks", framed("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501),
            ("chunks that are not last", framed("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"), 400),
            (
                "a chunk size that is none",
                framed("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
                400,
            ),
            ("a chunk that is longer", framed("transfer-encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n"), 400),
            ("a huge chunk", framed("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n"), 400),
        ];
        expect(api, cases).await;
    })
    .await;
}

#[tokio::test]
async fn paths_that_hide_something_are_refused() {
    refused(async |api| {
        let mut cases = vec![
            ("an encoded slash", get("/v1/sandboxes/a%2Fmark-for-deletion"), 400),
            ("an encoded NUL", get("/v1/sandboxes/a%00"), 400),
            ("an encoded line end", get("/v1/sandboxes/a%0d%0ax:y"), 400),
            ("what is no UTF-8", get("/v1/sandboxes/%ff%fe"), 400),
            ("an empty id", get("/v1/sandboxes/"), 400),
            ("a path over the bound", get(&format!("/v1/sandboxes/{}", "a".repeat(3 * 1024))), 414),
            ("a query over the bound", get(&format!("/v1/sandboxes/a?{}", "a".repeat(3 * 1024))), 414),
            ("an id over the bound", get(&format!("/v1/sandboxes/{}", "a".repeat(129))), 400),
            ("a body where none belongs", get("/v1/sandboxes/a"), 400),
            ("a request id that is none", get("/v1/requests/%F0%9F%A6%80"), 404),
            ("dots", get("/v1/../healthz"), 404),
            ("a fragment", get("/healthz#/v1/admin"), 400),
            ("the star", b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 404),
            ("a tunnel", b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n".to_vec(), 404),
        ];
        for (what, bytes, _) in &mut cases {
            if *what == "a body where none belongs" {
                bytes.truncate(bytes.len() - 2);
                bytes.extend_from_slice(b"content-length: 7\r\n\r\n{\"a\":1}");
            }
        }
        expect(api, cases).await;
    })
    .await;
}

#[tokio::test]
async fn requests_that_come_together_are_answered_one_after_the_other() {
    refused(async |api| {
        let last = String::from_utf8(get("/v1/requests/x"))
            .expect("text")
            .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let all =
            [get("/healthz"), get("/v1/nothing"), get("/v1/sandboxes/nothing"), last.into_bytes()].concat();
        let answers = raw::exchange_to_end(api, &all).await;
        assert_eq!(statuses(&answers), ["200", "404", "404", "404"], "{answers}");

        // Bytes after something that cannot be parsed are not read.
        let bad = format!("{}transfer-encoding: cow\r\n\r\n", head("")).into_bytes();
        let answers = raw::exchange_to_end(api, &[bad, head("\r\n").into_bytes()].concat()).await;
        assert_eq!(answers.matches("\r\nx-request-id: ").count(), 1, "{answers}");
    })
    .await;
}

#[tokio::test]
async fn nothing_hides_behind_a_request_that_two_readers_would_end_differently() {
    refused(async |api| {
        let hidden = head("\r\n");
        // Written at length, which a guard that looks at the beginning of each line only would not see.
        let (blanks, zeros) = (" ".repeat(60), "0".repeat(60));
        let at_length = [
            format!("content-length:{blanks}5\r\ncontent-length: 5"),
            format!("content-length: {zeros}5\r\ntransfer-encoding: chunked"),
            format!("transfer-encoding:{blanks}chunked\r\ncontent-length: 5"),
        ];
        for framing in at_length.iter().map(String::as_str).chain([
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 0",
            "transfer-encoding: chunked\ncontent-length: 5",
        ]) {
            let whole = String::from_utf8(get("/v1/sandboxes/nothing")).expect("text");
            let ambiguous = whole.replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n")).into_bytes();
            // Alone, and behind a request that is as it should be.
            for (before, answers_before) in [(Vec::new(), 0), (get("/v1/nothing"), 1)] {
                let all = [&before, &ambiguous, &b"0\r\n\r\n"[..], hidden.as_bytes()].concat();
                let answers = raw::exchange_to_end(api, &all).await;
                let expected = [&vec!["404"; answers_before][..], &["400"]].concat();
                assert_eq!(statuses(&answers), expected, "{framing}: {answers}");
            }
        }
        // And a body whose length is written so is one all the same: the guard is not lost behind it.
        let body = format!("content-length:{blanks}{zeros}2\r\n\r\n{{}}");
        let ambiguous =
            "GET /v1/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n";
        let good =
            String::from_utf8(get("/v1/nothing")).expect("text").replace("\r\n\r\n", &format!("\r\n{body}"));
        let answers = raw::exchange_to_end(api, format!("{good}{ambiguous}{hidden}").as_bytes()).await;
        assert_eq!(statuses(&answers), ["404", "400"], "{answers}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_another_version_is_told_which_one_is_spoken() {
    refused(async |api| {
        for preface in
            ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "GET / HTTP/2.0\r\nhost: x\r\n\r\n"]
        {
            let answer = raw::exchange_to_end(api, preface.as_bytes()).await;
            assert_eq!(statuses(&answer), ["400"], "{answer}");
            assert!(answer.contains("Use HTTP/1.1"), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn cursors_that_this_list_never_gave_are_refused() {
    refused(async |api| {
        let list = async |query: &str| {
            let call = api.call(Method::GET, &format!("/v1/admin/sandboxes{query}"));
            call.token(ADMIN_TOKEN).send().await
        };
        let first = list("?limit=1").await.expect_status(200);
        let good = first.text_of("next_cursor").to_owned();
        let (cut, changed) = (&good[..good.len() - 2], good.replacen('5', "6", 1));
        assert_ne!(changed, good);
        let bad = [
            "",
            "x",
            "0",
            "00",
            "zz",
            "+5",
            "%00",
            "%ff%fe",
            "%0a",
            "null",
            "-1",
            "SBX%23seed-000000",
            "7f0000010000000000000000000000000000",
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "eyJwayI6IlNCWCNhIn0=",
            "%27%20or%201=1",
            &"53".repeat(900),
            cut,
            &changed,
            &good.to_uppercase(),
            &format!("{good}00"),
            &format!("{good}{good}"),
            &format!("%20{good}"),
        ];
        for cursor in bad {
            let answer = list(&format!("?limit=1&cursor={cursor}")).await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
        // Of another list: other rows, or none of a page.
        for filter in ["status=stale", "track=student-1", "track_name=lab"] {
            let answer = list(&format!("?limit=1&cursor={good}&{filter}")).await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
        list(&format!("?cursor={good}&cursor={good}")).await.expect_problem(400, "VALIDATION_ERROR");
        // Its own list takes it, also for a page of another size.
        list(&format!("?limit=7&cursor={good}")).await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_another_broker_is_refused() {
    refused(async |api| {
        story(Setup::new().apis(1).workers(0).pool(2), async |other: &mut Broker| {
            let list = async |of: &Api, cursor: &str| {
                let path = format!("/v1/admin/sandboxes?limit=1{cursor}");
                of.call(Method::GET, &path).token(ADMIN_TOKEN).send().await
            };
            let first = list(other.api(0), "").await.expect_status(200);
            let cursor = format!("&cursor={}", first.text_of("next_cursor"));
            list(api, &cursor).await.expect_problem(400, "VALIDATION_ERROR");
            list(other.api(0), &cursor).await.expect_status(200);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_anywhere_enqueues_nothing() {
    refused(async |api| {
        let whole = format!("{}content-length: 25\r\n\r\n{{\"lab_duration_hours\": 10}}", head(""));
        for length in [0, 1, 4, 20, 60, 120, whole.len() - 30, whole.len() - 10, whole.len() - 1] {
            let answer = raw::break_off(api, &whole.as_bytes()[..length]).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
        }
    })
    .await;
}
