//! Admin routes and `broker sandbox`.

use std::collections::BTreeSet;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Answer, Broker, Provider, Setup, story, wait_for_condition};
use http::Method;
use serde_json::json;

use super::{clean_up_until_deleted, give_back, status};

async fn admin(broker: &Broker, method: Method, path: &str) -> Answer {
    broker.lists_are_current().await;
    let call = broker.balanced().call(method, &format!("/v1/admin/{path}"));
    call.token(ADMIN_TOKEN).send().await
}

#[tokio::test]
async fn a_large_pool_is_listed_counted_and_compared_whole() {
    const POOL: usize = 20_000;
    let provider = Provider::start_with(POOL, &["--page-size", "1000"]).await;
    story(provider.setup().apis(1).workers(1).pool(POOL), async |broker| {
        let stats = admin(broker, Method::GET, "stats?live=true").await.expect_status(200);
        assert_eq!((stats.number_of("total"), stats.number_of("available")), (20_000, 20_000));
        let synced = broker.job("sync").await;
        assert_eq!((synced.found, synced.changed), (20_000, 0), "{synced:?}");
        broker.allocate("student").send().await.expect_status(201);
        assert_eq!(broker.job("census").await.found, 20_000);
        let stats = admin(broker, Method::GET, "stats").await.expect_status(200);
        assert_eq!((stats.number_of("available"), stats.number_of("allocated")), (19_999, 1));
        assert!(stats.number_of("as_of") > 0);

        // One allocated among 20,000, anywhere.
        let mut cursor = String::new();
        let found = loop {
            let page = admin(broker, Method::GET, &format!("sandboxes?track=student{cursor}")).await;
            let page = page.expect_status(200);
            if let Some(found) = page.json["sandboxes"].get(0) {
                break found.clone();
            }
            cursor = format!("&cursor={}", page.text_of("next_cursor"));
        };
        assert_eq!((&found["track"], &found["status"]), (&json!("student"), &json!("allocated")));
    })
    .await;
}

#[tokio::test]
async fn pages_together_hold_everything_once_and_a_bad_cursor_is_400() {
    story(Setup::new().pool(45), async |broker| {
        broker.allocate("student").lab("lab-one").send().await.expect_status(201);
        let (mut ids, mut path) = (BTreeSet::new(), "sandboxes?limit=10".to_owned());
        loop {
            let page = admin(broker, Method::GET, &path).await.expect_status(200);
            for sandbox in page.json["sandboxes"].as_array().expect("a page") {
                assert!(ids.insert(sandbox["sandbox_id"].to_string()), "{sandbox} twice");
            }
            match page.json["next_cursor"].as_str() {
                Some(cursor) => path = format!("sandboxes?limit=10&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(ids.len(), 45);
        for filter in ["status=allocated", "track=student", "track_name=lab-one"] {
            let page = admin(broker, Method::GET, &format!("sandboxes?{filter}")).await.expect_status(200);
            assert_eq!(page.json["sandboxes"].as_array().map(Vec::len), Some(1), "{filter}");
        }
        for bad in
            ["cursor=x", "cursor=00", "limit=0", "limit=101", "status=lost", "sort=name", "limit=1&limit=2"]
        {
            let answer = admin(broker, Method::GET, &format!("sandboxes?{bad}")).await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
    })
    .await;
}

#[tokio::test]
async fn an_operator_runs_jobs_and_a_platform_may_not() {
    let provider = Provider::start(8).await;
    story(provider.setup(), async |broker| {
        let synced = admin(broker, Method::POST, "sync").await.expect_status(200);
        assert_eq!((synced.text_of("status"), synced.number_of("changed")), ("succeeded", 8));
        give_back(broker, 2).await;
        assert_eq!(admin(broker, Method::POST, "cleanup").await.expect_status(200).number_of("changed"), 2);
        assert_eq!(admin(broker, Method::POST, "auto-expire").await.expect_status(200).number_of("found"), 0);
        let purge = "auto-delete-stale?grace_period_hours=0";
        assert_eq!(admin(broker, Method::POST, purge).await.expect_status(200).number_of("found"), 0);

        for path in ["sync", "cleanup", "auto-expire", "auto-delete-stale", "bulk-delete?status=stale"] {
            let platform = broker.balanced().call(Method::POST, &format!("/v1/admin/{path}"));
            platform.send().await.expect_problem(403, "FORBIDDEN");
        }
        admin(broker, Method::POST, "bulk-delete?status=available")
            .await
            .expect_problem(400, "VALIDATION_ERROR");
        admin(broker, Method::POST, "bulk-delete").await.expect_problem(400, "VALIDATION_ERROR");

        provider.misbehave(json!({ "list": { "empty": true } })).await;
        let refused = admin(broker, Method::POST, "sync").await.expect_status(200);
        assert_eq!(refused.text_of("status"), "failed");
        assert_eq!(broker.stats().await.stale, 0);
        clean_up_until_deleted(broker, 2).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_that_outlasts_the_wait_is_answered_202_and_can_be_asked_for() {
    let provider = Provider::start(4).await;
    story(provider.setup().var("BROKER_WAIT_S", "1"), async |broker| {
        provider.misbehave(json!({ "list": { "delay_ms": 2_500 } })).await;
        let later = admin(broker, Method::POST, "sync").await.expect_status(202);
        let location = later.must_have("location").to_owned();
        let path = location.strip_prefix("/v1/admin/").expect("an admin path");
        later.must_have("retry-after");
        wait_for_condition("the run to end", async || {
            let run = admin(broker, Method::GET, path).await.expect_status(200);
            if run.text_of("status") == "queued" { Err(run) } else { Ok(()) }
        })
        .await;
        let run = admin(broker, Method::GET, path).await;
        assert_eq!((run.text_of("status"), run.number_of("changed")), ("succeeded", 4));
        let nobody = "jobs/01890a5d-ac96-774b-bcce-b302099a8057";
        admin(broker, Method::GET, nobody).await.expect_problem(404, "REQUEST_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn bulk_delete_leaves_no_way_back_into_the_pool_for_what_was_used() {
    let provider = Provider::start_with(30, &["--page-size", "26"]).await;
    story(provider.setup().pool(30), async |broker| {
        let used = &give_back(broker, 1).await[0];
        provider.misbehave(json!({ "delete": { "status": 409 } })).await;
        wait_for_condition("the deletion to be given up", async || {
            broker.job("cleanup").await;
            broker.queues().are_empty().await;
            match status(broker, used).await.as_str() {
                "deletion_failed" => Ok(()),
                other => {
                    broker.cli(&["sandbox", "retry-delete", used]).await;
                    Err(other.to_owned())
                }
            }
        })
        .await;
        let failed = "bulk-delete?status=deletion_failed";
        assert_eq!(admin(broker, Method::POST, failed).await.expect_status(200).number_of("changed"), 1);
        assert_eq!(status(broker, used).await, "deleted");

        provider.misbehave(json!({ "list": { "no_next": true } })).await;
        broker.job("sync").await;
        let stale = broker.stats().await.stale;
        assert!((3..=4).contains(&stale), "{stale}");
        let removed = admin(broker, Method::POST, "bulk-delete?status=stale").await.expect_status(200);
        assert_eq!(removed.number_of("changed"), stale);

        provider.behave().await;
        broker.job("sync").await;
        let stats = broker.stats().await;
        assert_eq!((stats.total, stats.available, stats.stale), (30, 29, 0));
        clean_up_until_deleted(broker, 1).await;
    })
    .await;
}

#[tokio::test]
async fn an_operator_extends_and_releases_a_lease() {
    story(Setup::new().pool(2), async |broker| {
        let answer = broker.allocate("student").send().await.expect_status(201);
        let (sandbox, expires_at) = (answer.sandbox_id(), answer.number_of("expires_at"));
        broker.cli_ok(&["sandbox", "extend", sandbox, "--hours", "3"]).await;
        let again = broker.allocate("student").send().await.expect_status(200);
        assert_eq!(again.number_of("expires_at"), expires_at + 3 * 3_600);
        assert_eq!(broker.cli(&["sandbox", "extend", sandbox, "--hours", "168"]).await.code, 1);

        broker.cli_ok(&["sandbox", "release", sandbox]).await;
        let shown = broker.shown(sandbox).await;
        assert_eq!(
            (&shown["status"], &shown["deletion_reason"]),
            (&json!("pending_deletion"), &json!("released"))
        );
        broker.allocate("student").send().await.expect_status(201);
        assert_eq!(broker.cli(&["sandbox", "release", sandbox]).await.code, 1, "no track holds it");
        assert_eq!(broker.cli(&["sandbox", "show", "nobody"]).await.code, 1);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_message_in_the_maintenance_queue_is_dead_lettered_and_harms_no_other() {
    story(Setup::new().apis(1).workers(1).pool(1), async |broker| {
        let queues = broker.queues();
        let queue = queues.name("maintenance");
        for body in ["not a message", r#"{"v":1,"kind":"allocate"}"#] {
            queues.send(&queue, body).await;
        }
        broker.job("census").await;
        broker.holds_letters(2).await;
        let letters = broker.letters(&["--queue", "maintenance", "--reason", "malformed"]).await;
        assert_eq!(letters.len(), 2, "{letters:#?}");
        assert_eq!(broker.discard(&["--queue", "maintenance"]).await.done, 2);
    })
    .await;
}
