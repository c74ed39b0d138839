//! Settings that the data depends on are stored with it: a process with other settings than the table's refuses to start.

use broker_tests::process::Process;
use broker_tests::table::{number, sandbox_key, text};
use broker_tests::{Broker, Fault, Outage, Provider, Rule, Setup, ShapedService, story, wait_for_condition};
use nix::sys::signal::Signal;
use serde_json::json;

/// Every command that reads the table refuses these settings, and names the one that is wrong.
async fn refused(broker: &Broker, vars: &[(&str, &str)], setting: &str) {
    let vars: Vec<_> = vars.iter().copied().chain([("BROKER_LOCAL", "true")]).collect();
    for command in [&["pool", "stats"][..], &["pool", "verify"], &["init"], &["api"], &["worker"]] {
        let told = broker.cli_with(command, &vars).await;
        assert_eq!(told.code, 2, "{command:?}: {told:#?}");
        assert!(told.stderr.contains(setting), "{command:?}: {told:#?}");
    }
}

#[tokio::test]
async fn other_shards_or_queues_than_the_table_s_are_refused_by_every_process() {
    story(Setup::new().apis(0).workers(1).pool(40), async |broker| {
        refused(broker, &[("BROKER_STATE_SHARDS", "8")], "BROKER_STATE_SHARDS").await;
        refused(broker, &[("BROKER_PREFIX", "elsewhere")], "BROKER_PREFIX").await;
        let doctor = broker.cli_with(&["doctor"], &[("BROKER_STATE_SHARDS", "8")]).await;
        assert_eq!(doctor.code, 1, "{doctor:#?}");
        assert!(doctor.stdout.contains("set it to 16"), "{doctor:#?}");
        broker.cli_ok(&["pool", "stats"]).await;
    })
    .await;
}

#[tokio::test]
async fn an_api_that_learns_late_that_its_shards_are_not_the_table_s_ends_as_one_that_knows_at_its_start() {
    story(Setup::new().apis(0).workers(0).faults(1), async |broker| {
        let away = broker.proxy().outage(ShapedService::DynamoDb, Outage::Refused);
        let mut api = Process::start("broker-api", broker.api_command().env("BROKER_STATE_SHARDS", "8"));
        api.listening("api listening").await;
        drop(away);
        assert_eq!(api.ended().await.code(), Some(2), "{}", api.tail());
        assert!(api.log().contains("broker-api: BROKER_STATE_SHARDS: is 8"), "{}", api.tail());
        assert_eq!(broker.table().instances().await, [""; 0], "it is not listed any more");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_drains_is_alive_to_who_would_change_the_shards() {
    let provider = Provider::start(2).await;
    let setup = provider.setup().workers(1).pool(2).var("BROKER_PROVIDER_TIMEOUT_S", "15");
    story(setup, async |broker| {
        let lent = broker.allocate("student-1").send().await.expect_status(201);
        broker.return_sandbox(lent.sandbox_id(), "student-1").send().await.expect_status(200);
        broker.stop_apis().await;
        provider.misbehave(json!({ "delete": { "delay_ms": 10_000, "times": 1 } })).await;
        broker.job("cleanup").await;
        wait_for_condition("the deletion to be under way", async || match provider.world().await.deletes {
            0 => Err(0),
            _ => Ok(()),
        })
        .await;
        broker.worker(0).signal(Signal::SIGTERM);
        wait_for_condition("the worker to drain", async || {
            match broker.worker(0).metrics().probe("/readyz").await {
                Some((503, _)) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let told = broker.cli(&["pool", "reshard", "--to", "5", "--apply"]).await;
        assert!(told.code == 1 && told.stderr.contains("0 APIs and 1 workers are alive"), "{told:#?}");
        let ended = broker.worker_mut(0).process().ended().await;
        assert!(ended.success(), "{ended}");
        broker.kill_worker(0);
        assert_eq!(broker.table().instances().await, [""; 0], "it has ended, and is not listed any more");
        assert_eq!(broker.shown(lent.sandbox_id()).await["status"], "deleted");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_cannot_read_the_table_s_settings_writes_nothing() {
    story(Setup::new().apis(0).workers(0).pool(1).faults(1), async |broker| {
        let url = broker.proxy().urls().dynamodb_url.clone();
        let of_others = [("AWS_ENDPOINT_URL_DYNAMODB", url.as_str()), ("BROKER_STATE_SHARDS", "8")];
        let seed = ["pool", "seed", "--start", "5", "--count", "1"];
        // Later than a command would wait for its first answer.
        broker.proxy().add(Rule::new(Fault::LateResponse).on("GetItem").containing("POOL").times(3));
        let refused = broker.cli_with(&seed, &of_others).await;
        assert!(refused.code == 2 && refused.stderr.contains("BROKER_STATE_SHARDS"), "{refused:#?}");
        broker.proxy().calm();
        broker.proxy().add(Rule::new(Fault::Refuse("ValidationException")).on("GetItem").containing("POOL"));
        let unknown = broker.cli_with(&seed, &of_others).await;
        assert!(unknown.code == 1 && unknown.stderr.contains("is not known"), "{unknown:#?}");
        broker.proxy().calm();
        assert_eq!(broker.stats().await.total, 1);
    })
    .await;
}

#[tokio::test]
async fn a_table_of_an_older_version_is_bound_to_the_shards_that_its_sandboxes_have() {
    story(Setup::new().apis(0).workers(0).pool(40), async |broker| {
        let mut pool = broker.table().must_get("POOL").await;
        for name in ["state_shards", "queue_prefix"] {
            assert!(pool.remove(name).is_some(), "{name} is not there: {pool:?}");
        }
        broker.table().put(pool).await;
        let told = broker.cli_with(&["init"], &[("BROKER_STATE_SHARDS", "8")]).await;
        assert_eq!(told.code, 2, "{told:#?}");
        broker.cli_ok(&["init"]).await;
        let pool = broker.table().must_get("POOL").await;
        assert_eq!(pool["state_shards"], number(16));
    })
    .await;
}

#[tokio::test]
async fn verify_judges_where_a_sandbox_stands_in_the_index() {
    story(Setup::new().apis(0).workers(0).pool(3), async |broker| {
        let table = broker.table();
        let key = sandbox_key("seed-000001");
        let before = table.must_get(&key).await;
        for (name, wrong) in [
            ("state_shard", text("available#99")),
            ("state_shard", text("stale#15")),
            ("state_key", text("another name")),
        ] {
            let mut item = before.clone();
            item.insert(name.to_owned(), wrong);
            table.put(item).await;
            let found = broker.violations().await;
            assert!(found.iter().any(|violation| violation.kind == "misplaced"), "{name}: {found:#?}");
        }
        let mut item = before.clone();
        item.remove("state_shard");
        table.put(item).await;
        assert!(broker.violations().await.iter().any(|violation| violation.kind == "misplaced"));
        table.put(before).await;
    })
    .await;
}
