//! Logs of the processes on standard error: JSON, one object a line, one `request` line for each request.

use broker_tests::api::{OWNER, TRACK_TOKEN};
use broker_tests::{Answer, Setup, raw, story, wait_for_condition, wait_until};
use http::Method;
use serde_json::Value;

/// The lines that tell of this request, of all APIs.
fn lines(logged: &[Value], request_id: &str) -> Vec<Value> {
    logged.iter().filter(|line| line["request_id"] == request_id).cloned().collect()
}

#[tokio::test]
async fn every_request_is_one_line_with_its_id_track_outcome_and_latency() {
    story(Setup::new().pool(2), async |broker| {
        let (api, track) = (broker.api(0), "student-1");
        let first = broker.allocate(track).send().await.expect_status(201);
        let sandbox = first.sandbox_id().to_owned();
        let queued = broker.allocate("late").respond_async().send().await.expect_status(202);
        let location = queued.must_have("location").to_owned();
        broker.outcome(&location, "late").await;
        let told: Vec<(&str, Option<&str>, &str, Answer)> = vec![
            ("queued", Some("late"), "/v1/allocate", queued),
            ("created", Some(track), "/v1/allocate", first),
            ("existing", Some(track), "/v1/allocate", broker.allocate(track).send().await),
            ("no_sandboxes", Some("other"), "/v1/allocate", broker.allocate("other").send().await),
            ("shown", Some(track), "/v1/sandboxes/{id}", broker.sandbox(&sandbox, track).send().await),
            (
                "not_sandbox_owner",
                Some("other"),
                "/v1/sandboxes/{id}",
                broker.sandbox(&sandbox, "other").send().await,
            ),
            ("validation_error", None, "/v1/allocate", broker.allocate("a b").send().await),
            ("unauthorized", None, "/v1/allocate", broker.allocate(track).token("nobody's").send().await),
            ("not_found", None, "unmatched", api.call(Method::GET, "/v2/x").send().await),
            ("method_not_allowed", None, "/v1/allocate", api.call(Method::GET, "/v1/allocate").send().await),
        ];
        // A worker logs a request when it has answered it.
        let handled_by_workers = |count| {
            let broker = &broker;
            async move { wait_until("the worker's lines", || broker.logged("handled").len() >= count).await }
        };
        handled_by_workers(4).await;
        let logged = broker.logged("request");
        for (outcome, track, route, answer) in &told {
            let lines = lines(&logged, answer.must_have("x-request-id"));
            let [line] = &lines[..] else { panic!("{} lines for {answer:#?}: {lines:#?}", lines.len()) };
            assert_eq!(line["outcome"], *outcome, "{line:#}");
            assert_eq!(line["track"].as_str(), *track, "{line:#}");
            assert_eq!(line["route"], *route, "{line:#}");
            assert_eq!(line["status"], answer.status, "{line:#}");
            assert!(line["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line:#}");
            assert_eq!(line["client"], "127.0.0.1", "{line:#}");
        }
        // The worker tells the same requests under the same ids.
        let handled = broker.logged("handled");
        for answer in [&told[0].3, &told[1].3, &told[2].3, &told[3].3] {
            let lines = lines(&handled, answer.must_have("x-request-id"));
            assert_eq!(lines.len(), 1, "{lines:#?}");
            assert!(lines[0]["age_ms"].is_u64() && lines[0]["track"].is_string(), "{lines:#?}");
        }
        // With what a restored table is told by: which sandbox, whose, by which key, until when.
        let of = |answer: &Answer| lines(&handled, answer.must_have("x-request-id")).remove(0);
        let created = of(&told[1].3);
        for (field, told) in [
            ("sandbox_id", told[1].3.json["sandbox_id"].clone()),
            ("expires_at", told[1].3.json["expires_at"].clone()),
            ("allocated_at", told[1].3.json["allocated_at"].clone()),
            ("external_id", told[1].3.json["external_id"].clone()),
            ("idempotency_key", track.into()),
            ("returned", false.into()),
        ] {
            assert_eq!(created[field], told, "{field} of {created:#}");
        }
        assert_eq!(of(&told[3].3)["sandbox_id"], Value::Null, "no sandbox was granted");
        let back = broker.return_sandbox(&sandbox, track).send().await.expect_status(200);
        handled_by_workers(5).await;
        let handled = broker.logged("handled");
        let back = lines(&handled, back.must_have("x-request-id")).remove(0);
        assert_eq!(
            (&back["sandbox_id"], &back["returned"]),
            (&sandbox.as_str().into(), &true.into()),
            "{back:#}"
        );
        let logs = broker.logs();
        let bad = logs.lines().find(|line| serde_json::from_str::<Value>(line).is_err());
        assert_eq!(bad, None, "not JSON");
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_client_left_and_one_that_is_no_http_are_told_too() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        let request = format!(
            "POST /v1/allocate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TRACK_TOKEN}\r\n{OWNER}: leaver\r\n\
             x-request-id: the-client's-own\r\n\r\n"
        );
        let left = raw::open(broker.api(0), request.as_bytes()).await;
        broker.queues().holds_requests(1).await;
        raw::reset(left);
        wait_for_condition("the line of who left", async || {
            let logged = broker.logged("request");
            let left = logged.iter().find(|line| line["outcome"] == "client_left");
            left.map(|line| assert_eq!(line["client_request_id"], "the-client's-own")).ok_or(logged.len())
        })
        .await;
        let refused = raw::exchange(broker.api(0), b"NONSENSE\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        assert_eq!(broker.logged("refused").len(), 1);
        broker.start_worker().await;
    })
    .await;
}
