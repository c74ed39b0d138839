//! Silence of AWS: it accepts connections and never answers. Every process still reports liveness, and no probe waits for
//! AWS; afterwards all goes on by itself.
//!
//! Order is tested here; how long a probe takes in a minute of that is measured by `broker-bench silence`.

use broker_tests::proxy::Away;
use broker_tests::{Answer, Api, Broker, Outage, Setup, ShapedService, story, together, wait_for_condition};
use tokio::task::JoinHandle;

const STUDENTS: usize = 20;

fn setup() -> Setup {
    Setup::new().workers(2).pool(30).faults(1).var("BROKER_VISIBILITY_S", "2")
}

/// Everybody asks, and waits; both services fall silent.
async fn everybody_waits(broker: &Broker) -> (JoinHandle<Vec<Answer>>, [Away; 2]) {
    let table = broker.proxy().outage(ShapedService::DynamoDb, Outage::Silent);
    let calls: Vec<_> =
        (0..STUDENTS).map(|n| broker.allocate(&format!("student-{n}")).wait(45).send()).collect();
    let calls = tokio::spawn(together(calls));
    broker.queues().holds_requests(STUDENTS as u64).await;
    (calls, [table, broker.proxy().outage(ShapedService::Sqs, Outage::Silent)])
}

/// Two APIs and two workers.
fn probed(broker: &Broker) -> [Api; 4] {
    let worker = |index: usize| broker.worker(index).metrics().clone();
    [broker.api(0).clone(), broker.api(1).clone(), worker(0), worker(1)]
}

/// Repeats as clients do after a 503 or a 202: each has one sandbox in the end.
async fn everybody_has_one(broker: &Broker) {
    for n in 0..STUDENTS {
        wait_for_condition(&format!("a sandbox for student-{n}"), async || {
            let answer = broker.allocate(&format!("student-{n}")).send().await;
            if [200, 201].contains(&answer.status) { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    broker.queues().are_empty().await;
    let stats = broker.stats().await;
    assert_eq!((stats.allocated, stats.available), (STUDENTS as u64, 10));
}

#[tokio::test]
async fn liveness_is_told_while_everything_that_needs_aws_waits() {
    story(setup(), async |broker| {
        let (calls, away) = everybody_waits(broker).await;
        wait_for_condition("all to be not ready", async || {
            let mut ready = Vec::new();
            for process in probed(broker) {
                ready.push(process.probe("/readyz").await.map(|(status, _)| status));
            }
            if ready.iter().all(|status| *status == Some(503)) { Ok(()) } else { Err(ready) }
        })
        .await;
        for _ in 0..10 {
            for process in probed(broker) {
                let status = process.probe("/healthz").await.map(|(status, _)| status);
                assert_eq!(status, Some(200), "{} is alive", process.address());
                // Callers that need AWS have had no response since before the first of these probes.
                assert!(!calls.is_finished(), "a probe waited longer than all who need AWS");
            }
        }
        drop(away);
        calls.await.expect("answers");
        everybody_has_one(broker).await;
    })
    .await;
}
