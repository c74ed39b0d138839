//! Acts of operators that find it so already, or are refused: what the operator is told, and what the audit says of them.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Broker, Setup, story};
use http::Method;
use serde_json::Value;

use crate::policy;

const REFILLED: &str =
    "[flavour.small]\nprefix = \"seed-\"\nrefill = { min = 1, max = 9, rate_per_minute = 60 }\n";

/// What a command says.
async fn says(broker: &Broker, command: &[&str], by: &str) -> String {
    broker.cli_ok(&[command, &["--by", by]].concat()).await.stdout
}

#[tokio::test]
async fn whoever_pauses_what_is_paused_is_told_by_whom_and_since_when_and_changes_neither() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        policy::apply(broker, REFILLED).await;
        for (what, word) in [("pool", None), ("job", Some("cleanup")), ("refill", Some("small"))] {
            let command = |act: &'static str| [what, act].into_iter().chain(word).collect::<Vec<_>>();
            let first = says(broker, &command("pause"), "maria").await;
            assert!(!first.contains("already"), "{first}");
            let again = says(broker, &command("pause"), "ops").await;
            assert!(again.contains("already paused by maria since 20"), "{what}: {again}");
            assert!(!again.contains("ops"), "{what}: {again}");
            let json: Value =
                broker.cli_ok(&[command("pause"), vec!["--json", "--by", "ops"]].concat()).await.json();
            assert_eq!(json["changed"], false, "{what}: {json:#}");
            let resumed = says(broker, &command("resume"), "ops").await;
            assert!(!resumed.contains("nothing was changed"), "{what}: {resumed}");
            let again = says(broker, &command("resume"), "ops").await;
            assert!(again.contains("nothing was changed"), "{what}: {again}");
        }
    })
    .await;
}

#[tokio::test]
async fn over_http_too_who_paused_it_first_stays_with_its_time() {
    let tokens = format!("ops={ADMIN_TOKEN}");
    let setup = Setup::new().apis(1).workers(0).pool(1).var("BROKER_ADMIN_TOKENS", &tokens);
    story(setup, async |broker| {
        policy::apply(broker, REFILLED).await;
        broker.cli_ok(&["job", "pause", "sync", "--by", "maria"]).await;
        broker.cli_ok(&["refill", "pause", "small", "--by", "maria"]).await;
        for path in ["/v1/admin/jobs/sync/pause", "/v1/admin/refill/small/pause"] {
            let told =
                broker.balanced().call(Method::POST, path).token(ADMIN_TOKEN).send().await.expect_status(200);
            assert_eq!(told.json["paused_by"], "maria", "{path}: {:#}", told.json);
            assert!(told.json["paused_at"].is_u64(), "{path}: {:#}", told.json);
        }
        for path in ["/v1/admin/jobs/sync/resume", "/v1/admin/refill/small/resume"] {
            let told =
                broker.balanced().call(Method::POST, path).token(ADMIN_TOKEN).send().await.expect_status(200);
            assert!(
                told.json["paused_by"].is_null() && told.json["paused_at"].is_null(),
                "{path}: {:#}",
                told.json
            );
        }
    })
    .await;
}
