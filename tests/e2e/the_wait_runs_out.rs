//! The reply that does not come in time: 202, and the outcome can be polled.

use broker_tests::{Broker, Setup, story};

/// Allocates with nobody there to answer, and returns where the outcome will be.
async fn allocate_in_vain(broker: &Broker, track: &str) -> String {
    let answer = broker.allocate(track).wait(1).send().await.expect_status(202);
    let location = answer.must_have("location").to_owned();
    assert_eq!(location, format!("/v1/requests/{}", answer.must_have("x-request-id")));
    answer.must_have("retry-after");
    location
}

#[tokio::test]
async fn a_request_that_outlives_its_wait_can_be_polled_and_ends_with_its_answer() {
    story(Setup::new().apis(2).workers(0).pool(2), async |broker| {
        let location = allocate_in_vain(broker, "student-1").await;
        for api in [0, 1] {
            let seen = broker.api(api).request(&location, "student-1").send().await.expect_status(200);
            assert_eq!(seen.text_of("status"), "queued");
            let foreign = broker.api(api).request(&location, "student-2").send().await;
            foreign.expect_problem(404, "REQUEST_NOT_FOUND");
        }

        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        assert_eq!(
            ended.json["response"]["status"].as_u64().expect("the status of the answer"),
            201,
            "{ended:#?}"
        );
        let sandbox = ended.json["response"]["body"]["sandbox_id"].as_str().expect("the body of the answer");
        broker.request(&location, "student-2").send().await.expect_problem(404, "REQUEST_NOT_FOUND");

        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), sandbox);
    })
    .await;
}

#[tokio::test]
async fn an_empty_pool_that_is_found_late_is_told_to_whoever_polls() {
    story(Setup::new().workers(0), async |broker| {
        let location = allocate_in_vain(broker, "student-1").await;
        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "failed", "{ended:#?}");
        assert_eq!(
            ended.json["response"]["status"].as_u64().expect("the status of the answer"),
            409,
            "{ended:#?}"
        );
        assert_eq!(ended.json["response"]["body"]["error"]["code"], "NO_SANDBOXES_AVAILABLE", "{ended:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_repeat_while_the_first_still_waits_shares_its_sandbox() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let first = allocate_in_vain(broker, "student-1").await;
        let second = allocate_in_vain(broker, "student-1").await;
        assert_ne!(first, second);
        broker.start_worker().await;
        let mut ends = Vec::new();
        for location in [first, second] {
            let ended = broker.outcome(&location, "student-1").await;
            assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
            ends.push((
                ended.json["response"]["status"].as_u64().expect("the status of the answer"),
                ended.json["response"]["body"]["sandbox_id"].clone(),
            ));
        }
        ends.sort_by_key(|(status, _)| *status);
        assert_eq!((ends[0].0, ends[1].0), (200, 201));
        assert_eq!(ends[0].1, ends[1].1);
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

#[tokio::test]
async fn a_return_that_is_asked_for_after_its_deadline_is_still_done_and_told_as_done() {
    story(Setup::new().apis(1).workers(1).pool(2), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        broker.stop_workers().await;
        let late =
            broker.return_sandbox(held.sandbox_id(), "student-1").wait(1).send().await.expect_status(202);
        let location = late.must_have("location").to_owned();
        let claim = allocate_in_vain(broker, "student-2").await;
        for location in [&location, &claim] {
            let id = location.rsplit('/').next().expect("an id");
            broker.table().outlive_deadline(id).await;
        }
        // Nothing was done yet. The claim never will be; the return is wanted however late.
        let seen = broker.request(&claim, "student-2").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "expired", "{seen:#?}");
        let seen = broker.request(&location, "student-1").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "queued", "{seen:#?}");

        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        assert_eq!(ended.json["response"]["status"], 200, "{ended:#?}");
        assert_eq!(broker.stats().await.pending_deletion, 1);
        let seen = broker.request(&claim, "student-2").send().await.expect_status(200);
        assert_eq!(seen.text_of("status"), "expired", "what was said stays true: {seen:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_never_was_is_not_found() {
    story(Setup::new().workers(0), async |broker| {
        let unknown = "/v1/requests/01890a5d-ac96-774b-bcce-b302099a8057";
        broker.request(unknown, "student-1").send().await.expect_problem(404, "REQUEST_NOT_FOUND");
    })
    .await;
}
