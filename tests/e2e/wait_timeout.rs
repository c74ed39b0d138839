//! Wait that runs out: 202, or 503 to a client that sent no `Prefer`; the outcome can be polled.

use broker_tests::{Broker, Setup, story};

/// Allocates without a worker, and returns the location of the outcome.
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
async fn a_client_that_never_said_prefer_is_told_to_repeat_and_finds_its_sandbox() {
    story(Setup::new().apis(1).workers(0).pool(2).var("BROKER_WAIT_S", "1"), async |broker| {
        let told = broker.allocate("student-1").send().await.expect_problem(503, "STILL_QUEUED");
        assert_eq!(told.header("preference-applied"), None);
        let location = told.must_have("location").to_owned();
        assert_eq!(location, format!("/v1/requests/{}", told.must_have("x-request-id")));
        // Whatever it says: who sends the header knows a 202. An unknown preference is not honoured, and not applied.
        for preference in ["handling=lenient", "wait=soon", ""] {
            let knows =
                broker.allocate("student-2").header("prefer", preference).send().await.expect_status(202);
            assert_eq!(knows.header("preference-applied"), None, "{preference}");
        }
        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        let again = broker.allocate("student-1").wait(30).send().await.expect_status(200);
        assert_eq!(ended.json["response"]["body"]["sandbox_id"], again.sandbox_id());

        broker.stop_workers().await;
        let mark = broker.return_sandbox(again.sandbox_id(), "student-1").send().await;
        let location = mark.expect_problem(503, "STILL_QUEUED").must_have("location").to_owned();
        let knows = broker.return_sandbox(again.sandbox_id(), "student-1").respond_async().send().await;
        assert_eq!(knows.expect_status(202).header("preference-applied"), None);
        broker.start_worker().await;
        let ended = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        broker.return_sandbox(again.sandbox_id(), "student-1").wait(30).send().await.expect_status(200);
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

/// What `GET` says of the request that `answer` was to.
async fn told_later(broker: &Broker, answer: &broker_tests::Answer, track: &str) -> (String, u64, String) {
    let location = format!("/v1/requests/{}", answer.must_have("x-request-id"));
    let seen = broker.request(&location, track).send().await.expect_status(200);
    let code = seen.json["response"]["body"]["error"]["code"].as_str().unwrap_or_default().to_owned();
    (seen.text_of("status").to_owned(), seen.json["response"]["status"].as_u64().unwrap_or_default(), code)
}

#[tokio::test]
async fn the_refusal_of_a_return_is_stored_before_it_can_be_lost_with_its_reply() {
    story(Setup::new().pool(3), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        let over = broker.allocate("student-2").send().await.expect_status(201);
        broker.table().age(over.sandbox_id(), 31 * 60).await;
        assert_eq!(broker.job("expire").await.changed, 1);
        let refused = [
            (held.sandbox_id(), "student-2", 403, "NOT_SANDBOX_OWNER"),
            (over.sandbox_id(), "student-2", 403, "ALLOCATION_EXPIRED"),
            ("nowhere", "student-1", 404, "SANDBOX_NOT_FOUND"),
        ];
        for (sandbox, track, status, code) in refused {
            let answer = broker.return_sandbox(sandbox, track).send().await.expect_problem(status, code);
            let later = told_later(broker, &answer, track).await;
            assert_eq!(later, ("failed".to_owned(), u64::from(status), code.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_return_whose_message_and_reply_are_lost_ends_once_nothing_can_become_of_it() {
    story(Setup::new().workers(1).pool(3), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        let over = broker.allocate("student-2").send().await.expect_status(201);
        broker.table().age(over.sandbox_id(), 31 * 60).await;
        assert_eq!(broker.job("expire").await.changed, 1);
        broker.stop_workers().await;
        let cases = [
            (held.sandbox_id(), "student-2", "failed", "NOT_SANDBOX_OWNER"),
            (over.sandbox_id(), "student-2", "failed", "ALLOCATION_EXPIRED"),
            ("nowhere", "student-1", "failed", "SANDBOX_NOT_FOUND"),
            (held.sandbox_id(), "student-1", "queued", ""),
        ];
        let queues = broker.queues();
        for (sandbox, track, state, code) in cases {
            let late = broker.return_sandbox(sandbox, track).wait(1).send().await.expect_status(202);
            let message = queues.take(&queues.name("requests"), 1).await.remove(0);
            assert_eq!(told_later(broker, &late, track).await.0, "queued", "a worker may still have it");
            broker.table().outlive_deadline(late.must_have("x-request-id")).await;
            let (said, _, why) = told_later(broker, &late, track).await;
            assert_eq!((said.as_str(), why.as_str()), (state, code), "{sandbox} {track}");
            if state == "queued" {
                queues.send_copy(&queues.name("requests"), &message).await;
            }
        }
        broker.start_worker().await;
        queues.are_empty().await;
        assert_eq!(broker.stats().await.pending_deletion, 2, "a return is done, however late");
    })
    .await;
}

#[tokio::test]
async fn an_allocation_whose_reply_was_lost_is_told_what_its_key_holds() {
    story(Setup::new().workers(1).pool(3), async |broker| {
        let held = broker.allocate("student-1").key("intent").send().await.expect_status(201);
        broker.stop_workers().await;
        let queues = broker.queues();
        let calls = [
            (broker.allocate("student-1").key("intent"), "student-1", ("succeeded", 200)),
            (broker.allocate("student-1").key("intent").lab("other"), "student-1", ("failed", 422)),
            (broker.allocate("student-2"), "student-2", ("expired", 503)),
        ];
        for (call, track, (state, status)) in calls {
            let late = call.wait(1).send().await.expect_status(202);
            queues.take(&queues.name("requests"), 1).await;
            broker.table().outlive_deadline(late.must_have("x-request-id")).await;
            let (said, code, _) = told_later(broker, &late, track).await;
            assert_eq!(said, state, "{status}");
            if state != "expired" {
                assert_eq!(code, status);
            }
        }
        broker.start_worker().await;
        broker.return_sandbox(held.sandbox_id(), "student-1").send().await.expect_status(200);
    })
    .await;
}
