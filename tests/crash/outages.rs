//! Outages of a service: accepted requests wait, nothing is dead-lettered, and all goes on by itself.

use broker_tests::cli::Stats;
use broker_tests::{Answer, Broker, Outage, Setup, ShapedService, story, together, wait_for_condition};
use tokio::task::JoinHandle;

const STUDENTS: u64 = 20;

fn setup() -> Setup {
    Setup::new().workers(2).pool(30).faults(1).var("BROKER_VISIBILITY_S", "2")
}

fn everybody(broker: &Broker) -> JoinHandle<Vec<Answer>> {
    let calls: Vec<_> =
        (0..STUDENTS).map(|n| broker.allocate(&format!("student-{n}")).wait(45).send()).collect();
    tokio::spawn(together(calls))
}

/// Repeats until a sandbox is returned, as a client does after a 503 or a 202.
async fn persist(broker: &Broker, track: &str) -> Answer {
    wait_for_condition(&format!("a sandbox for {track}"), async || {
        let answer = broker.allocate(track).send().await;
        if [200, 201].contains(&answer.status) { Ok(answer) } else { Err(answer.text) }
    })
    .await
}

async fn everybody_has_one(broker: &Broker) {
    for n in 0..STUDENTS {
        persist(broker, &format!("student-{n}")).await;
    }
    broker.queues().are_empty().await;
    let expected = Stats { total: 30, available: 10, allocated: STUDENTS, ..Stats::default() };
    assert_eq!(broker.stats().await, expected);
}

/// Every caller is answered once the table is back; the outage itself ends no request.
async fn the_table_is_away(outage: Outage) {
    story(setup(), async |broker| {
        let away = broker.proxy().outage(ShapedService::DynamoDb, outage);
        let calls = everybody(broker);
        broker.queues().holds_requests(STUDENTS).await;
        wait_for_condition("the workers to stop receiving", async || {
            let mut closed = Vec::new();
            for worker in [0, 1] {
                closed.push(broker.worker(worker).metrics().probe("/readyz").await.map(|(status, _)| status));
            }
            if closed.iter().all(|status| *status == Some(503)) { Ok(()) } else { Err(closed) }
        })
        .await;
        let alive = broker.balanced().probe("/healthz").await;
        assert_eq!(alive.map(|(status, _)| status), Some(200), "alive while the table is away");
        assert_eq!(broker.queues().requests().await.total(), STUDENTS, "nothing is dead-lettered meanwhile");
        drop(away);
        for answer in calls.await.expect("answers") {
            answer.expect_status(201);
        }
        everybody_has_one(broker).await;
    })
    .await;
}

#[tokio::test]
async fn requests_wait_for_a_table_that_refuses_connections() {
    the_table_is_away(Outage::Refused).await;
}

#[tokio::test]
async fn requests_wait_for_a_table_that_does_not_answer() {
    the_table_is_away(Outage::Silent).await;
}

#[tokio::test]
async fn without_queues_a_request_is_refused_and_nothing_else_is_lost() {
    story(setup(), async |broker| {
        let held = broker.allocate("student-0").send().await.expect_status(201);
        let away = broker.proxy().outage(ShapedService::Sqs, Outage::Refused);
        broker.allocate("student-1").send().await.expect_problem(503, "UNAVAILABLE");
        wait_for_condition("the APIs to be not ready", async || match broker.api(0).probe("/readyz").await {
            Some((503, _)) => Ok(()),
            other => Err(other),
        })
        .await;
        // Reads of the table still work.
        broker.sandbox(held.sandbox_id(), "student-0").send().await.expect_status(200);
        drop(away);
        everybody_has_one(broker).await;
    })
    .await;
}

#[tokio::test]
async fn everything_goes_on_by_itself_after_both_were_away() {
    story(setup(), async |broker| {
        let calls = everybody(broker);
        let queues = broker.proxy().outage(ShapedService::Sqs, Outage::Silent);
        let table = broker.proxy().outage(ShapedService::DynamoDb, Outage::Refused);
        wait_for_condition("the APIs to be not ready", async || match broker.api(0).probe("/readyz").await {
            Some((503, _)) => Ok(()),
            other => Err(other),
        })
        .await;
        drop((queues, table));
        // Some were answered 503, some 202, some 201: each may ask again.
        calls.await.expect("answers");
        everybody_has_one(broker).await;
    })
    .await;
}
