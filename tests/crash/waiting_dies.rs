//! Crashes of a worker around a request that waits: SIGKILL between any two effects; another one takes over.

use broker_runtime::crash_points::Point;
use broker_tests::{Answer, Broker, Setup, story, wait_for_condition};
use serde_json::json;

use super::{CRASH_AT, dies, doomed};

fn setup() -> Setup {
    let vars = [("BROKER_WAITING", "on"), ("BROKER_SERVE_EVERY_S", "1"), ("BROKER_VISIBILITY_S", "2")];
    let setup = Setup::new().apis(1).workers(0);
    vars.iter().fold(setup, |setup, (name, value)| setup.var(name, value))
}

/// A request that waits, sent.
async fn asked(broker: &Broker) -> String {
    let call = broker.allocate("student-1").respond_async().json(&json!({ "max_wait_s": 600 }));
    call.send().await.expect_status(202).must_have("location").to_owned()
}

async fn places(broker: &Broker, count: usize) {
    wait_for_condition(&format!("{count} places"), async || {
        let places = broker.table().keys("LINE#").await;
        if places.len() == count { Ok(()) } else { Err(places) }
    })
    .await;
}

/// The request has its sandbox, its key holds no second one, and its place is gone.
async fn is_served(broker: &Broker, location: &str) {
    let ended: Answer = broker.outcome(location, "student-1").await;
    assert_eq!(ended.json["response"]["status"], 201, "{ended:#?}");
    let again = broker.allocate("student-1").send().await.expect_status(200);
    assert_eq!(again.json["sandbox_id"], ended.json["response"]["body"]["sandbox_id"]);
    assert_eq!(broker.stats().await.allocated, 1);
    broker.queues().are_empty().await;
    places(broker, 0).await;
}

async fn a_request_is_parked_whatever_died(point: Point) {
    story(setup(), async |broker| {
        let location = asked(broker).await;
        doomed(broker, point).await;
        dies(broker).await;
        broker.start_worker().await;
        places(broker, 1).await;
        broker.seed(2).await;
        // It may have died with the tick, which is taken for six seconds.
        broker.job("serve").await;
        is_served(broker, &location).await;
    })
    .await;
}

async fn a_place_is_served_whatever_died(point: Point) {
    story(setup(), async |broker| {
        broker.start_worker().await;
        let location = asked(broker).await;
        places(broker, 1).await;
        broker.stop_workers().await;
        broker.seed(2).await;
        doomed(broker, point).await;
        dies(broker).await;
        broker.start_worker().await;
        // It died with the tick, which is taken for six seconds.
        broker.job("serve").await;
        is_served(broker, &location).await;
    })
    .await;
}

#[tokio::test]
async fn a_line_that_was_listed_and_has_no_place_harms_no_request() {
    a_request_is_parked_whatever_died(Point::LineListed).await;
}

#[tokio::test]
async fn a_request_that_was_parked_and_comes_again_keeps_its_place() {
    a_request_is_parked_whatever_died(Point::Parked).await;
}

#[tokio::test]
async fn a_grant_that_was_decided_and_not_written_is_decided_anew() {
    a_place_is_served_whatever_died(Point::BeforeGrant).await;
}

#[tokio::test]
async fn a_grant_whose_reply_was_not_sent_is_found_by_asking() {
    a_place_is_served_whatever_died(Point::Granted).await;
}

#[tokio::test]
async fn a_place_that_was_not_deleted_grants_nothing_more() {
    a_place_is_served_whatever_died(Point::BeforeLeave).await;
}

#[tokio::test]
async fn a_place_whose_handling_panics_is_a_dead_letter_and_its_worker_goes_on() {
    story(setup(), async |broker| {
        broker.start_worker().await;
        let location = asked(broker).await;
        places(broker, 1).await;
        broker.stop_workers().await;
        broker.launch_worker(&[(CRASH_AT, &format!("{}=panic", Point::BeforeGrant.as_str()))]).await;
        broker.seed(2).await;
        broker.holds_letters(1).await;
        assert_eq!(broker.letters(&[]).await[0]["reason"], "panicked");
        let ended: Answer = broker.outcome(&location, "student-1").await;
        assert_eq!(ended.text_of("status"), "failed", "{ended:#?}");
        places(broker, 0).await;
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        is_served(broker, &location).await;
    })
    .await;
}
