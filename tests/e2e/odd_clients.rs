//! Odd HTTP clients: half-closed connections, byte order marks, compressed bodies, unexpected queries, repeated calls of unknown
//! paths.

use broker_tests::api::{OWNER, TRACK_TOKEN};
use broker_tests::{Setup, raw, story, together};
use http::Method;

#[tokio::test]
async fn a_client_that_has_said_all_and_closed_its_half_gets_its_answer() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        let request = format!(
            "POST /v1/allocate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TRACK_TOKEN}\r\n{OWNER}: half\r\n\r\n"
        );
        let api = broker.api(0).clone();
        let asked = tokio::spawn(async move { raw::break_off(&api, request.as_bytes()).await });
        broker.queues().holds_requests(1).await;
        broker.start_worker().await;
        let answer = asked.await.expect("an answer");
        assert_eq!(raw::status_of(&answer), 201, "{answer}");
        assert!(answer.contains("\"sandbox_id\""), "the whole of it: {answer}");
    })
    .await;
}

#[tokio::test]
async fn a_byte_order_mark_is_taken_a_content_coding_is_not_and_a_number_in_quotes_is_told_in_words() {
    story(Setup::new().apis(1).workers(1).pool(1), async |broker| {
        let marked = broker.allocate("student-1").body("\u{feff}{\"lab_duration_hours\":5}".as_bytes());
        marked.send().await.expect_status(201);
        let coded =
            broker.allocate("student-2").body(&b"\x1f\x8b\x08\0"[..]).header("content-encoding", "gzip");
        let refused = coded.send().await.expect_problem(415, "UNSUPPORTED_MEDIA");
        assert_eq!(refused.must_have("accept-encoding"), "identity");
        let quoted = broker.allocate("student-2").body("{\"lab_duration_hours\":\"4\"}".as_bytes());
        let refused = quoted.send().await.expect_problem(400, "VALIDATION_ERROR");
        assert!(refused.text_of("detail").contains("without quotes"), "{refused:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_query_where_none_belongs_is_refused() {
    story(Setup::new().apis(1).workers(1).pool(1), async |broker| {
        let api = broker.api(0);
        for (method, path) in [
            (Method::POST, "/v1/allocate?flavour=small"),
            (Method::GET, "/v1/sandboxes/seed-000000?x"),
            (Method::GET, "/v1/requests/x?a=1"),
            (Method::GET, "/healthz?a=1"),
            (Method::GET, "/v1/openapi.json?a=1"),
        ] {
            let answer = api.call(method, path).header(OWNER, "student-1").send().await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
        let empty = api.call(Method::POST, "/v1/allocate?").header(OWNER, "student-1");
        empty.send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn what_goes_nowhere_is_limited_like_what_goes_somewhere() {
    let setup = Setup::new().apis(1).workers(0).var("BROKER_RATE_LIMIT", "1").var("BROKER_RATE_BURST", "50");
    story(setup, async |broker| {
        let api = broker.api(0);
        for (method, path, token) in
            [(Method::GET, "/v1/nothing", "unknown-token-0000"), (Method::PUT, "/v1/allocate", TRACK_TOKEN)]
        {
            let calls = (0..200).map(|_| api.call(method.clone(), path).token(token).send());
            let answers = together(calls.collect::<Vec<_>>()).await;
            assert!(answers.iter().any(|answer| answer.status == 429), "{method} {path}");
        }
    })
    .await;
}
