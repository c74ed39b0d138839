//! Items of the last release, byte for byte (`tests/fixtures/last_release`): they are read, and what is written today has
//! everything in it that the last release reads. Its messages: `common/messages`.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use broker_tests::api::ADMIN_TOKEN;
use broker_tests::cli::Stats;
use broker_tests::table::{Item, now_s, text};
use broker_tests::{Broker, Setup, story, wait_for_condition};
use http::Method;
use serde_json::Value;

const ITEMS: &str = include_str!("../fixtures/last_release/items.jsonl");

/// The items, as the SDK has them.
fn items() -> Vec<Item> {
    let value = |value: &Value| {
        let (kind, value) = value.as_object().and_then(|typed| typed.iter().next()).expect("one type");
        match (kind.as_str(), value) {
            ("S", Value::String(text)) => AttributeValue::S(text.clone()),
            ("N", Value::String(number)) => AttributeValue::N(number.clone()),
            ("BOOL", Value::Bool(flag)) => AttributeValue::Bool(*flag),
            other => panic!("{other:?}"),
        }
    };
    let item = |line: &str| {
        let fields: serde_json::Map<String, Value> = serde_json::from_str(line).expect("an item");
        fields.iter().map(|(name, told)| (name.clone(), value(told))).collect()
    };
    ITEMS.lines().map(item).collect()
}

fn word<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

/// What an item is: the beginning of its key, and its state.
fn kind(item: &Item) -> String {
    let key = word(item, "PK").split('#').next().expect("a key");
    let state = [word(item, "status"), word(item, "state")].concat();
    let ended = if key == "LEASE" && item.contains_key("ended_at") { "ended" } else { "" };
    format!("{key} {state}{ended}")
}

/// The table of the last release under this broker's name, then `broker init`, as an upgrade asks for.
async fn upgraded(broker: &Broker) {
    for mut item in items() {
        if kind(&item) == "POOL " {
            item.insert("table_name".to_owned(), text(broker.table_name()));
        }
        broker.table().put(item).await;
    }
    broker.cli_ok(&["init"]).await;
}

#[tokio::test]
async fn a_table_of_the_last_release_is_served() {
    story(Setup::new(), async |broker| {
        upgraded(broker).await;
        let expected = Stats {
            total: 12,
            available: 1,
            allocated: 3,
            pending_deletion: 1,
            deleted: 7,
            ..Stats::default()
        };
        assert_eq!(broker.stats().await, expected);
        broker.verify().await;
        for item in items() {
            let (key, track) = (word(&item, "PK"), word(&item, "allocated_to_track"));
            match kind(&item).as_str() {
                state if state.starts_with("SBX ") => {
                    let shown = broker.shown(word(&item, "sandbox_id")).await;
                    assert_eq!(shown["status"], word(&item, "status"), "{shown}");
                }
                "REQ succeeded" | "REQ cancelled" => {
                    let location = key.replace("REQ#", "/v1/requests/");
                    let told = broker.outcome(&location, track).await;
                    assert_eq!(told.text_of("status"), word(&item, "state"));
                }
                "RUN " if item.contains_key("report") => {
                    let run = key.replace("RUN#", "/v1/admin/jobs/");
                    let run = broker.balanced().call(Method::GET, &run).token(ADMIN_TOKEN).send().await;
                    run.expect_status(200);
                }
                _ => {}
            }
        }
        let at = items().iter().find(|item| kind(item) == "AUDIT ").expect("a line")["at_ms"].clone();
        let at: u64 = at.as_n().expect("a number").parse().expect("a time");
        let days = now_s() / 86_400 - at / 86_400_000;
        let audit = broker.cli_ok(&["audit", "--json", "--days-ago", &days.to_string()]).await;
        assert!(audit.json::<Vec<Value>>().len() > 5, "{audit:?}");
        let (dead, discarded) =
            (broker.letters(&["--state", "dead"]).await, broker.letters(&["--state", "discarded"]).await);
        assert_eq!((dead.len(), discarded.len()), (1, 1));

        let held = items().into_iter().find(|item| kind(item) == "SBX allocated").expect("one");
        let (sandbox, track) = (word(&held, "sandbox_id"), word(&held, "allocated_to_track"));
        broker.return_sandbox(sandbox, track).send().await.expect_status(200);
        broker.allocate("student-of-today").send().await.expect_status(201);
        broker.verify().await;
        broker.discard(&["--all"]).await;
    })
    .await;
}

/// The attributes of every item of a kind, with their types.
fn attributes(items: &[Item]) -> BTreeMap<String, BTreeSet<String>> {
    let mut of_kind: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let type_of = |value: &AttributeValue| match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::Bool(_) => "BOOL",
        other => panic!("{other:?}"),
    };
    for item in items {
        let told: BTreeSet<_> =
            item.iter().map(|(name, value)| format!("{name}:{}", type_of(value))).collect();
        of_kind.entry(kind(item)).and_modify(|known| known.retain(|one| told.contains(one))).or_insert(told);
    }
    of_kind
}

#[tokio::test]
async fn what_is_written_today_has_all_that_the_last_release_reads() {
    story(Setup::new().pool(6), async |broker| {
        broker.allocate("holder").send().await.expect_status(201);
        let call = broker.allocate("async").key("key-1").lab("lab").respond_async();
        let location = call.send().await.expect_status(202).must_have("location").to_owned();
        broker.outcome(&location, "async").await;
        let back = broker.allocate("back").send().await.expect_status(201);
        broker.return_sandbox(back.sandbox_id(), "back").send().await.expect_status(200);
        let released = broker.allocate("released").send().await.expect_status(201);
        broker.cli_ok(&["sandbox", "release", released.sandbox_id()]).await;
        broker.job("census").await;
        broker.cli_ok(&["job", "pause", "sync"]).await;
        let queues = broker.queues();
        queues.send(&queues.name("requests"), r#"{"v":1,"body":{"kind":"make_coffee"}}"#).await;
        broker.holds_letters(1).await;
        broker.stop_workers().await;
        let later = broker.allocate("later").respond_async().send().await.expect_status(202);
        let cancelled = broker.allocate("never").respond_async().send().await.expect_status(202);
        broker.cancel(cancelled.must_have("location"), "never").send().await.expect_status(200);

        let table = broker.table();
        let mut written = table.list("INSTANCE").await;
        written.extend(broker.all_letters().await);
        for prefix in ["SBX#", "LEASE#", "REQ#", "RUN#", "TICK#", "CENSUS", "POOL", "AUDIT#"] {
            for key in table.keys(prefix).await {
                written.extend(table.list(&key).await);
            }
        }
        let (then, now) = (attributes(&items()), attributes(&written));
        for of in [
            "SBX available",
            "SBX allocated",
            "SBX pending_deletion",
            "LEASE ",
            "LEASE ended",
            "REQ queued",
            "REQ succeeded",
            "REQ cancelled",
            "RUN ",
            "CENSUS ",
            "POOL ",
            "INSTANCE ",
            "AUDIT ",
            "DEAD dead",
        ] {
            let missing: Vec<_> = then[of].difference(&now[of]).collect();
            assert!(missing.is_empty(), "{of}: {missing:?} of {:?}", now[of]);
        }
        broker.start_worker().await;
        wait_for_condition("the request to end", async || {
            let told = broker.request(later.must_have("location"), "later").send().await;
            if told.text_of("status") == "queued" { Err(told) } else { Ok(()) }
        })
        .await;
        broker.discard(&["--all"]).await;
    })
    .await;
}
