//! Accounts of the provider: each is one sandbox, whatever its label, and has one owner at most.

use broker_tests::{Broker, Provider, story};
use serde_json::json;

use super::{clean_up_until_deleted, status};

/// Every sandbox of the table that is this account.
async fn labels(broker: &Broker, external_id: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for key in broker.table().keys("SBX#").await {
        let item = broker.table().must_get(&key).await;
        if item["external_id"].as_s().expect("text").eq_ignore_ascii_case(external_id) {
            labels.push(key.trim_start_matches("SBX#").to_owned());
        }
    }
    labels
}

/// The stand-in's account of this sandbox.
async fn account_of(broker: &Broker, sandbox: &str) -> String {
    broker.shown(sandbox).await["external_id"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_account_that_is_listed_under_another_label_stays_whose_it_is() {
    let provider = Provider::start(4).await;
    story(provider.setup().pool(4), async |broker| {
        let held = broker.allocate("student").name_prefix("sandbox-000002").send().await.expect_status(201);
        let account = account_of(broker, "seed-000002").await;
        provider.relabel(json!({ "seed-000002": "SEED-000002", "seed-000003": "renamed" })).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details.get("doubtful")), (0, Some(&2)), "{report:?}");
        assert!(!report.details.contains_key("allocated_missing"), "{report:?}");
        assert_eq!(labels(broker, &account).await, ["seed-000002"]);
        assert!(broker.logs().matches("SEED-000002").next().is_some(), "the row is named");
        // No other track gets it, and its owner's return deletes his own.
        for student in 0..3 {
            let other = broker.allocate(&format!("other-{student}")).send().await.expect_status(201);
            assert_ne!(other.text_of("external_id"), account);
        }
        broker.allocate("late").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        broker.return_sandbox(held.sandbox_id(), "student").send().await.expect_status(200);
        clean_up_until_deleted(broker, 1).await;
        assert_eq!(status(broker, "seed-000002").await, "deleted");
    })
    .await;
}

#[tokio::test]
async fn accounts_whose_labels_change_places_are_left_alone() {
    let provider = Provider::start(3).await;
    story(provider.setup().pool(3), async |broker| {
        let before = [account_of(broker, "seed-000001").await, account_of(broker, "seed-000002").await];
        provider.relabel(json!({ "seed-000001": "seed-000002", "seed-000002": "seed-000001" })).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["doubtful"]), (0, 2), "{report:?}");
        let after = [account_of(broker, "seed-000001").await, account_of(broker, "seed-000002").await];
        assert_eq!(after, before);
        assert_eq!(broker.stats().await.available, 3);
    })
    .await;
}

#[tokio::test]
async fn an_account_enters_the_pool_once_and_only_if_it_can_be_deleted() {
    let provider = Provider::start(1).await;
    story(provider.setup(), async |broker| {
        let uuid = "0192f0c1-2345-7abc-8def-0123456789ab";
        provider.list("first", &format!("identity/accounts/{uuid}")).await;
        provider.list("second", &format!("identity/accounts/{}", uuid.to_uppercase())).await;
        provider.list("malformed", "identity/accounts/47/11").await;
        provider.list("elsewhere", &format!("accounts/{uuid}")).await;
        for _ in 0..2 {
            let report = broker.job("sync").await;
            assert_eq!(report.details["doubtful"], 3, "{report:?}");
            assert_eq!(broker.stats().await.available, 2, "{report:?}");
        }
        let account = format!("identity/accounts/{uuid}");
        assert_eq!(labels(broker, &account).await, ["first"]);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_account_that_comes_back_under_another_label_is_refused_and_deleted_again() {
    let provider = Provider::start(2).await;
    story(provider.setup().pool(2), async |broker| {
        let gone = broker.allocate("student").name_prefix("sandbox-000001").send().await.expect_status(201);
        broker.return_sandbox(gone.sandbox_id(), "student").send().await.expect_status(200);
        clean_up_until_deleted(broker, 1).await;
        let account = gone.text_of("external_id");
        provider.list("reopened", account).await;
        let tombstone = broker.table().must_get("SBX#seed-000001").await;
        assert!(!tombstone.contains_key("ttl"), "it may come back at any time: {tombstone:?}");
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["doubtful"]), (1, 1), "{report:?}");
        assert_eq!(labels(broker, account).await, ["seed-000001"]);
        assert_eq!(status(broker, "seed-000001").await, "pending_deletion");
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["doubtful"]), (0, 1), "it is on its way: {report:?}");
        clean_up_until_deleted(broker, 1).await;
        assert_eq!(provider.world().await.accounts, ["seed-000000"]);
        // Also under the label of a sandbox that is another account.
        provider.relabel(json!({ "seed-000000": "aside" })).await;
        provider.list("seed-000000", account).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["doubtful"]), (1, 2), "{report:?}");
        assert_eq!(status(broker, "seed-000001").await, "pending_deletion");
        clean_up_until_deleted(broker, 1).await;
        assert_eq!(provider.world().await.accounts, ["aside"]);
        assert_eq!(
            (labels(broker, account).await, broker.stats().await.available),
            (vec!["seed-000001".to_owned()], 1)
        );
    })
    .await;
}
