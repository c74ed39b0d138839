//! Idempotency key: it deduplicates an intent of one track, and is separate from other tracks' keys.

use broker_tests::{Setup, story};
use serde_json::json;

#[tokio::test]
async fn two_tracks_with_the_same_key_get_two_sandboxes_and_nothing_of_each_other() {
    story(Setup::new().pool(5), async |broker| {
        let one = broker.allocate("student-1").key("shared").lab("lab-one").send().await.expect_status(201);
        let two = broker.allocate("student-2").key("shared").lab("lab-two").send().await.expect_status(201);
        assert_ne!(one.sandbox_id(), two.sandbox_id());
        for other in ["student-1", "lab-one", one.sandbox_id(), one.text_of("name")] {
            assert!(!two.text.contains(other), "{two:#?}");
        }
        broker.sandbox(one.sandbox_id(), "student-2").send().await.expect_problem(403, "NOT_SANDBOX_OWNER");
        broker
            .return_sandbox(one.sandbox_id(), "student-2")
            .send()
            .await
            .expect_problem(403, "NOT_SANDBOX_OWNER");

        let again = broker.allocate("student-1").key("shared").lab("lab-one").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), one.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn one_track_with_two_keys_gets_two_sandboxes() {
    story(Setup::new().pool(5), async |broker| {
        let mut sandboxes = Vec::new();
        for key in ["first", "second"] {
            let answer = broker.allocate("student-1").key(key).send().await.expect_status(201);
            sandboxes.push(answer.sandbox_id().to_owned());
        }
        assert_ne!(sandboxes[0], sandboxes[1]);
        for (key, sandbox) in [("first", &sandboxes[0]), ("second", &sandboxes[1])] {
            let again = broker.allocate("student-1").key(key).send().await.expect_status(200);
            assert_eq!(again.sandbox_id(), sandbox);
        }
        broker.return_sandbox(&sandboxes[0], "student-1").send().await.expect_status(200);
        let second = broker.allocate("student-1").key("second").send().await.expect_status(200);
        assert_eq!(second.sandbox_id(), sandboxes[1]);
    })
    .await;
}

#[tokio::test]
async fn a_quoted_key_is_the_same_key() {
    story(Setup::new().pool(2), async |broker| {
        let plain = broker.allocate("student-1").key("intent").send().await.expect_status(201);
        let quoted = broker.allocate("student-1").key("\"intent\"").send().await.expect_status(200);
        assert_eq!(plain.sandbox_id(), quoted.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn an_explicit_key_with_another_request_is_refused_until_its_lease_ends() {
    story(Setup::new().pool(3), async |broker| {
        let call =
            broker.allocate("student-1").key("intent").lab("lab-one").json(&json!({"lab_duration_hours": 2}));
        let first = call.clone().send().await.expect_status(201);
        let others = [
            call.clone().lab("lab-two"),
            call.clone().without("x-instruqt-track-id"),
            call.clone().name_prefix("sandbox"),
            call.clone().json(&json!({"lab_duration_hours": 3})),
            broker.allocate("student-1").key("intent").lab("lab-one"),
        ];
        for other in others {
            other.send().await.expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
        }
        let same_body = call.clone().body("{ \"lab_duration_hours\" : 2 }");
        let again = same_body.send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());

        broker.return_sandbox(first.sandbox_id(), "student-1").send().await.expect_status(200);
        let anew = call.lab("lab-two").send().await.expect_status(201);
        assert_ne!(anew.sandbox_id(), first.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn a_defaulted_key_is_never_reused() {
    story(Setup::new().pool(2), async |broker| {
        let first = broker.allocate("student-1").lab("lab-one").send().await.expect_status(201);
        let other = broker.allocate("student-1").lab("lab-two").json(&json!({"lab_duration_hours": 9}));
        let again = other.send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
        assert_eq!(again.text_of("track_name"), "lab-one");
    })
    .await;
}
