//! Listeners: which routes each one serves, wrong tokens, and settings that a start refuses or warns of.

use std::process::Command;

use broker_tests::api::{ADMIN_TOKEN, Api};
use broker_tests::binaries::binaries;
use broker_tests::process::Process;
use broker_tests::{Setup, TRACK_TOKEN, endpoint, raw, story, together};
use http::Method;

use crate::count;

#[tokio::test]
async fn platforms_and_operators_have_a_listener_each() {
    let setup = Setup::new().apis(1).pool(1).var("BROKER_ADMIN_LISTEN", "127.0.0.1:0");
    story(setup, async |broker| {
        let public = broker.api(0).clone();
        let operators = Api::new(&broker.api_process(0).listening("api listening for operators").await);
        let get =
            async |api: &Api, path: &str| api.call(Method::GET, path).token(ADMIN_TOKEN).send().await.status;
        for path in ["/metrics", "/v1/admin/stats", "/v1/admin/dead-letters", "/console"] {
            assert_eq!(get(&public, path).await, 404, "{path}");
            assert_eq!(get(&operators, path).await, 200, "{path}");
        }
        for (api, theirs, others) in
            [(&public, "/v1/allocate", "/v1/admin/stats"), (&operators, "/v1/admin/stats", "/v1/allocate")]
        {
            for path in ["/healthz", "/readyz", "/v1/docs", "/v1/docs/start.js"] {
                assert_eq!(get(api, path).await, 200, "{path}");
            }
            let document = api.call(Method::GET, "/v1/openapi.json").send().await.expect_status(200);
            let told = &document.json["paths"];
            assert!(told[theirs].is_object() && told[others].is_null(), "{:?}", told.as_object());
        }
        let run = public.call(Method::POST, "/v1/admin/sync").token(ADMIN_TOKEN).send().await;
        run.expect_problem(404, "NOT_FOUND");
        let other_method = public.call(Method::GET, "/v1/admin/sync").token(ADMIN_TOKEN).send().await;
        other_method.expect_problem(404, "NOT_FOUND");
        broker.allocate("student").send().await.expect_status(201);
        operators.allocate("student").send().await.expect_problem(404, "NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
    story(Setup::new().apis(1).workers(0), async |broker| {
        let guess = |n: usize| broker.sandbox("x", "student").token(&format!("guess-number-{n:08}")).send();
        let answers = together((0..400).map(guess)).await;
        let (told, slowed) = (count(&answers, 401), count(&answers, 429));
        assert_eq!(told + slowed, 400);
        assert!(told >= 100 && slowed >= 100, "{told} told, {slowed} slowed down");
        let one = answers.into_iter().find(|answer| answer.status == 429).expect("one");
        one.expect_problem(429, "RATE_LIMIT_EXCEEDED").must_have("retry-after");
        broker.sandbox("x", "student").token(TRACK_TOKEN).send().await.expect_status(404);
    })
    .await;
}

#[tokio::test]
async fn a_local_api_answers_no_page_of_another_site_and_no_other_name() {
    story(Setup::new().apis(1).workers(1).pool(1).var("BROKER_LOCAL", "true"), async |broker| {
        let api = broker.api(0).clone();
        let discard =
            || api.call(Method::POST, "/v1/admin/dead-letters/discard").token(ADMIN_TOKEN).body("{}");
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost.evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("host", "evil.example"),
            ("host", "127.0.0.1.evil.example"),
        ] {
            discard().without(name).header(name, value).send().await.expect_problem(403, "FORBIDDEN");
            let told = broker.allocate("student").without(name).header(name, value).send().await;
            told.expect_problem(403, "FORBIDDEN");
        }
        let ops = broker.worker(0).metrics();
        let page = "GET /metrics HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n\r\n";
        assert_eq!(raw::status_of(&raw::exchange(ops, page.as_bytes()).await), 403);
        broker.allocate("student").send().await.expect_status(201);
    })
    .await;
}

/// An API with these settings, in a shell that was told this before.
fn api(before: &str, vars: &[(&str, &str)]) -> Process {
    let mut command = Command::new("sh");
    let script = format!("{before}exec \"$0\"");
    command.args(["-c", &script]).arg(&binaries().api);
    endpoint::clean(&mut command).env("BROKER_LISTEN", "127.0.0.1:0").env("AWS_REGION", endpoint::REGION);
    command.envs(vars.iter().copied());
    Process::start("api", &mut command)
}

const PLATFORM: (&str, &str) = ("BROKER_TRACK_TOKENS", "platform=k3J9vQ2mX7pL0sTz");

#[tokio::test]
async fn a_start_refuses_one_token_for_two_roles_a_password_in_a_url_and_too_few_files() {
    let two_roles = [PLATFORM, ("BROKER_ADMIN_TOKENS", "ops=k3J9vQ2mX7pL0sTz")];
    let password = [PLATFORM, ("BROKER_PROVIDER_URL", "https://me:hunter2-secret@provider.example/api")];
    let malformed = [PLATFORM, ("BROKER_OTLP_ENDPOINT", "ftp://me:hunter2-secret@collector.example")];
    for (before, vars, names) in [
        ("", &two_roles, "BROKER_ADMIN_TOKENS"),
        ("", &password, "BROKER_PROVIDER_URL"),
        ("", &malformed, "BROKER_OTLP_ENDPOINT"),
        ("ulimit -n 40; ", &[PLATFORM, PLATFORM], "BROKER_MAX_CONNECTIONS"),
    ] {
        let mut process = api(before, vars);
        let status = process.ended().await;
        let said = process.log();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(names), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("k3J9vQ2mX7pL0sTz"), "{said}");
    }
}

#[tokio::test]
async fn a_start_names_what_is_unwise_and_a_log_in_a_file_has_no_colours() {
    let tokens = ("BROKER_TRACK_TOKENS", "weak=aaaaaaaaaaaaaaaa,open@acme=k3J9vQ2mX7pL0sTz");
    let mut process =
        api("", &[tokens, ("BROKER_LOG_FORMAT", "text"), ("BROKER_MAX_CONNECTIONS", "1000000")]);
    broker_tests::wait_for_condition("the warnings", async || {
        let log = process.log();
        let all =
            ["\"weak\"", "prefix of \"open\"", "fewer connections"].iter().all(|told| log.contains(told));
        if all { Ok(()) } else { Err(log) }
    })
    .await;
    process.must_run();
    assert!(!process.log().contains('\u{1b}'), "{}", process.log());
}
