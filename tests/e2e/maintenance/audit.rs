//! Audit: one line for each operation of an operator.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Broker, Setup, story};
use http::Method;
use serde_json::{Value, json};

/// The operator, operation, target and count of each line, in order; yesterday's too, if midnight has just passed.
async fn lines(broker: &Broker) -> Vec<Value> {
    let mut lines = Vec::new();
    for days_ago in ["1", "0"] {
        let day: Value = broker.cli_ok(&["audit", "--days-ago", days_ago, "--json"]).await.json();
        lines.extend(day.as_array().expect("lines").clone());
    }
    assert!(lines.iter().all(|line| line["at_ms"].as_u64().is_some()), "{lines:#?}");
    lines.iter().map(|line| json!([line["who"], line["act"], line["target"], line["count"]])).collect()
}

#[tokio::test]
async fn every_act_of_an_operator_leaves_a_line() {
    story(Setup::new().apis(1).workers(1).pool(3), async |broker| {
        let kept = broker.allocate("student").send().await.expect_status(201);
        let sandbox = kept.sandbox_id();
        broker.cli_ok(&["job", "pause", "census"]).await;
        broker.cli_ok(&["job", "resume", "census"]).await;
        broker.job("purge-stale").await;
        broker.cli_ok(&["sandbox", "extend", sandbox, "--hours", "3"]).await;
        broker.cli_ok(&["sandbox", "release", sandbox]).await;
        broker.cli_ok(&["sandbox", "retry-delete", sandbox]).await;
        let admin = async |path: &str| {
            let call = broker.balanced().call(Method::POST, &format!("/v1/admin/{path}"));
            call.token(ADMIN_TOKEN).send().await.expect_status(200)
        };
        admin("auto-expire").await;
        admin("bulk-delete?status=stale").await;

        // Refused operations and reads leave no line.
        broker.balanced().call(Method::POST, "/v1/admin/auto-expire").send().await.expect_status(403);
        assert_eq!(broker.cli(&["sandbox", "release", sandbox]).await.code, 1, "no track holds it any more");
        broker.shown(sandbox).await;

        let expected = [
            json!(["cli", "seed", "sandbox", 3]),
            json!(["cli", "pause_job", "census", null]),
            json!(["cli", "resume_job", "census", null]),
            json!(["cli", "run_job", "purge_stale after 24 h", null]),
            json!(["cli", "extend", sandbox, 3]),
            json!(["cli", "release", sandbox, null]),
            json!(["cli", "retry_delete", sandbox, null]),
            json!(["ops", "run_job", "expire", null]),
            json!(["ops", "run_job", "bulk_delete stale", null]),
        ];
        assert_eq!(lines(broker).await, expected);
    })
    .await;
}
