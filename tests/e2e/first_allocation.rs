//! First allocation: a track gets a sandbox.

use broker_tests::cli::Stats;
use broker_tests::{Setup, story};
use serde_json::json;

#[tokio::test]
async fn a_track_gets_a_sandbox_and_can_look_at_it() {
    story(Setup::new().pool(3), async |broker| {
        let answer = broker.allocate("student-1").lab("linux-basics").send().await.expect_status(201);
        let sandbox = answer.sandbox_id();
        assert_eq!(answer.must_have("location"), format!("/v1/sandboxes/{sandbox}"));
        assert_eq!(answer.text_of("track_name"), "linux-basics");
        assert_eq!(answer.text_of("request_id"), answer.must_have("x-request-id"));
        assert!(answer.text_of("name").starts_with("sandbox-"), "{answer:?}");
        assert!(!answer.text_of("external_id").is_empty());
        assert_eq!(answer.number_of("expires_at") - answer.number_of("allocated_at"), 4 * 3600);

        let seen = broker.sandbox(sandbox, "student-1").send().await.expect_status(200);
        for field in ["sandbox_id", "name", "external_id", "track_name", "allocated_at", "expires_at"] {
            assert_eq!(seen.json[field], answer.json[field], "{field}");
        }
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 3, available: 2, allocated: 1, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_track_chooses_how_long_it_keeps_its_sandbox() {
    story(Setup::new().pool(2), async |broker| {
        for (track, hours) in [("shortest", 1), ("longest", 168)] {
            let call = broker.allocate(track).json(&json!({"lab_duration_hours": hours}));
            let answer = call.send().await.expect_status(201);
            assert_eq!(answer.number_of("expires_at") - answer.number_of("allocated_at"), hours * 3600);
            assert!(answer.json["track_name"].is_null(), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_older_owner_header_works_and_the_newer_one_wins() {
    story(Setup::new().pool(2), async |broker| {
        let old = broker.allocate("").without("x-instruqt-sandbox-id").header("x-track-id", "student-1");
        let first = old.send().await.expect_status(201);
        let both = broker.allocate("student-1").header("x-track-id", "somebody-else");
        let again = both.send().await.expect_status(200);
        assert_eq!(first.sandbox_id(), again.sandbox_id());
    })
    .await;
}

#[tokio::test]
async fn ids_of_the_greatest_length_and_every_allowed_character_work() {
    story(Setup::new().pool(1), async |broker| {
        let track = format!("AZaz09._:@-{}", "x".repeat(117));
        assert_eq!(track.len(), 128);
        let call = broker.allocate(&track).key(&track.replace('x', "k")).lab(&track.replace('x', "l"));
        let answer = call.send().await.expect_status(201);
        broker.return_sandbox(answer.sandbox_id(), &track).send().await.expect_status(200);
    })
    .await;
}
