//! Bad input is refused with a clear 4xx, and nothing is enqueued: no worker runs here, so messages would stay.

use broker_tests::api::{KEY, LAB, NAME_PREFIX, OWNER};
use broker_tests::queues::Depth;
use broker_tests::{Broker, Setup, raw, story};
use http::Method;

/// Tells a story without workers, then looks into the requests queue.
async fn nothing_is_enqueued(tell: impl AsyncFnOnce(&mut Broker)) {
    story(Setup::new().workers(0).pool(1), async |broker| {
        tell(broker).await;
        assert_eq!(broker.queues().requests().await, Depth::default());
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_not_what_was_asked_for_is_refused() {
    nothing_is_enqueued(async |broker| {
        let bodies: [&[u8]; 13] = [
            b"{",
            b"lab_duration_hours=4",
            b"[]",
            b"\"4\"",
            b"\xff\xfe",
            b"{\"lab_duration_hours\": 0}",
            b"{\"lab_duration_hours\": 169}",
            b"{\"lab_duration_hours\": -1}",
            b"{\"lab_duration_hours\": 4.5}",
            b"{\"lab_duration_hours\": \"4\"}",
            b"{\"lab_duration_hours\": 99999999999999999999}",
            b"{\"lab_duration_hours\": 4, \"color\": \"red\"}",
            b"{\"lab_duration_hours\": 4} and more",
        ];
        for body in bodies {
            let answer = broker.allocate("student-1").body(body).send().await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
    })
    .await;
}

#[tokio::test]
async fn ids_that_are_too_long_or_hold_other_characters_are_refused() {
    nothing_is_enqueued(async |broker| {
        let long = "x".repeat(129);
        let bad: [&[u8]; 8] = [
            b"",
            long.as_bytes(),
            b"two words",
            b"a/b",
            b"a#b",
            "stud\u{e9}nt".as_bytes(),
            b"stud\xe9nt",
            b"tab\there",
        ];
        for id in bad {
            for name in [OWNER, LAB, KEY] {
                let answer = broker.allocate("student-1").header(name, id).send().await;
                answer.expect_problem(400, "VALIDATION_ERROR");
            }
        }
        let prefix = broker.allocate("student-1").header(NAME_PREFIX, "x".repeat(1_000));
        prefix.send().await.expect_problem(400, "VALIDATION_ERROR");
        let latin1 = broker.allocate("student-1").header(NAME_PREFIX, b"caf\xe9");
        latin1.send().await.expect_problem(400, "VALIDATION_ERROR");
    })
    .await;
}

#[tokio::test]
async fn a_call_without_an_owner_or_with_two_is_refused() {
    nothing_is_enqueued(async |broker| {
        let nobody = broker.allocate("student-1").without(OWNER);
        nobody.send().await.expect_problem(400, "MISSING_SANDBOX_ID");
        let two = broker.allocate("student-1").another(OWNER, "student-2");
        two.send().await.expect_problem(400, "VALIDATION_ERROR");
        let two_keys = broker.allocate("student-1").key("one").another(KEY, "two");
        two_keys.send().await.expect_problem(400, "VALIDATION_ERROR");
    })
    .await;
}

#[tokio::test]
async fn a_call_without_the_right_token_is_refused() {
    nothing_is_enqueued(async |broker| {
        let call = broker.allocate("student-1");
        let others = [
            call.clone().without("authorization"),
            call.clone().token("tok-platform-012345678"),
            call.clone().header("authorization", "Basic dG9rOnRvaw=="),
            call.clone().header("authorization", b"Bearer \xff\xfe"),
        ];
        for other in others {
            let answer = other.send().await.expect_problem(401, "UNAUTHORIZED");
            assert!(answer.must_have("www-authenticate").starts_with("Bearer"), "{answer:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_and_headers_have_their_limits() {
    nothing_is_enqueued(async |broker| {
        let call = broker.allocate("student-1");
        let big = format!("{{\"lab_duration_hours\": 4{}}}", " ".repeat(17 * 1024));
        call.clone().body(big.clone()).send().await.expect_problem(413, "PAYLOAD_TOO_LARGE");
        let filled = call.clone().header("x-filler", "x".repeat(17 * 1024));
        filled.send().await.expect_problem(431, "HEADERS_TOO_LARGE");
        let long_path = format!("/v1/sandboxes/{}", "a".repeat(3_000));
        call.clone().send_to(Method::GET, &long_path).await.expect_problem(414, "URI_TOO_LONG");

        let head = format!("POST /v1/allocate HTTP/1.1\r\nhost: x\r\n{OWNER}: student-1\r\n");
        let token = format!("authorization: Bearer {}\r\n", broker_tests::api::TRACK_TOKEN);
        let chunked =
            format!("{head}{token}transfer-encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
        let answer = raw::exchange(broker.balanced(), chunked.as_bytes()).await;
        assert_eq!(raw::status_of(&answer), 413, "{answer}");
        let huge = format!("{head}{token}x-filler: {}\r\n\r\n", "x".repeat(1 << 20));
        let answer = raw::exchange(broker.balanced(), huge.as_bytes()).await;
        assert_eq!(raw::status_of(&answer), 431, "{answer}");
        let garbage = raw::exchange(broker.balanced(), b"\x16\x03\x01 hello\r\n\r\n").await;
        assert_eq!(raw::status_of(&garbage), 400, "{garbage}");
    })
    .await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_refused() {
    nothing_is_enqueued(async |broker| {
        let call = broker.allocate("student-1");
        for (method, path, allow) in [
            (Method::GET, "/v1/allocate", "POST"),
            (Method::DELETE, "/v1/allocate", "POST"),
            (Method::PUT, "/v1/sandboxes/seed-000000", "GET"),
            (Method::GET, "/v1/sandboxes/seed-000000/mark-for-deletion", "POST"),
        ] {
            let answer = call.clone().send_to(method, path).await.expect_problem(405, "METHOD_NOT_ALLOWED");
            let allowed = answer.must_have("allow");
            assert!(allowed.split(", ").any(|method| method == allow), "{path}: {allowed}");
        }
        for path in
            ["/", "/v1", "/v2/allocate", "/v1/allocate/", "/v1/allocate/now", "/v1/sandboxes", "/.env"]
        {
            call.clone().send_to(Method::GET, path).await.expect_problem(404, "NOT_FOUND");
        }
        let slash = call.clone().send_to(Method::GET, "/v1/sandboxes/two%20words").await;
        slash.expect_problem(400, "VALIDATION_ERROR");
    })
    .await;
}
