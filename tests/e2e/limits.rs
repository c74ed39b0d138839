//! Limits: body sizes, rate, client address, CORS.

use broker_tests::queues::Depth;
use broker_tests::{Setup, raw, story, together, wait_for_condition};
use http::Method;

#[tokio::test]
async fn more_pending_calls_than_the_bound_are_shed_before_anything_is_enqueued() {
    let setup = Setup::new().apis(1).workers(0).pool(5).var("BROKER_MAX_PENDING", "3");
    story(setup, async |broker| {
        let calls = (0..3).map(|n| broker.allocate(&format!("student-{n}")).send());
        let calls = tokio::spawn(together(calls.collect::<Vec<_>>()));
        broker.queues().holds_requests(3).await;
        for _ in 0..5 {
            broker.allocate("one-more").send().await.expect_problem(503, "OVERLOADED");
        }
        let depth = broker.queues().requests().await;
        assert_eq!(depth, Depth { visible: 3, ..Depth::default() });
        assert!(broker.api(0).metric("broker_requests_shed_total").await >= 5.0);
        assert_eq!(broker.api(0).probe("/healthz").await.map(|(status, _)| status), Some(200));

        broker.start_worker().await;
        for answer in calls.await.expect("answers") {
            answer.expect_status(201);
        }
        broker.allocate("one-more").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_caller_over_the_rate_is_told_when_to_come_back_and_nobody_else_is() {
    // Slow enough that no allowance is regained during the story.
    let setup = Setup::new().apis(1).workers(0).pool(1).var("BROKER_WAIT_S", "0");
    let setup = setup.var("BROKER_RATE_LIMIT", "1").var("BROKER_RATE_BURST", "600");
    story(setup.var("BROKER_TRUSTED_PROXIES", "127.0.0.0/8"), async |broker| {
        let look = |from: &str| broker.sandbox("nothing", "student-1").header("x-forwarded-for", from);
        let mut refused = None;
        for _ in 0..10_000 {
            let answer = look("198.51.100.1").send().await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
            answer.expect_status(404);
        }
        let refused = refused.expect("the burst ends").expect_problem(429, "RATE_LIMIT_EXCEEDED");
        assert_eq!(refused.must_have("ratelimit-policy"), "\"default\";q=600;w=600");
        assert!(refused.must_have("ratelimit").starts_with("\"default\";r=0;t="));

        look("198.51.100.2").send().await.expect_status(404);
        look("1.1.1.1, 198.51.100.2").send().await.expect_status(404);
        look("198.51.100.1").token("unknown-token-0123").send().await.expect_status(401);
        for _ in 0..700 {
            let probed = broker.api(0).probe("/healthz").await.map(|(status, _)| status);
            assert_eq!(probed, Some(200), "probes are not limited");
        }
        assert_eq!(broker.queues().requests().await, Depth::default());
    })
    .await;
}

#[tokio::test]
async fn without_a_trusted_proxy_a_claimed_address_changes_nothing() {
    let setup = Setup::new().apis(1).workers(0).var("BROKER_RATE_LIMIT", "1").var("BROKER_RATE_BURST", "300");
    story(setup, async |broker| {
        let statuses = together((0..3_000).map(|n: u32| {
            let [_, _, high, low] = n.to_be_bytes();
            let from = format!("198.51.{high}.{low}");
            let call = broker.sandbox("nothing", "student-1").header("x-forwarded-for", from);
            async move { call.send().await.status }
        }))
        .await;
        assert!(
            statuses.contains(&429),
            "a client that names another address each time is limited all the same"
        );
    })
    .await;
}

#[tokio::test]
async fn a_thousand_calls_at_once_pass_by_default() {
    story(Setup::new().apis(1).workers(0), async |broker| {
        let calls = (0..1_000).map(|_| broker.sandbox("nothing", "student-1").send());
        for answer in together(calls).await {
            answer.expect_status(404);
        }
    })
    .await;
}

#[tokio::test]
async fn a_configured_page_may_call_and_another_learns_nothing() {
    const PAGE: &str = "https://labs.example";
    let setup = Setup::new().apis(1).workers(1).pool(1).var("BROKER_CORS_ORIGINS", PAGE);
    story(setup, async |broker| {
        let api = broker.api(0);
        let preflight = |origin: &str| {
            let call = api.call(Method::OPTIONS, "/v1/allocate").without("authorization");
            call.header("origin", origin).header("access-control-request-method", "POST")
        };
        let allowed = preflight(PAGE).send().await.expect_status(204);
        assert_eq!(allowed.must_have("access-control-allow-origin"), PAGE);
        let headers = allowed.must_have("access-control-allow-headers");
        for header in ["authorization", "x-instruqt-sandbox-id", "x-track-id", "idempotency-key", "prefer"] {
            assert!(headers.split(", ").any(|allowed| allowed == header), "{header} is not in {headers}");
        }
        let refused =
            preflight("https://evil.example").send().await.expect_problem(405, "METHOD_NOT_ALLOWED");
        assert_eq!(refused.header("access-control-allow-origin"), None);

        // A preflight has no body, nor has a HEAD: nothing is read behind one, so that nobody has answers piled up.
        let asked =
            format!("OPTIONS /v1/allocate HTTP/1.1\r\norigin: {PAGE}\r\naccess-control-request-method: POST");
        for (asked, status) in [(asked.as_str(), 204), ("HEAD /healthz HTTP/1.1", 200)] {
            let behind = "GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let both = format!("{asked}\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}{behind}");
            let answers = raw::exchange_to_end(api, both.as_bytes()).await;
            assert_eq!(raw::status_of(&answers), status, "{answers}");
            assert!(answers.contains("connection: close") && !answers.contains("HTTP/1.1 404"), "{answers}");
        }

        let called = broker.allocate("student-1").header("origin", PAGE).send().await.expect_status(201);
        assert_eq!(called.must_have("access-control-allow-origin"), PAGE);
        assert!(called.must_have("access-control-expose-headers").contains("x-request-id"));
        let failed = broker.allocate("a b").header("origin", PAGE).send().await.expect_status(400);
        assert_eq!(failed.must_have("access-control-allow-origin"), PAGE);
        let other = broker.allocate("student-1").header("origin", "https://evil.example").send().await;
        assert_eq!(other.expect_status(200).header("access-control-allow-origin"), None);
    })
    .await;
}

#[tokio::test]
async fn with_every_connection_taken_a_probe_is_answered_and_others_wait_a_moment() {
    let setup = Setup::new().apis(1).workers(0).var("BROKER_MAX_CONNECTIONS", "8");
    story(setup, async |broker| {
        let address = broker.api(0).address().to_owned();
        let working = broker_tests::Api::new(&address);
        let works = async || assert_eq!(working.probe("/readyz").await.map(|(status, _)| status), Some(200));
        works().await;
        let mut idle = raw::idle(&working, 7).await;
        let fresh = || broker_tests::Api::new(&address);
        // More than there are spare ones, too.
        for _ in 0..100 {
            assert_eq!(fresh().probe("/healthz").await.map(|(status, _)| status), Some(200));
        }
        let refused = fresh().sandbox("nothing", "student-1").send().await.expect_problem(503, "OVERLOADED");
        assert_eq!(refused.must_have("connection"), "close");
        let waits = tokio::spawn(fresh().sandbox("nothing", "student-1").send());
        works().await;
        idle.clear();
        let status = waits.await.expect("an answer").status;
        assert!([404, 503].contains(&status), "{status}");
        wait_for_condition("a place", async || {
            let status = fresh().sandbox("nothing", "student-1").send().await.status;
            if status == 404 { Ok(()) } else { Err(status) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_answers_probes_however_many_hold_its_port_and_keeps_few_of_them() {
    story(Setup::new().apis(1).workers(1), async |broker| {
        let ops = broker.worker(0).metrics().clone();
        let held = raw::idle(&ops, 400).await;
        let fresh = broker_tests::Api::new(ops.address());
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(fresh.probe(path).await.map(|(status, _)| status), Some(200), "{path}");
        }
        wait_for_condition("the oldest connections to be closed", async || {
            let gone = held.iter().filter(|stream| raw::is_closed(stream)).count();
            if gone >= 250 { Ok(()) } else { Err(gone) }
        })
        .await;
    })
    .await;
}

/// Connections of the story below.
const SILENT: usize = 1_500;

/// `cargo test -p broker-tests --test e2e connections_that_ask -- --nocapture` tells what it costs.
#[tokio::test]
async fn connections_that_ask_for_much_and_read_nothing_cost_what_the_limits_are_made_for() {
    let setup = Setup::new().apis(1).workers(0).var("BROKER_MAX_CONNECTIONS", "4000");
    story(setup, async |broker| {
        let api = broker.api(0).clone();
        let before = broker.api_process(0).resident_mib();
        let ask = "GET /v1/docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
        let mut greedy = Vec::new();
        for _ in 0..SILENT {
            greedy.push(raw::open(&api, ask.as_bytes()).await);
        }
        assert_eq!(api.probe("/healthz").await.map(|(status, _)| status), Some(200));
        // What the first answers cost once is the process's own: a small part of the 128 MiB that are reckoned for it.
        let reckoned = before + 8.0 + SILENT as f64 * 64.0 / 1_024.0;
        // The allocator gives back later what the burst of their beginning took.
        let after = wait_for_condition("the connections to cost what is reckoned", async || {
            let after = broker.api_process(0).resident_mib();
            if after <= reckoned { Ok(after) } else { Err(after) }
        })
        .await;
        let each_kib = (after - before) * 1_024.0 / SILENT as f64;
        println!("{SILENT} connections: {before:.0} MiB before, {after:.0} MiB after, {each_kib:.0} KiB each; 64 KiB are reckoned with, and 128 KiB in the kernel");
        drop(greedy);
    })
    .await;
}
