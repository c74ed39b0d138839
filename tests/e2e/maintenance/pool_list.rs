//! List of the pool: every sandbox once under every filter, small table or large, and few reads whatever else the table has.

use std::collections::BTreeMap;

use broker_tests::api::{ADMIN_TOKEN, KEY};
use broker_tests::table::text;
use broker_tests::{Broker, Provider, Setup, story};
use http::Method;
use serde_json::Value;

use super::{clean_up_until_deleted, give_back};
use crate::policy;

async fn page(broker: &Broker, query: &str) -> Value {
    let call = broker.balanced().call(Method::GET, &format!("/v1/admin/sandboxes?{query}"));
    call.token(ADMIN_TOKEN).send().await.expect_status(200).json
}

/// The state of each sandbox of all pages of a list.
async fn whole(broker: &Broker, query: &str) -> BTreeMap<String, String> {
    let (mut all, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = page(broker, &format!("{query}{cursor}")).await;
        for sandbox in page["sandboxes"].as_array().expect("sandboxes") {
            let told = |name: &str| sandbox[name].as_str().expect("text").to_owned();
            let twice = all.insert(told("sandbox_id"), told("status"));
            assert_eq!(twice, None, "{query}: {sandbox} is shown twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_of_every_filter_hold_every_sandbox_that_matches_once() {
    every_filter(false).await;
}

#[tokio::test]
async fn pages_of_every_filter_hold_every_sandbox_that_matches_once_in_a_table_that_is_not_small() {
    every_filter(true).await;
}

async fn every_filter(is_large: bool) {
    let provider = Provider::start(23).await;
    story(provider.setup().workers(1), async |broker| {
        broker.job("sync").await;
        let flavours = "[flavour.few]\nprefix = \"few-\"\n[flavour.none]\nprefix = \"none-\"\n";
        policy::apply(broker, flavours).await;
        broker.cli_ok(&["pool", "seed", "--name-prefix", "few", "--start", "900", "--count", "4"]).await;
        give_back(broker, 2).await;
        clean_up_until_deleted(broker, 2).await;
        let own =
            broker.allocate("student").lab("lab").name_prefix("sandbox-").send().await.expect_status(201);
        let second = broker.allocate("student").header(KEY, "second").lab("lab").send().await;
        let second = second.expect_status(201);
        broker.return_sandbox(second.sandbox_id(), "student").send().await.expect_status(200);
        let broken =
            broker.cli_ok(&["pool", "list", "--status", "available", "--limit", "1", "--json"]).await;
        let broken = broken.json::<Value>()[0]["sandbox_id"].as_str().expect("an id").to_owned();
        broker.cli_ok(&["quarantine", "add", &broken, "--why", "smoke"]).await;
        if is_large {
            much_else(broker).await;
        }
        broker.lists_are_current().await;

        let all = whole(broker, "limit=5").await;
        assert_eq!(all.len(), 27, "{all:?}");
        let states =
            ["arriving", "available", "reserved", "allocated", "pending_deletion", "stale", "quarantined"];
        for status in states.into_iter().chain(["deletion_failed", "deleted"]) {
            let expected = all.iter().filter(|(_, state)| *state == status);
            let expected: BTreeMap<_, _> = expected.map(|(id, state)| (id.clone(), state.clone())).collect();
            assert_eq!(whole(broker, &format!("limit=3&status={status}")).await, expected, "{status}");
        }
        let count = |state: &str| all.values().filter(|other| *other == state).count();
        assert_eq!([count("deleted"), count("quarantined"), count("allocated")], [2, 1, 1], "{all:?}");

        // The first page of an owner has the sandbox of its own lease, and only that page.
        let first = page(broker, "limit=1&track=student").await;
        assert_eq!(first["sandboxes"][0]["sandbox_id"], own.sandbox_id(), "{first:#}");
        for filter in ["track=student", "track_name=lab", "track=student&track_name=lab"] {
            let held = whole(broker, &format!("limit=1&{filter}")).await;
            assert!(held.len() == 2 && held.contains_key(own.sandbox_id()), "{filter}: {held:?}");
            assert!(held.contains_key(second.sandbox_id()), "{filter}: {held:?}");
            assert_eq!(whole(broker, &format!("status=allocated&{filter}")).await.len(), 1, "{filter}");
        }
        assert_eq!(whole(broker, "track=nobody").await.len(), 0);

        assert_eq!(whole(broker, "limit=3&flavour=few").await.len(), 4);
        assert_eq!(whole(broker, "limit=3&flavour=any").await.len(), 23);
        assert_eq!(whole(broker, "flavour=none").await.len(), 0);
        assert_eq!(whole(broker, "status=allocated&flavour=few").await.len(), 0);
    })
    .await;
}

/// Something else that the table has: acts of a day, four megabytes of them.
async fn much_else(broker: &Broker) {
    for number in 0..10_u64 {
        let item = [
            ("PK", text("AUDIT#2020-01-01")),
            ("SK", text(&number.to_string())),
            ("why", text(&"-".repeat(390_000))),
        ];
        broker.table().put(item.map(|(name, value)| (name.to_owned(), value)).into()).await;
    }
}

#[tokio::test]
async fn a_page_costs_few_reads_whatever_else_the_table_has() {
    story(Setup::new().apis(1).workers(0).faults(1).pool(120), async |broker| {
        policy::apply(broker, "[flavour.few]\nprefix = \"few-\"\n").await;
        let asked = async |query: &str| {
            let before = broker.proxy().tallies();
            let told = page(broker, query).await;
            let after = broker.proxy().tallies();
            let calls = |operation: &str| after.calls(operation) - before.calls(operation);
            (told, calls("Scan"), calls("Query"), calls("BatchGetItem"))
        };
        // A small table is read whole, and consistently.
        let (_, scans, queries, batches) = asked("limit=50&status=available").await;
        assert_eq!((scans, queries, batches), (1, 0, 0));

        much_else(broker).await;
        for query in ["limit=50", "limit=50&status=available", "limit=50&flavour=any&status=available"] {
            let (told, scans, queries, batches) = asked(query).await;
            assert_eq!(told["sandboxes"].as_array().expect("a page").len(), 50, "{query}");
            // Whether the table is small; two states of sixteen shards at most: what is arriving, and what is available.
            assert!(scans <= 1 && queries <= 32, "{query}: {scans} {queries}");
            // Fifty records, read together: in one call or a few, as they come together.
            assert!(batches <= 50, "{query}: {batches}");
        }
        // A state that nothing is in, and a flavour that has nothing.
        for query in ["status=stale", "status=available&flavour=few"] {
            let (told, scans, queries, _) = asked(query).await;
            assert_eq!(told["next_cursor"], Value::Null, "{query}");
            assert!(scans <= 1 && queries <= 16, "{query}: {scans} {queries}");
        }
    })
    .await;
}
