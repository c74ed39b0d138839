//! `Prefer: respond-async`: 202 at once, the outcome is polled, and a queued request can be cancelled.

use std::time::Duration;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::cli::Stats;
use broker_tests::table::{Item, text};
use broker_tests::{Answer, Broker, Fault, Outage, Rule, Setup, ShapedService, story, together, within};
use http::Method;

use crate::count;

/// Asks for a sandbox for `track` without waiting, and returns where the outcome will be.
async fn enqueue(broker: &Broker, track: &str) -> String {
    let answer = broker.allocate(track).respond_async().send().await.expect_status(202);
    let location = answer.must_have("location").to_owned();
    assert_eq!(location, format!("/v1/requests/{}", answer.must_have("x-request-id")));
    assert_eq!(answer.must_have("preference-applied"), "respond-async");
    answer.must_have("retry-after");
    assert_eq!(answer.text_of("status"), "queued");
    location
}

/// The record of the request at `location`.
fn record_key(location: &str) -> String {
    format!("REQ#{}", location.rsplit('/').next().expect("an id"))
}

/// The status and the body that the synchronous call would have had.
#[track_caller]
fn response(ended: &Answer) -> (u64, &serde_json::Value) {
    let status = ended.json["response"]["status"].as_u64();
    (status.unwrap_or_else(|| panic!("no status of the answer: {ended:#?}")), &ended.json["response"]["body"])
}

#[tokio::test]
async fn an_asynchronous_request_is_queued_and_ends_as_the_synchronous_one_would_have() {
    story(Setup::new().workers(0).pool(1), async |broker| {
        let location = enqueue(broker, "student-1").await;
        broker.queues().holds_requests(1).await;
        let seen = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "queued");
        broker.request(&location, "student-2").send().await.expect_problem(404, "REQUEST_NOT_FOUND");

        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        let (status, body) = response(&ended);
        assert_eq!(status, 201);
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(body["sandbox_id"], again.sandbox_id());
        assert_eq!(body["expires_at"], again.json["expires_at"]);

        let repeated = enqueue(broker, "student-1").await;
        let repeated = broker.outcome(&repeated, "student-1").await;
        assert_eq!((repeated.text_of("status"), response(&repeated).0), ("succeeded", 200), "{repeated:#?}");
        let in_vain = enqueue(broker, "student-2").await;
        let in_vain = broker.outcome(&in_vain, "student-2").await;
        assert_eq!((in_vain.text_of("status"), response(&in_vain).0), ("failed", 409), "{in_vain:#?}");
        assert_eq!(response(&in_vain).1["error"]["code"], "NO_SANDBOXES_AVAILABLE");
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_request_never_claims_however_often_its_message_comes() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let location = enqueue(broker, "student-1").await;
        let queues = broker.queues();
        queues.holds_requests(1).await;
        let message = queues.peek(&queues.name("requests")).await.remove(0);

        broker.cancel(&location, "student-2").send().await.expect_problem(404, "REQUEST_NOT_FOUND");
        let cancelled = broker.cancel(&location, "student-1").send().await.expect_status(200);
        assert_eq!(cancelled.text_of("status"), "cancelled");
        broker.cancel(&location, "student-1").send().await.expect_problem(409, "NOT_CANCELLABLE");

        for _ in 0..3 {
            queues.send_copy(&queues.name("requests"), &message).await;
        }
        broker.start_worker().await;
        broker.start_worker().await;
        queues.are_empty().await;
        let seen = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "cancelled");
        assert_eq!(broker.stats().await, Stats { total: 3, available: 3, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn an_expired_that_was_said_stays_true_and_nothing_is_claimed() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let location = enqueue(broker, "student-1").await;
        broker.queues().holds_requests(1).await;
        // Its message still says that there is time; only the record knows better.
        let table = broker.table();
        let record = table.must_get(&record_key(&location)).await;
        let past =
            [("deadline_ms".to_owned(), aws_sdk_dynamodb::types::AttributeValue::N("1000".to_owned()))];
        table.put(record.into_iter().chain(past).collect::<Item>()).await;

        let seen = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "expired", "{seen:#?}");
        broker.cancel(&location, "student-1").send().await.expect_problem(409, "NOT_CANCELLABLE");
        broker.start_worker().await;
        broker.queues().are_empty().await;
        let seen = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "expired");
        assert_eq!(broker.stats().await, Stats { total: 3, available: 3, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn only_a_queued_asynchronous_request_can_be_cancelled() {
    story(Setup::new().workers(0).pool(2), async |broker| {
        let waited = broker.allocate("student-1").wait(1).send().await.expect_status(202);
        let waited = waited.must_have("location").to_owned();
        broker.cancel(&waited, "student-1").send().await.expect_problem(409, "NOT_CANCELLABLE");
        let location = enqueue(broker, "student-2").await;
        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-2").await;
        assert_eq!(ended.text_of("status"), "succeeded");
        broker.cancel(&location, "student-2").send().await.expect_problem(409, "NOT_CANCELLABLE");
        assert_eq!(broker.outcome(&waited, "student-1").await.text_of("status"), "succeeded");
        assert_eq!(broker.stats().await.allocated, 2);

        let unknown = "/v1/requests/01890a5d-ac96-774b-bcce-b302099a8057";
        broker.cancel(unknown, "student-1").send().await.expect_problem(404, "REQUEST_NOT_FOUND");
        broker
            .cancel("/v1/requests/nonsense", "student-1")
            .send()
            .await
            .expect_problem(404, "REQUEST_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn cancellations_that_race_the_workers_leave_a_claim_or_a_cancellation_and_never_both() {
    const STUDENTS: usize = 60;
    story(Setup::new().apis(2).workers(3).pool(STUDENTS), async |broker| {
        let calls = (0..STUDENTS).map(|n| {
            let (api, track) = (broker.api(n).clone(), format!("student-{n}"));
            async move {
                let call = api.allocate(&track).respond_async();
                let location = call.send().await.expect_status(202).must_have("location").to_owned();
                (api.cancel(&location, &track).send().await, location, track)
            }
        });
        let ended = together(calls).await;
        let mut allocated = 0;
        for (cancelled, location, track) in &ended {
            let said = broker.outcome(location, track).await;
            match cancelled.status {
                200 => assert_eq!(said.text_of("status"), "cancelled"),
                _ => assert_eq!(said.text_of("status"), "succeeded"),
            }
            allocated += u64::from(cancelled.status == 409);
        }
        let answers: Vec<_> = ended.into_iter().map(|(cancelled, ..)| cancelled).collect();
        assert_eq!(count(&answers, 200) + count(&answers, 409), STUDENTS, "{answers:#?}");
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, allocated);
    })
    .await;
}

#[tokio::test]
async fn an_asynchronous_request_whose_message_cannot_be_sent_is_a_503_and_never_claims() {
    story(Setup::new().workers(0).pool(1), async |broker| {
        let queues = broker.queues();
        queues.remove(&queues.name("requests")).await;
        let refused = broker.allocate("student-1").respond_async().send().await;
        let refused = refused.expect_problem(503, "UNAVAILABLE");
        let key = format!("REQ#{}", refused.must_have("x-request-id"));
        let record = broker.table().must_get(&key).await;
        assert_eq!(record.get("state"), Some(&text("cancelled")), "{record:#?}");
        broker.cli_ok(&["init"]).await;
    })
    .await;
}

/// It was refused because its message was not sent, and its record says so.
async fn is_taken_back(broker: &Broker, refused: Answer) {
    let refused = refused.expect_problem(503, "UNAVAILABLE");
    let key = format!("REQ#{}", refused.must_have("x-request-id"));
    let record = broker.table().must_get(&key).await;
    assert_eq!(record.get("state"), Some(&text("cancelled")), "{record:#?}");
}

#[tokio::test]
async fn a_queue_that_says_nothing_holds_no_caller_for_longer_than_one_send_takes() {
    const EACH: usize = 200;
    // Nobody waits for an answer, and the sends of two hundred, one after the other, take half a minute.
    let setup = Setup::new().workers(0).pool(1).faults(1).var("BROKER_WAIT_S", "1");
    story(setup, async |broker| {
        let away = broker.proxy().outage(ShapedService::Sqs, Outage::Silent);
        let asked = (0..EACH).map(|n| broker.allocate(&format!("student-{n}")).respond_async().send());
        let run = broker.balanced().call(Method::POST, "/v1/admin/cleanup");
        let runs = (0..EACH).map(|_| run.clone().token(ADMIN_TOKEN).send());
        let all = async { tokio::join!(together(asked), together(runs)) };
        let (asked, runs) = within(Duration::from_secs(18), "refusals", all).await;
        drop(away);
        for refused in asked {
            is_taken_back(broker, refused).await;
        }
        for refused in runs {
            refused.expect_problem(503, "UNAVAILABLE");
        }
        broker.start_worker().await;
        assert_eq!(broker.stats().await, Stats { total: 1, available: 1, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_message_that_comes_after_its_503_never_claims() {
    story(Setup::new().workers(0).pool(1).faults(1), async |broker| {
        // Each attempt is taken, and none is answered in time.
        broker.proxy().add(Rule::new(Fault::LateResponse).on("SendMessageBatch"));
        let refused = broker.allocate("student-1").respond_async().send().await;
        broker.proxy().calm();
        assert!(broker.queues().requests().await.visible > 0, "it was sent all the same");
        is_taken_back(broker, refused).await;
        broker.start_worker().await;
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await, Stats { total: 1, available: 1, ..Stats::default() });
    })
    .await;
}
