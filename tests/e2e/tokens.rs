//! Tokens: several named ones of each role, replaced without a client noticing, and never in a log.

use std::process::Command;

use broker_tests::api::{ADMIN_TOKEN, Api, TRACK_TOKEN};
use broker_tests::binaries::binaries;
use broker_tests::process::Process;
use broker_tests::{Setup, endpoint, story};

const OLD: &str = "tok-old-0123456789abcdef";
const NEW: &str = "tok-new-0123456789abcdef";
const ACME: &str = "tok-acme-0123456789abcdef";
const VIEWER: &str = "tok-viewer-0123456789abcdef";
const WRONG: &str = "tok-nobody-0123456789abcdef";

#[tokio::test]
async fn a_token_is_replaced_while_clients_go_on_calling() {
    let setup = Setup::new().apis(0).pool(3);
    story(setup, async |broker| {
        let (both, new) = (format!("old={OLD}, new={NEW}"), format!("new={NEW}"));
        // First both are valid, then every client gets the new one, then the old one is removed.
        broker.start_api_with(&[("BROKER_TRACK_TOKENS", both.as_str())]).await;
        let first = broker.allocate("student-1").token(OLD).send().await.expect_status(201);
        let again = broker.allocate("student-1").token(NEW).send().await.expect_status(200);
        assert_eq!(first.sandbox_id(), again.sandbox_id());

        broker.start_api_with(&[("BROKER_TRACK_TOKENS", new.as_str())]).await;
        let (old_api, _) = broker.terminate_api(0);
        old_api.stopped().await;
        broker.allocate("student-1").token(OLD).send().await.expect_problem(401, "UNAUTHORIZED");
        let last = broker.allocate("student-1").token(NEW).send().await.expect_status(200);
        assert_eq!(first.sandbox_id(), last.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_prefix_acts_for_no_other_track() {
    story(Setup::new().apis(0).pool(3), async |broker| {
        let tokens = format!("platform={TRACK_TOKEN}, acme@acme-={ACME}");
        broker.start_api_with(&[("BROKER_TRACK_TOKENS", tokens.as_str())]).await;
        let own = broker.allocate("acme-1").token(ACME).send().await.expect_status(201);
        broker.allocate("student-1").token(ACME).send().await.expect_problem(403, "FORBIDDEN");
        let other = broker.allocate("student-1").send().await.expect_status(201);
        broker
            .return_sandbox(other.sandbox_id(), "student-1")
            .token(ACME)
            .send()
            .await
            .expect_problem(403, "FORBIDDEN");
        broker.sandbox(own.sandbox_id(), "acme-1").token(ACME).send().await.expect_status(200);
        broker.allocate("acme-1").token(ADMIN_TOKEN).send().await.expect_problem(403, "FORBIDDEN");
    })
    .await;
}

/// The operations of operators, from the document that the API serves: method and path.
async fn operators_operations(api: &Api) -> Vec<(http::Method, String)> {
    let (_, document) = api.probe("/v1/openapi.json").await.expect("a document");
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            if operation["security"][0].get("operator").is_some() {
                let method = method.to_ascii_uppercase().parse().expect("a method");
                found.push((method, path.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn a_read_only_token_sees_everything_and_changes_nothing() {
    story(Setup::new().apis(0).pool(3), async |broker| {
        let tokens = format!("ops={ADMIN_TOKEN}, viewer:ro={VIEWER}");
        broker.start_api_with(&[("BROKER_ADMIN_TOKENS", tokens.as_str())]).await;
        let operations = operators_operations(broker.api(0)).await;
        let changing = operations.iter().filter(|(method, _)| method != http::Method::GET).count();
        assert!(changing >= 7 && operations.len() > changing, "{operations:?}");
        for (method, path) in operations {
            let path = path.replace('{', "an-").replace('}', "");
            // Without a query and a body: a token that may act gets 200, 202 or 400.
            let call = broker.api(0).call(method.clone(), &path).token(VIEWER);
            if method == http::Method::GET {
                let answer = call.send().await;
                assert_ne!(answer.status, 403, "{method} {path}: {answer:?}");
            } else {
                let refused = call.send().await.expect_problem(403, "FORBIDDEN");
                assert!(refused.text_of("detail").contains("read-only"), "{refused:?}");
            }
        }
        let audited = broker.cli_ok(&["audit"]).await;
        assert!(!audited.stdout.contains("viewer"), "{audited:#?}");
        let acted = broker.api(0).call(http::Method::POST, "/v1/admin/cleanup").token(ADMIN_TOKEN);
        acted.send().await.expect_status(200);
        // It is no platform's either.
        broker.allocate("student-1").token(VIEWER).send().await.expect_problem(403, "FORBIDDEN");
    })
    .await;
}

#[tokio::test]
async fn no_token_and_no_body_is_ever_logged() {
    const SECRET: &str = "a-secret-in-a-body";
    const QUERY: &str = "a-secret-in-a-query";
    story(Setup::new().apis(2).pool(3).var("BROKER_LOG", "trace"), async |broker| {
        let first = broker.allocate("student-1").send().await.expect_status(201);
        for token in [ADMIN_TOKEN, WRONG, OLD] {
            broker.allocate("student-1").token(token).send().await;
        }
        let twice = format!("Bearer Bearer {WRONG}");
        broker.allocate("student-1").header("authorization", twice).send().await.expect_status(401);
        let basic = format!("Basic {WRONG}");
        broker.allocate("student-1").header("authorization", basic).send().await.expect_status(401);
        broker.allocate("student-1").body(format!("{{\"{SECRET}\": 1}}")).send().await.expect_status(400);
        let path = format!("/v1/sandboxes/{}?token={QUERY}", first.sandbox_id());
        broker.sandbox("x", "student-1").send_to(http::Method::GET, &path).await.expect_status(400);
        broker.return_sandbox(first.sandbox_id(), "student-1").send().await.expect_status(200);

        let logs = broker.logs();
        assert!(logs.contains("\"token\":\"platform\""), "tokens are told by their names");
        let seen: Vec<_> = logs
            .lines()
            .filter(|line| {
                [TRACK_TOKEN, ADMIN_TOKEN, WRONG, OLD, SECRET, QUERY].iter().any(|s| line.contains(s))
            })
            .take(3)
            .collect();
        assert!(seen.is_empty(), "{seen:#?}");
        for api in [0, 1] {
            let (_, metrics) = broker.api(api).probe("/metrics").await.expect("metrics");
            assert!(!metrics.contains("tok-"), "{metrics}");
        }
    })
    .await;
}

/// Starts an API that must refuse to, and returns what it said.
async fn refused(vars: &[(&str, &str)]) -> String {
    let mut command = Command::new(&binaries().api);
    endpoint::clean(&mut command).env("BROKER_LISTEN", "127.0.0.1:0").env("AWS_REGION", endpoint::REGION);
    command.envs(vars.iter().copied());
    let mut process = Process::start("refusing-api", &mut command);
    let status = process.ended().await;
    assert_eq!(status.code(), Some(2), "{}", process.tail());
    process.log()
}

#[tokio::test]
async fn an_api_that_nobody_could_log_in_to_refuses_to_start_and_names_the_setting() {
    let no_token = refused(&[]).await;
    assert!(no_token.contains("BROKER_TRACK_TOKENS"), "{no_token}");
    let bad = [
        ("BROKER_TRACK_TOKENS", WRONG),
        ("BROKER_TRACK_TOKENS", "a=short"),
        ("BROKER_TRACK_TOKENS", "a:ro=0123456789abcdef"),
        ("BROKER_ADMIN_TOKENS", "a=0123456789abcdef, a=fedcba9876543210"),
        ("BROKER_TRACK_TOKENS_FILE", "/nonexistent/tokens"),
        ("BROKER_RATE_LIMIT", "many"),
        ("BROKER_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("BROKER_CORS_ORIGINS", "labs.example"),
    ];
    for (name, value) in bad {
        let said = refused(&[(name, value)]).await;
        assert!(said.contains(name), "{said}");
        assert!(!said.contains(WRONG) && !said.contains("0123456789abcdef"), "{said}");
    }
}
