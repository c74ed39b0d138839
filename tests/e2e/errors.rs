//! Form of errors and responses. That each carries `X-Request-ID` is checked by the harness itself.

use std::collections::BTreeSet;

use broker_tests::{Setup, story};
use http::Method;

#[tokio::test]
async fn an_error_has_both_shapes_and_repeats_its_request_id() {
    story(Setup::new().apis(2), async |broker| {
        let call = broker.allocate("student-1");
        let errors = [
            (call.clone().body("{"), 400, "VALIDATION_ERROR"),
            (call.clone().without("x-instruqt-sandbox-id"), 400, "MISSING_SANDBOX_ID"),
            (call.clone().token("wrong"), 401, "UNAUTHORIZED"),
            (broker.sandbox("no-such-sandbox", "student-1"), 404, "SANDBOX_NOT_FOUND"),
            (broker.balanced().call(Method::GET, "/v1/nothing"), 404, "NOT_FOUND"),
            (broker.balanced().call(Method::GET, "/v1/allocate"), 405, "METHOD_NOT_ALLOWED"),
            (call.clone(), 409, "NO_SANDBOXES_AVAILABLE"),
        ];
        for (call, status, code) in errors {
            call.send().await.expect_problem(status, code);
        }
    })
    .await;
}

#[tokio::test]
async fn the_document_and_its_pages_are_for_everyone() {
    story(Setup::new().apis(2), async |broker| {
        let asked = |path: &str| broker.balanced().call(Method::GET, path).without("authorization");
        let document = asked("/v1/openapi.json").send().await.expect_status(200);
        assert_eq!(document.json["openapi"], "3.1.0");
        assert!(document.json["paths"]["/v1/allocate"]["post"].is_object());
        let page = asked("/v1/docs").send().await.expect_status(200);
        assert_eq!(page.must_have("content-type"), "text/html; charset=utf-8");
        for file in page.text.split('"').filter_map(|part| part.strip_prefix("docs/")) {
            asked(&format!("/v1/docs/{file}")).send().await.expect_status(200);
        }
        asked("/v1/docs/index.html").send().await.expect_problem(404, "NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn request_ids_are_ours_and_never_twice_the_same() {
    story(Setup::new().pool(1), async |broker| {
        let mut ids = BTreeSet::new();
        for _ in 0..10 {
            let answer = broker.allocate("student-1").header("x-request-id", "the-clients-own").send().await;
            let id = answer.must_have("x-request-id");
            assert_ne!(id, "the-clients-own");
            assert!(ids.insert(id.to_owned()), "{id} came twice");
        }
    })
    .await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    story(Setup::new().apis(2).pool(1), async |broker| {
        let answers = [
            broker.allocate("student-1").send().await.expect_status(201),
            broker.allocate("student-2").send().await.expect_status(409),
            broker.balanced().call(Method::GET, "/v1/nothing").send().await.expect_status(404),
            broker.balanced().call(Method::GET, "/healthz").send().await.expect_status(200),
            broker.balanced().call(Method::GET, "/v1/docs").send().await.expect_status(200),
            broker.balanced().call(Method::HEAD, "/v1/docs/swagger-ui.css").send().await.expect_status(200),
        ];
        for answer in answers {
            assert_eq!(answer.must_have("x-content-type-options"), "nosniff");
            assert_eq!(answer.must_have("x-frame-options"), "DENY");
            for name in [
                "content-security-policy",
                "referrer-policy",
                "permissions-policy",
                "strict-transport-security",
            ] {
                answer.must_have(name);
            }
        }
    })
    .await;
}
