//! Crashes of an API: SIGKILL between any two of its effects; its callers turn to another one.

use broker_runtime::crash_points::Point;
use broker_tests::cli::Stats;
use broker_tests::table::number;
use broker_tests::{Broker, Setup, story, wait_for_condition};

use super::{CRASH_AT, setup};

/// Two APIs; the first, alone, dies at `point`.
async fn with_a_doomed_api(broker: &mut Broker, point: Point) {
    broker.start_api_with(&[(CRASH_AT, &format!("{}=kill", point.as_str()))]).await;
    broker.start_api().await;
}

fn no_api() -> Setup {
    setup().apis(0)
}

/// Waits for the death of the first API.
async fn dies(broker: &mut Broker) {
    let status = broker.api_process(0).ended().await;
    assert!(!status.success(), "{status}");
    broker.kill_api(0);
}

/// One sandbox is allocated to student-1, the others are free, and every repeat gets the same one.
async fn holds_one(broker: &Broker) -> String {
    let told = broker.allocate("student-1").send().await;
    assert!([200, 201].contains(&told.status), "{told:#?}");
    let again = broker.allocate("student-1").send().await.expect_status(200);
    assert_eq!(again.sandbox_id(), told.sandbox_id());
    let expected = Stats { total: 10, available: 9, allocated: 1, ..Stats::default() };
    assert_eq!(broker.stats().await, expected);
    told.sandbox_id().to_owned()
}

#[tokio::test]
async fn a_caller_whose_api_dies_while_he_waits_gets_the_same_sandbox_from_another() {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, Point::Waiting).await;
        let broken = broker.api(0).allocate("student-1").try_send().await;
        assert!(broken.is_err(), "{broken:#?}");
        dies(broker).await;
        // The request was sent: it is not lost with the API, and not satisfied twice either.
        broker.queues().holds_requests(1).await;
        broker.start_worker().await;
        holds_one(broker).await;
        broker.sweep().await;
        broker.queues().are_empty().await;
        broker.allocate("student-1").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_caller_whose_api_dies_with_the_reply_in_its_hands_gets_the_same_sandbox_from_another() {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, Point::ReplyArrived).await;
        broker.start_worker().await;
        let broken = broker.api(0).allocate("student-1").try_send().await;
        assert!(broken.is_err(), "{broken:#?}");
        dies(broker).await;
        assert_eq!(broker.stats().await.allocated, 1);
        broker.allocate("student-1").send().await.expect_status(200);
        holds_one(broker).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_was_recorded_by_an_api_that_died_ends_with_its_outcome() {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, Point::Recorded).await;
        let broken = broker.api(0).allocate("student-1").wait(1).try_send().await;
        assert!(broken.is_err(), "{broken:#?}");
        dies(broker).await;
        let queues = broker.queues();
        let seen = queues.peek(&queues.name("requests")).await;
        let body: serde_json::Value = serde_json::from_str(seen[0].body().expect("a body")).expect("JSON");
        let location = format!("/v1/requests/{}", body["request_id"].as_str().expect("a request id"));
        let before = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(before.text_of("status"), "queued");

        broker.start_worker().await;
        let ended = wait_for_condition("the outcome", async || {
            let answer = broker.request(&location, "student-1").send().await.expect_status(200);
            if answer.text_of("status") == "queued" { Err(answer.text) } else { Ok(answer) }
        })
        .await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        let told = ended.json["response"]["body"]["sandbox_id"].as_str().expect("a sandbox").to_owned();
        assert_eq!(holds_one(broker).await, told);
    })
    .await;
}

#[tokio::test]
async fn replies_to_an_api_that_died_hold_no_worker_up_once_its_queue_is_swept() {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, Point::Waiting).await;
        let _broken = broker.api(0).allocate("student-1").try_send().await;
        dies(broker).await;
        broker.sweep().await;
        broker.start_worker().await;
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
        broker.allocate("student-1").send().await.expect_status(200);
    })
    .await;
}

/// Nothing was sent, so nothing may ever be claimed: the record alone tells of it, and says so at its deadline.
#[tokio::test]
async fn a_request_that_was_recorded_but_never_sent_ends_expired() {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, Point::Recorded).await;
        let broken = broker.api(0).allocate("student-1").respond_async().try_send().await;
        assert!(broken.is_err(), "no client was told 202: {broken:#?}");
        dies(broker).await;
        assert_eq!(broker.queues().requests().await.total(), 0, "it died before it sent");
        let [record] = broker.table().keys("REQ#").await.try_into().expect("one record");
        let location = format!("/v1/requests/{}", record.trim_start_matches("REQ#"));
        broker.start_worker().await;
        let before = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(before.text_of("status"), "queued");

        // A quarter of an hour later.
        let mut item = broker.table().must_get(&record).await;
        item.insert("deadline_ms".to_owned(), number((broker_tests::table::now_s() - 60) * 1_000));
        broker.table().put(item).await;
        for _ in 0..2 {
            let ended = broker.request(&location, "student-1").send().await.expect_status(200);
            assert_eq!(ended.text_of("status"), "expired", "{ended:#?}");
        }
        broker.cancel(&location, "student-1").send().await.expect_problem(409, "NOT_CANCELLABLE");
        assert_eq!(broker.stats().await.available, 10, "it was the truth");
        broker.allocate("student-1").send().await.expect_status(201);
        holds_one(broker).await;
    })
    .await;
}

/// Whatever an API had done for a renewal when it died, a repeat is told the end that stands.
async fn a_renewal_survives(point: Point, written_at_death: bool) {
    story(no_api(), async |broker| {
        with_a_doomed_api(broker, point).await;
        broker.start_worker().await;
        let held = broker.api(1).allocate("student-1").send().await.expect_status(201);
        let (path, until) =
            (format!("/v1/sandboxes/{}/renew", held.sandbox_id()), held.number_of("expires_at") + 3_600);
        let renew = |api: usize| {
            let call =
                broker.api(api).call(http::Method::POST, &path).header("x-instruqt-sandbox-id", "student-1");
            call.json(&serde_json::json!({ "until": until, "exact": true }))
        };
        let broken = renew(0).try_send().await;
        assert!(broken.is_err(), "{broken:#?}");
        let repeat = renew(1);
        dies(broker).await;
        let stands = broker.shown(held.sandbox_id()).await["expires_at"].as_u64();
        assert_eq!(stands == Some(until), written_at_death, "{stands:?}");
        assert_eq!(repeat.send().await.expect_status(200).number_of("expires_at"), until);
    })
    .await;
}

#[tokio::test]
async fn an_api_that_dies_before_a_renewal_renewed_nothing() {
    a_renewal_survives(Point::BeforeRenew, false).await;
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_found_by_its_repeat() {
    a_renewal_survives(Point::Renewed, true).await;
}
