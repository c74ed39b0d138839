//! Idle and slow connections in great number: other clients notice nothing.

use std::time::Duration;

use broker_tests::api::OWNER;
use broker_tests::{Setup, raw, story, together};

const IDLE: usize = 10_000;
const SLOW: usize = 200;
const ROUNDS: usize = 30;

#[tokio::test]
async fn ten_thousand_idle_and_two_hundred_slow_connections_hold_up_nobody() {
    story(Setup::new().apis(1).workers(2).pool(ROUNDS), async |broker| {
        let api = broker.api(0).clone();
        let idle = raw::idle(&api, IDLE).await;
        let head = format!("GET /v1/sandboxes/a HTTP/1.1\r\nhost: x\r\n{OWNER}: {}\r\n", "a".repeat(10_000));
        let slow = (0..SLOW).map(|_| {
            let (api, head) = (api.clone(), head.clone());
            async move { raw::trickle(&api, head.as_bytes(), Duration::from_millis(100)).await }
        });
        let slow = tokio::spawn(together(slow.collect::<Vec<_>>()));

        for round in 0..ROUNDS {
            let track = format!("student-{round}");
            let answer = api.allocate(&track).send().await.expect_status(201);
            api.return_sandbox(answer.sandbox_id(), &track).send().await.expect_status(200);
            assert_eq!(api.probe("/healthz").await.map(|(status, _)| status), Some(200));
        }
        // Long before a head of ten thousand bytes has come, the time that a head may take is over.
        for told in slow.await.expect("each is let go") {
            assert!(told.starts_with("HTTP/1.1 408 "), "{told:?}");
        }
        assert_eq!(api.probe("/readyz").await.map(|(status, _)| status), Some(200));
        drop(idle);
    })
    .await;
}
