//! Crashes of `broker pool reshard`: SIGKILL between any two writes; the same command, run again, continues.

use broker_runtime::crash_points::Point;
use broker_tests::table::number;
use broker_tests::{Broker, Setup, story};
use serde_json::Value;

use super::CRASH_AT;

const SHARDS: &str = "BROKER_STATE_SHARDS";

/// Every command and process with 16 shards is refused: the table is on its way, or has arrived.
async fn is_closed(broker: &Broker) {
    for command in [&["pool", "stats"][..], &["worker"], &["api"]] {
        let told = broker.cli_with(command, &[("BROKER_LOCAL", "true")]).await;
        assert_eq!(told.code, 2, "{command:?}: {told:#?}");
        assert!(told.stderr.contains(SHARDS), "{command:?}: {told:#?}");
    }
}

async fn reshard(broker: &Broker, to: &str) -> Value {
    broker.cli_ok(&["pool", "reshard", "--to", to, "--apply", "--by", "maria", "--json"]).await.json()
}

#[tokio::test]
async fn a_table_whose_reshard_dies_anywhere_stays_closed_until_the_next_one_is_done() {
    story(Setup::new().apis(1).workers(1).pool(30), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        let back = broker.allocate("student-2").send().await.expect_status(201);
        broker.return_sandbox(back.sandbox_id(), "student-2").send().await.expect_status(200);
        let alive = broker.cli(&["pool", "reshard", "--to", "5", "--apply"]).await;
        assert_eq!(alive.code, 1, "{alive:#?}");
        assert!(alive.stderr.contains("1 APIs and 1 workers are alive"), "{alive:#?}");
        let counted: Value = broker.cli_ok(&["pool", "reshard", "--to", "5", "--json"]).await.json();
        assert_eq!(counted["listed"], 30);
        assert_eq!(broker.table().must_get("POOL").await["state_shards"], number(16), "nothing was written");

        broker.stop_workers().await;
        broker.stop_apis().await;
        let command = ["pool", "reshard", "--to", "5", "--apply"];
        for point in [Point::ReshardBegun, Point::ReshardStepped, Point::Resharded] {
            let order = format!("{}=kill", point.as_str());
            let output = broker.cli_with(&command, &[(CRASH_AT, &order)]).await;
            assert_eq!(output.code, -1, "it was not killed at {order}: {output:#?}");
            is_closed(broker).await;
        }
        assert_eq!(reshard(broker, "5").await["moved"], 0, "the last one moved everything");
        is_closed(broker).await;
        let verified = broker.cli_with(&["pool", "verify"], &[(SHARDS, "5")]).await;
        assert_eq!(verified.code, 0, "{verified:#?}");

        // Killed midway and taken back: everything is where it was.
        let order = format!("{}=kill", Point::ReshardStepped.as_str());
        broker.cli_with(&["pool", "reshard", "--to", "50", "--apply"], &[(CRASH_AT, &order)]).await;
        assert!(reshard(broker, "16").await["moved"].as_u64().is_some_and(|moved| moved > 0));
        broker.verify().await;
        broker.start_api().await;
        broker.start_worker().await;
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), held.sandbox_id());
        for student in 3..31 {
            broker.allocate(&format!("student-{student}")).send().await.expect_status(201);
        }
        broker.allocate("student-99").send().await.expect_status(409);
        let audit: Value = broker.cli_ok(&["audit", "--json"]).await.json();
        let lines = audit.as_array().expect("lines").iter();
        let by_maria = lines.filter(|line| line["who"] == "maria" && line["act"] == "reshard").count();
        assert_eq!(by_maria, 2, "{audit:#}");
    })
    .await;
}
