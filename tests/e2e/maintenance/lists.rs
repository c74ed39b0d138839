//! Reading of the provider's list: leniently row by row, strictly as a whole.

use broker_tests::cli::{JobReport, Stats};
use broker_tests::table::{now_s, number};
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use serde_json::{Value, json};

use super::status;

fn quiet(setup: Setup) -> Setup {
    setup.apis(1).workers(1)
}

async fn synced(broker: &Broker, provider: &Provider, list: Value) -> (JobReport, Stats) {
    provider.misbehave(json!({ "list": list })).await;
    (broker.job("sync").await, broker.stats().await)
}

/// Everything that a member of a row may be instead of a text.
fn no_texts() -> [Value; 7] {
    [json!(null), json!(4711), json!(true), json!([]), json!({ "a": 1 }), json!(""), json!("x".repeat(600))]
}

#[tokio::test]
async fn a_row_that_names_its_sandbox_keeps_it_whatever_else_it_says() {
    let provider = Provider::start_with(8, &["--page-size", "3"]).await;
    story(quiet(provider.setup().pool(8)), async |broker| {
        for member in ["id", "name", "account_type", "state", "csp_id"] {
            for bad in no_texts() {
                // Another word is no unreadable one.
                if matches!(member, "account_type" | "state")
                    && bad.as_str().is_some_and(|word| !word.is_empty())
                {
                    continue;
                }
                let rows = json!({ "seed-000003": { (member): bad } });
                let (report, stats) = synced(broker, &provider, json!({ "rows": rows })).await;
                assert_eq!((stats.available, stats.stale), (8, 0), "{rows}: {report:?}");
                assert_eq!(report.details.get("unreadable_rows"), Some(&1), "{rows}: {report:?}");
            }
        }
        for time in [json!(1_795_873_861), json!(true), json!([]), json!("yesterday")] {
            let rows = json!({ "*": { "created_at": time } });
            let (report, stats) = synced(broker, &provider, json!({ "rows": rows })).await;
            assert_eq!((stats.available, stats.stale), (8, 0), "{rows}: {report:?}");
        }
        for (member, word) in [("state", "ACTIVE"), ("account_type", " Sandbox")] {
            let (report, stats) =
                synced(broker, &provider, json!({ "rows": { "*": { (member): word } } })).await;
            assert_eq!((report.changed, stats.available), (0, 8), "{report:?}");
        }
        let log = broker.worker_mut(0).process().log();
        assert!(log.contains("cannot be read") && log.contains("seed-000003"), "{log}");
        let metrics = broker.worker(0).metrics().probe("/metrics").await.expect("metrics").1;
        assert!(metrics.contains("broker_sync_unreadable_rows 0"), "{metrics}");
        // A row that says something else is believed.
        let (_, stats) =
            synced(broker, &provider, json!({ "rows": { "seed-000003": { "state": "deleting" } } })).await;
        assert_eq!((stats.available, stats.stale), (7, 1));
    })
    .await;
}

#[tokio::test]
async fn rows_that_name_nobody_are_no_empty_list_and_nothing_is_missing_beside_them() {
    let provider = Provider::start(10).await;
    story(quiet(provider.setup().pool(10)), async |broker| {
        let nameless = json!({ "*": { "csp_id": null, "id": null } });
        let (report, stats) = synced(broker, &provider, json!({ "rows": nameless })).await;
        assert_eq!((report.found, report.details["unreadable_rows"]), (10, 10), "{report:?}");
        assert_eq!((report.details["missing_not_believed"], stats.available), (10, 10), "{report:?}");

        let list = json!({ "forget": ["seed-000001"], "more_rows": [null] });
        let (report, stats) = synced(broker, &provider, list).await;
        assert_eq!((report.details["missing_not_believed"], stats.stale), (1, 0), "{report:?}");
        // Rows of other tools are no reason.
        let list = json!({ "forget": ["seed-000001"], "more_rows": [{ "account_type": "person" }] });
        let (report, stats) = synced(broker, &provider, list).await;
        assert_eq!((report.details["made_stale"], stats.stale), (1, 1), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn the_next_page_may_be_named_in_any_way_that_means_this_provider() {
    let provider = Provider::start_with(7, &["--page-size", "2"]).await;
    story(quiet(provider.setup().pool(7)), async |broker| {
        for (next, last) in [
            ("?page={page}", json!("")),
            ("/current_user/accounts?page={page}", json!("  ")),
            ("accounts?page={page}", json!(null)),
            ("../current_user/./accounts?page={page}#rows", json!("")),
            ("//{host}:{port}/current_user/accounts?page={page}", json!("")),
            ("HTTP://{host}:{port}/current_user/accounts?page={page}", json!("")),
            ("http://{host}.:{port}/current_user/accounts?page={page}", json!("")),
            ("http://someone:secret@{host}:{port}/current_user/accounts?page={page}", json!("")),
        ] {
            let before = provider.world().await.lists;
            let (report, stats) = synced(broker, &provider, json!({ "next": next, "last": last })).await;
            assert_eq!((report.found, report.changed, stats.available), (7, 0, 7), "{next}: {report:?}");
            assert_eq!(provider.world().await.lists - before, 4, "{next}");
        }
        for next in [
            "http://elsewhere.invalid/current_user/accounts?page={page}",
            "//elsewhere.invalid/x?page={page}",
            "http://{host}:1/current_user/accounts?page={page}",
            "https://{host}:{port}/current_user/accounts?page={page}",
            "?page=1",
            "#",
            "http://[",
        ] {
            provider.misbehave(json!({ "list": { "next": next } })).await;
            let refused = broker.job_refused("sync").await;
            assert_eq!((refused.changed, broker.stats().await.available), (0, 7), "{next}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_that_counts_otherwise_or_shifts_makes_nothing_stale() {
    let provider = Provider::start_with(20, &["--page-size", "6"]).await;
    story(quiet(provider.setup().pool(20)), async |broker| {
        for list in [
            json!({ "forget": ["seed-000004"], "count": 20 }),
            json!({ "forget": ["seed-000004"], "count": " 20 " }),
            json!({ "forget": ["seed-000004"], "count": 19.5 }),
            json!({ "no_next": true, "count": true }),
            json!({ "forget": ["seed-000004"], "shift": 1 }),
            json!({ "shift": -1, "count": true }),
        ] {
            let before = provider.world().await.lists;
            let (report, stats) = synced(broker, &provider, list.clone()).await;
            assert_eq!((stats.available, stats.stale), (20, 0), "{list}: {report:?}");
            assert!(report.details["missing_not_believed"] > 0, "{list}: {report:?}");
            assert!(provider.world().await.lists > before + 1, "{list}: asked for once more");
        }
        for list in [
            json!({ "count": true }),
            json!({ "double": true }),
            json!({ "reorder": true }),
            json!({ "shift": 1 }),
        ] {
            let (report, stats) = synced(broker, &provider, list.clone()).await;
            assert_eq!((report.changed, stats.available), (0, 20), "{list}: {report:?}");
        }
        // Forgotten once is not missing, forgotten twice is.
        let (report, _) = synced(broker, &provider, json!({ "forget": ["seed-000004"], "times": 4 })).await;
        assert_eq!((report.changed, report.skipped), (0, 0), "{report:?}");
        let (report, stats) =
            synced(broker, &provider, json!({ "forget": ["seed-000004"], "count": true })).await;
        assert_eq!((report.details["made_stale"], stats.stale), (1, 1), "{report:?}");
        assert_eq!(status(broker, "seed-000004").await, "stale");
        let (report, _) = synced(broker, &provider, json!({})).await;
        assert_eq!(report.details["refreshed_or_returned"], 1, "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_page_is_refused_and_says_what_to_look_at() {
    let provider = Provider::start_with(6, &["--page-size", "2"]).await;
    story(quiet(provider.setup().pool(6)), async |broker| {
        for (list, why) in [
            (json!({ "html": true }), "BROKER_PROVIDER_URL"),
            (json!({ "status": 404 }), "BROKER_PROVIDER_URL"),
            (json!({ "status": 401 }), "BROKER_PROVIDER_TOKEN"),
            (json!({ "status": 403 }), "BROKER_PROVIDER_TOKEN"),
            (
                json!({ "status": 301, "location": "https://elsewhere.invalid/api" }),
                "https://elsewhere.invalid",
            ),
            (json!({ "padding": 4 * 1024 * 1024 }), "4 MiB"),
            (json!({ "last": 7 }), "page 3: its next is a number"),
            (json!({ "status": 503, "retry_after_s": 600 }), "600 s"),
        ] {
            provider.misbehave(json!({ "list": list })).await;
            let refused = broker.job_refused("sync").await;
            let told = refused.aborted.as_deref().unwrap_or_default();
            assert!(told.contains(why), "{list}: {told}");
            assert_eq!((refused.changed, broker.stats().await.available), (0, 6), "{list}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_wants_a_rest_before_every_page_is_listed_to_the_end() {
    let provider = Provider::start_with(18, &["--page-size", "2"]).await;
    story(quiet(provider.setup()), async |broker| {
        let rest = json!({ "list": { "every": 2, "status": 429, "retry_after": "0" } });
        provider.misbehave(rest).await;
        let report = broker.job("sync").await;
        assert_eq!(
            (report.found, report.changed),
            (18, 18),
            "nine pages, and a rest before each: {report:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_list_that_has_moved_to_the_path_with_a_slash_is_read_there() {
    let provider = Provider::start_with(5, &["--page-size", "10"]).await;
    story(quiet(provider.setup()), async |broker| {
        provider.misbehave(json!({ "list": { "status": 308, "location": "{path}/" } })).await;
        assert_eq!(broker.job("sync").await.found, 5);
        assert_eq!(broker.stats().await.available, 5);
    })
    .await;
}

#[tokio::test]
async fn a_worker_shows_its_sync_no_longer_when_another_one_has_applied_a_later_list() {
    let provider = Provider::start(4).await;
    story(quiet(provider.setup().pool(4)), async |broker| {
        let rows = json!({ "rows": { "seed-000003": { "name": null } } });
        assert_eq!(synced(broker, &provider, rows).await.0.details["unreadable_rows"], 1);
        let shown = async || broker.worker(0).metrics().metric("broker_sync_unreadable_rows").await;
        assert_eq!(shown().await, 1.0);
        // As another worker notes its own.
        let mut tick = broker.table().must_get("TICK#sync").await;
        tick.insert("compared_at_ms".to_owned(), number((now_s() + 1) * 1_000));
        broker.table().put(tick).await;
        wait_for_condition("the figure of the last sync", async || match shown().await {
            0.0 => Ok(()),
            other => Err(other),
        })
        .await;
    })
    .await;
}
