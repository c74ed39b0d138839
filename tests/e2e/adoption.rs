//! `broker pool adopt`: a table that another tool filled is adopted, once that tool is stopped.

use std::collections::BTreeSet;

use broker_tests::cli::{Output, Stats};
use broker_tests::table::{Item, lease_key, now_s, number, sandbox_key, text};
use broker_tests::{Broker, Fault, Provider, Rule, Setup, story, wait_for_condition};
use serde_json::Value;

/// Neither API nor worker, and nothing in the table.
fn setup() -> Setup {
    Setup::new().apis(0).workers(0)
}

/// A sandbox as the other tool writes it: no version, no allocation id, no lease, no index keys; nulls where nothing is.
fn row(number_of_it: usize, status: &str, more: &[(&str, aws_sdk_dynamodb::types::AttributeValue)]) -> Item {
    let id = format!("csp-{number_of_it:03}");
    let null = aws_sdk_dynamodb::types::AttributeValue::Null(true);
    let base = [
        ("PK", text(&sandbox_key(&id))),
        ("SK", text("META")),
        ("sandbox_id", text(&id)),
        ("name", text(&format!("sandbox-{number_of_it:03}"))),
        ("external_id", text(&format!("identity/accounts/{number_of_it}"))),
        ("status", text(status)),
        ("allocated_to_track", null.clone()),
        ("allocated_at", null),
        ("updated_at", number(now_s() - 1_000)),
        ("notes", text("the other tool's own")),
    ];
    base.into_iter().chain(more.iter().cloned()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One that `track` was given `ago` seconds ago.
fn held(number_of_it: usize, track: &str, ago: u64) -> Item {
    row(
        number_of_it,
        "allocated",
        &[("allocated_to_track", text(track)), ("allocated_at", number(now_s() - ago))],
    )
}

async fn fill(broker: &Broker, rows: impl IntoIterator<Item = Item>) {
    for row in rows {
        broker.table().put(row).await;
    }
}

async fn adopt(broker: &Broker, more: &[&str]) -> Output {
    let args: Vec<_> = ["pool", "adopt", "--json", "--apart-s", "0"].iter().chain(more).copied().collect();
    broker.cli(&args).await
}

#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    assert_eq!(output.code, code, "{output:#?}");
    output.json()
}

#[tokio::test]
async fn a_dry_run_tells_everything_and_writes_nothing() {
    story(setup(), async |broker| {
        let rows = [row(1, "available", &[]), held(2, "student-1", 60), held(3, "student-1", 30)];
        fill(broker, rows.clone()).await;
        let told = report(&adopt(broker, &[]).await, 0);
        assert_eq!((&told["dry_run"], &told["adopted"]), (&true.into(), &0.into()));
        assert_eq!((&told["kept"]["available"], &told["kept"]["allocated"]), (&1.into(), &1.into()));
        assert_eq!(
            (&told["surplus"][0]["sandbox_id"], &told["surplus"][0]["track"]),
            (&"csp-002".into(), &"student-1".into())
        );
        for row in &rows {
            let key = row["PK"].as_s().expect("text");
            assert_eq!(broker.table().must_get(key).await, *row);
        }
        assert_eq!(broker.table().keys("LEASE#").await, Vec::<String>::new());
        report(&adopt(broker, &["--apply", "--confirm"]).await, 0);
    })
    .await;
}

#[tokio::test]
async fn owners_keep_what_they_have_and_the_rest_is_claimed_as_ever() {
    story(setup(), async |broker| {
        let keyed = [
            ("allocated_to_track", text("student-2")),
            ("idempotency_key", text("lab-1")),
            ("allocated_at", number(now_s() - 60)),
            ("track_name", text("kubernetes-101")),
            ("lab_duration_hours", number(2)),
        ];
        let given_back = [
            ("allocated_to_track", text("student-3")),
            ("allocated_at", number(now_s() - 600)),
            ("deletion_requested_at", number(now_s() - 60)),
            ("deletion_reason", text("because")),
        ];
        let rows = [
            row(1, "available", &[]),
            held(2, "student-1", 60),
            row(3, "allocated", &keyed),
            row(4, "pending_deletion", &given_back),
            row(5, "stale", &[]),
            row(6, "deletion_failed", &given_back),
        ];
        fill(broker, rows).await;
        let told = report(&adopt(broker, &["--apply"]).await, 0);
        assert_eq!((&told["adopted"], &told["surplus"]), (&6.into(), &Value::Array(Vec::new())));
        broker.verify().await;
        let one_each = Stats {
            available: 1,
            allocated: 2,
            pending_deletion: 1,
            stale: 1,
            deletion_failed: 1,
            total: 6,
            ..Stats::default()
        };
        assert_eq!(broker.stats().await, one_each);
        let kept = broker.table().must_get(&sandbox_key("csp-002")).await;
        assert_eq!(kept["notes"], text("the other tool's own"), "what is not ours stays");

        broker.start_api().await;
        broker.start_worker().await;
        let first = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(first.sandbox_id(), "csp-002");
        // The adopted request is unknown: any repeat of the key is the same intent.
        let second = broker.allocate("student-2").key("lab-1").lab("another").send().await.expect_status(200);
        assert_eq!((second.sandbox_id(), second.text_of("track_name")), ("csp-003", "kubernetes-101"));
        let hours = second.json["expires_at"].as_u64().zip(second.json["allocated_at"].as_u64());
        assert_eq!(hours.map(|(until, from)| (until - from) / 3_600), Some(2));
        broker.return_sandbox("csp-004", "student-3").send().await.expect_status(200);
        broker.return_sandbox("csp-003", "student-2").send().await.expect_status(200);
        let fresh = broker.allocate("student-4").send().await.expect_status(201);
        assert_eq!(fresh.sandbox_id(), "csp-001");
        broker.allocate("student-5").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
    })
    .await;
}

#[tokio::test]
async fn what_a_track_holds_too_much_is_given_up_only_when_that_is_confirmed() {
    story(setup(), async |broker| {
        let another_key = [
            ("allocated_to_track", text("student-1")),
            ("allocated_at", number(now_s() - 10)),
            ("idempotency_key", text("second-lab")),
        ];
        let traces = [("allocated_at", number(now_s() - 999))];
        fill(broker, [held(1, "student-1", 300), held(2, "student-1", 100), held(3, "student-1", 200)]).await;
        fill(
            broker,
            [row(4, "allocated", &another_key), row(5, "allocated", &[]), row(6, "available", &traces)],
        )
        .await;
        let told = report(&adopt(broker, &["--apply"]).await, 1);
        assert_eq!(told["adopted"], 2, "the newest of a key, and that of another key");
        let surplus = told["surplus"].as_array().expect("a list").iter();
        let surplus: BTreeSet<_> = surplus.filter_map(|surplus| surplus["sandbox_id"].as_str()).collect();
        assert_eq!(surplus, BTreeSet::from(["csp-001", "csp-003", "csp-005", "csp-006"]));
        for left in &surplus {
            let item = broker.table().must_get(&sandbox_key(left)).await;
            assert!(!item.contains_key("state_shard"), "{left} was touched");
        }

        let told = report(&adopt(broker, &["--apply", "--confirm"]).await, 0);
        assert_eq!((&told["adopted"], &told["ours"]), (&4.into(), &2.into()));
        broker.verify().await;
        let expected = Stats { total: 6, allocated: 2, pending_deletion: 4, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        let kept = broker.table().must_get(&lease_key("student-1", "student-1")).await;
        assert_eq!(kept["sandbox_id"], text("csp-002"), "which he was told last");
    })
    .await;
}

#[tokio::test]
async fn a_run_that_ended_midway_is_begun_anew_and_the_third_finds_nothing() {
    story(setup(), async |broker| {
        // The state after an interrupted run: some rows fully adopted, the others not at all.
        fill(broker, [row(1, "available", &[]), held(2, "student-1", 200)]).await;
        report(&adopt(broker, &["--apply"]).await, 0);
        fill(broker, [row(3, "available", &[]), held(4, "student-1", 100), held(5, "student-2", 100)]).await;
        let told = report(&adopt(broker, &["--apply", "--confirm"]).await, 0);
        assert_eq!((&told["ours"], &told["adopted"]), (&2.into(), &3.into()));
        let lease = broker.table().must_get(&lease_key("student-1", "student-1")).await;
        assert_eq!(lease["sandbox_id"], text("csp-002"), "a lease that stands is never moved");
        let third = report(&adopt(broker, &["--apply", "--confirm"]).await, 0);
        assert_eq!((&third["ours"], &third["adopted"]), (&5.into(), &0.into()));
        broker.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_table_in_use_is_refused() {
    story(setup(), async |broker| {
        fill(broker, [row(1, "available", &[]), held(2, "student-1", 60)]).await;
        // The other tool goes on.
        let table = broker.table();
        let writing = tokio::spawn(async move {
            for tick in 0_u64.. {
                table.put(row(1, "available", &[("last_synced", number(tick))])).await;
            }
        });
        let refused = broker.cli(&["pool", "adopt", "--apply", "--apart-s", "1"]).await;
        writing.abort();
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stderr.contains("1 sandboxes changed"), "{refused:#?}");

        // Ours does: an owner who repeats before the lease exists would get a second sandbox.
        broker.start_worker().await;
        let refused = adopt(broker, &["--apply"]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stderr.contains("1 APIs and workers run"), "{refused:#?}");
        assert_eq!(broker.table().keys("LEASE#").await, Vec::<String>::new());
        broker.stop_worker(0).await;
        report(&adopt(broker, &["--apply"]).await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_ours_is_named_and_everything_else_is_taken_over() {
    story(setup(), async |broker| {
        let strange = row(2, "allocated", &[("allocated_to_track", text("a track with blanks"))]);
        fill(broker, [row(1, "available", &[]), strange.clone()]).await;
        let told = report(&adopt(broker, &["--apply"]).await, 1);
        assert!(told["unreadable"][0].as_str().is_some_and(|why| why.contains("csp-002")), "{told:#?}");
        assert_eq!(told["adopted"], 1);
        assert_eq!(broker.table().must_get(&sandbox_key("csp-002")).await, strange);
        broker.table().delete(&sandbox_key("csp-002")).await;
    })
    .await;
}

#[tokio::test]
async fn the_ancestors_table_as_it_is_gets_its_index_and_its_seeders_rows_live_and_die_as_any_other() {
    let provider = Provider::start(0).await;
    story(provider.setup().apis(0).workers(0), async |broker| {
        let table = broker.table();
        table.replace_by_bare().await;
        let seeded = |number: usize| {
            let (id, external) =
                (format!("load-test-sb-{number:04}"), format!("identity/accounts/load-test-{number:04}"));
            let more = [
                ("PK", text(&sandbox_key(&id))),
                ("sandbox_id", text(&id)),
                ("external_id", text(&external)),
            ];
            row(number, "available", &more)
        };
        fill(broker, (1..=30).map(seeded)).await;
        // A dry run warns, nothing is written without the index, and `init` alone says what to do.
        let warned = adopt(broker, &[]).await;
        assert_eq!(report(&warned, 0)["has_index"], false);
        assert!(warned.stderr.contains("init --adopt-table"), "{warned:#?}");
        for refused in [adopt(broker, &["--apply"]).await, broker.cli(&["init"]).await] {
            assert_eq!(refused.code, 1, "{refused:#?}");
            assert!(refused.stderr.contains("init --adopt-table"), "{refused:#?}");
        }
        let ready = broker.cli_ok(&["init", "--adopt-table"]).await;
        assert!(ready.stdout.contains("ready to be taken over"), "{ready:#?}");
        broker.cli_ok(&["init", "--adopt-table"]).await;
        assert_eq!(report(&adopt(broker, &["--apply"]).await, 0)["adopted"], 30);

        broker.start_api().await;
        broker.start_worker().await;
        let mine = broker.allocate("student-1").send().await.expect_status(201);
        assert!(mine.sandbox_id().starts_with("load-test-sb-"), "{mine:#?}");
        broker.return_sandbox(mine.sandbox_id(), "student-1").send().await.expect_status(200);
        broker.job("cleanup").await;
        // The provider never knew it, so there it is gone.
        wait_for_condition("its tombstone", async || {
            let stats = broker.stats().await;
            if stats.deleted == 1 { Ok(()) } else { Err(stats) }
        })
        .await;
        assert_eq!(broker.stats().await, Stats { total: 30, available: 29, deleted: 1, ..Stats::default() });
        broker.cli_ok(&["init"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_table_is_made_ready_though_the_answers_to_its_changes_are_lost() {
    story(setup().faults(1), async |broker| {
        broker.table().replace_by_bare().await;
        for operation in ["UpdateTable", "UpdateTimeToLive"] {
            broker.proxy().add(Rule::new(Fault::LoseResponse).on(operation).times(2));
        }
        let through = [("AWS_ENDPOINT_URL_DYNAMODB", broker.proxy().urls().dynamodb_url.as_str())];
        let ready = broker.cli_with(&["init", "--adopt-table"], &through).await;
        assert!(ready.stdout.contains("ready to be taken over"), "{ready:#?}");
        for operation in ["UpdateTable", "UpdateTimeToLive"] {
            assert_eq!(broker.proxy().done(operation, Fault::LoseResponse), 2, "{operation}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_role_that_may_make_no_queues_makes_the_table_ready_and_is_told_of_the_queues() {
    story(setup().faults(1), async |broker| {
        broker.table().replace_by_bare().await;
        let urls = broker.proxy().urls();
        let through = [
            ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb_url.as_str()),
            ("AWS_ENDPOINT_URL_SQS", urls.sqs_url.as_str()),
        ];
        for operation in ["CreateQueue", "SetQueueAttributes"] {
            broker.proxy().add(Rule::new(Fault::Refuse("AccessDenied")).on(operation));
        }
        // The queues are there and as they should be: neither is needed.
        let ready = broker.cli_with(&["init", "--adopt-table"], &through).await;
        assert_eq!(ready.code, 0, "{ready:#?}");
        broker.table().replace_by_bare().await;
        let queue = broker.queues().name("requests");
        broker.queues().set_attribute(&queue, "DelaySeconds", "90").await;
        let ready = broker.cli_with(&["init", "--adopt-table"], &through).await;
        assert_eq!(ready.code, 1, "{ready:#?}");
        assert!(ready.stdout.contains("ready to be taken over"), "{ready:#?}");
        assert!(ready.stderr.contains("sqs:SetQueueAttributes"), "{ready:#?}");
        broker.cli_ok(&["init"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_removes_items_by_an_attribute_of_its_own_is_refused() {
    story(setup(), async |broker| {
        let table = broker.table();
        table.replace_by_bare().await;
        table.expire_by("expires_at").await;
        let refused = broker.cli(&["init", "--adopt-table"]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stderr.contains("expires_at"), "{refused:#?}");
        table.replace_by_bare().await;
        // What has a ttl of another meaning would be removed: expiry waits until it is taken over.
        fill(broker, [row(1, "available", &[("ttl", number(now_s() - 10))])]).await;
        let told = broker.cli_ok(&["init", "--adopt-table"]).await;
        assert!(told.stderr.contains("expiry stays off"), "{told:#?}");
        report(&adopt(broker, &["--apply"]).await, 0);
        broker.cli_ok(&["init"]).await;
        assert!(!broker.table().must_get(&sandbox_key("csp-001")).await.contains_key("ttl"));
    })
    .await;
}
