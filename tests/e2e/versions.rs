//! Messages of a newer version, while old workers still run: they wait for a newer worker.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::queues::Depth;
use broker_tests::table::{Item, lease_key, now_s, number, sandbox_key, text};
use broker_tests::{Broker, Setup, story, wait_for_condition};
use http::Method;
use serde_json::Value;

/// How many receives SQS grants a message before it is a dead letter.
const RECEIVES: usize = 5;

#[tokio::test]
async fn a_message_of_a_newer_version_is_put_back_and_never_dead_lettered() {
    const NEWER: &str = "{\"v\": 2, \"what\": \"nobody here knows\"}";
    story(Setup::new().workers(2).pool(1), async |broker| {
        let queues = broker.queues();
        queues.send(&queues.name("requests"), NEWER).await;
        wait_for_condition("it to be put back more often than redrive allows", async || {
            let put_back = broker.logs().matches("message of a newer version put back").count();
            if put_back > RECEIVES { Ok(()) } else { Err(put_back) }
        })
        .await;
        assert_eq!(queues.depth(&queues.name("requests-dlq")).await, Depth::default());
        broker.allocate("student-1").send().await.expect_status(201);

        broker.stop_workers().await;
        let left = queues.take(&queues.name("requests"), 1).await;
        assert_eq!(left[0].body(), Some(NEWER));
    })
    .await;
}

#[tokio::test]
async fn what_no_worker_could_read_for_long_is_a_dead_letter_and_is_replayed_as_if_it_were_new() {
    const NEWER: &str = "{\"v\": 2, \"what\": \"nobody here knows\"}";
    story(Setup::new().workers(1), async |broker| {
        let queues = broker.queues();
        let two_hours_ago = (broker_tests::table::now_s() - 7_200) * 1_000;
        let since = two_hours_ago.to_string();
        for queue in ["requests", "maintenance"] {
            queues.send_marked(&queues.name(queue), NEWER, "put_back_since_ms", &since).await;
        }
        broker.holds_letters(2).await;
        assert_eq!(broker.letters(&["--reason", "newer_version"]).await.len(), 2);
        // Sent again it waits anew.
        broker.replay(&["--all"]).await;
        wait_for_condition("both to be put back", async || {
            let put_back = broker.logs().matches("message of a newer version put back").count();
            if put_back >= 2 { Ok(()) } else { Err(put_back) }
        })
        .await;
        broker.stop_workers().await;
        assert_eq!(broker.open_letters().await.len(), 0);
        for queue in ["requests", "maintenance"] {
            queues.take(&queues.name(queue), 1).await;
        }
    })
    .await;
}

/// Writes `item` with these attributes in place of its own.
async fn rewrite(broker: &Broker, mut item: Item, attributes: &[(&str, &str)]) -> Item {
    item.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))));
    broker.table().put(item.clone()).await;
    item
}

#[tokio::test]
async fn an_end_for_a_reason_of_a_newer_program_is_an_end() {
    story(Setup::new().pool(2), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        broker.return_sandbox(held.sandbox_id(), "student").send().await.expect_status(200);
        let table = broker.table();
        let lease = table.must_get(&lease_key("student", "student")).await;
        let sandbox = table.must_get(&sandbox_key(held.sandbox_id())).await;
        rewrite(broker, lease, &[("end_reason", "confiscated")]).await;
        let sandbox = rewrite(broker, sandbox, &[("deletion_reason", "confiscated")]).await;

        broker.allocate("student").send().await.expect_status(201);
        let shown = broker.shown(held.sandbox_id()).await;
        assert_eq!(shown["deletion_reason"], "unknown", "{shown}");
        broker.verify().await;
        assert_eq!(table.must_get(&sandbox_key(held.sandbox_id())).await, sandbox);
        assert_eq!(broker.open_letters().await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_in_a_state_of_a_newer_program_is_shown_counted_and_left_alone() {
    story(Setup::new().pool(3).var("BROKER_WAIT_S", "1"), async |broker| {
        let held = broker.allocate("student").wait(30).send().await.expect_status(201);
        let id = held.sandbox_id().to_owned();
        let newer = [("status", "suspended"), ("state_shard", "suspended#00"), ("state_key", "x")];
        let item = rewrite(broker, broker.table().must_get(&sandbox_key(&id)).await, &newer).await;

        // Only a newer worker can tell what a return of it means: the message waits for one.
        broker.return_sandbox(&id, "student").wait(1).send().await.expect_status(202);
        wait_for_condition("it to be put back", async || {
            let put_back = broker.logs().matches("message of a newer version put back").count();
            if put_back >= 1 { Ok(()) } else { Err(put_back) }
        })
        .await;
        let again = broker.allocate("student").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), id);
        broker.sandbox(&id, "student").send().await.expect_status(200);
        for job in ["expire", "purge-stale", "sweep", "census"] {
            broker.job(job).await;
        }
        broker.verify().await;
        let stats = broker.balanced().call(Method::GET, "/v1/admin/stats").token(ADMIN_TOKEN).send().await;
        let stats = stats.expect_status(200);
        assert_eq!((stats.number_of("unknown"), stats.number_of("total")), (1, 3), "{stats:?}");
        let list = broker.cli_ok(&["pool", "list", "--json", "--limit", "100"]).await;
        assert!(list.stdout.contains(r#""unknown""#), "{list:?}");

        assert_eq!(broker.table().must_get(&sandbox_key(&id)).await, item);
        assert_eq!(broker.open_letters().await.len(), 0);
        broker.stop_workers().await;
        broker.queues().take(&broker.queues().name("requests"), 1).await;
    })
    .await;
}

#[tokio::test]
async fn words_of_a_newer_program_in_the_records_are_unknown_and_no_error() {
    story(Setup::new().pool(1), async |broker| {
        let table = broker.table();
        // An ended request, whose outcome this program does not know.
        let call = broker.allocate("student").respond_async();
        let location = call.send().await.expect_status(202).must_have("location").to_owned();
        broker.outcome(&location, "student").await;
        let request = format!("REQ#{}", location.rsplit('/').next().expect("an id"));
        let outcome = r#"{"outcome":"parked","line":7}"#;
        let state = [("state", "waiting"), ("outcome", outcome)];
        let request_item = rewrite(broker, table.must_get(&request).await, &state).await;
        let told = broker.request(&location, "student").send().await.expect_problem(503, "UNAVAILABLE");
        told.must_have("retry-after");

        // A process whose kind it does not know, long silent.
        let mut instance = table.list("INSTANCE").await.remove(0);
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        instance.insert("heartbeat_ms".to_owned(), number((now_s() - 3_600) * 1_000));
        let instance = rewrite(broker, instance, &[("SK", id), ("process_role", "scheduler")]).await;
        for _ in 0..3 {
            broker.job("sweep").await;
        }
        assert_eq!(table.get_at("INSTANCE", id).await, Some(instance));
        broker.cli_ok(&["queues"]).await;

        // An operation, and dead letters.
        broker.cli_ok(&["job", "pause", "sync"]).await;
        let day = table.keys("AUDIT#").await.remove(0);
        rewrite(broker, table.list(&day).await.remove(0), &[("act", "hibernate")]).await;
        let audit: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        assert_eq!(audit[0]["act"], "unknown", "{audit:?}");

        let queues = broker.queues();
        queues.send(&queues.name("requests"), "no message").await;
        broker.holds_letters(1).await;
        let letter = broker.all_letters().await.remove(0);
        let letter =
            rewrite(broker, letter, &[("letter_source", "lines"), ("reason_code", "not_in_line")]).await;
        let told = broker.letters(&["--reason", "unknown"]).await;
        assert!(told[0]["reason_text"].as_str().expect("text").starts_with("not_in_line: "), "{told:?}");
        assert_eq!(broker.replay(&["--all"]).await.skipped, 1);
        assert_eq!(broker.all_letters().await, std::slice::from_ref(&letter));
        let letter = rewrite(broker, letter, &[("state", "archived")]).await;
        assert_eq!(broker.letters(&["--state", "unknown"]).await.len(), 1);
        assert_eq!(broker.letters(&[]).await.len(), 0);
        assert_eq!(broker.replay(&["--all"]).await.found, 0);
        broker.job("census").await;
        assert_eq!(broker.all_letters().await, [letter]);
        assert_eq!(table.must_get(&request).await, request_item);
    })
    .await;
}
