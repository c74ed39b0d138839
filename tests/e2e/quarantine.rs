//! Quarantine: what does not work is not offered until an operator lets it go, and never again if it was used.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::cli::Stats;
use broker_tests::{Answer, Broker, Call, Setup, story};
use http::Method;
use serde_json::{Value, json};

async fn admin(broker: &Broker, method: Method, path: &str) -> Answer {
    broker.balanced().call(method, &format!("/v1/admin/quarantine{path}")).token(ADMIN_TOKEN).send().await
}

fn report(broker: &Broker, sandbox: &str, track: &str) -> Call {
    let path = format!("/v1/sandboxes/{sandbox}/report-broken");
    broker.balanced().call(Method::POST, &path).header("x-instruqt-sandbox-id", track)
}

#[tokio::test]
async fn a_sandbox_in_quarantine_is_not_offered_until_an_operator_lets_it_go() {
    story(Setup::new().pool(1), async |broker| {
        let add = ["quarantine", "add", "seed-000000", "--why", "does not start", "--by", "ada", "--json"];
        let done: Value = broker.cli_ok(&add).await.json();
        assert_eq!((&done["done"], &done["refused"]), (&json!(1), &json!([])), "{done:#}");
        broker.cli_ok(&add).await;
        broker.allocate("student-1").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let listed: Vec<Value> = broker.cli_ok(&["quarantine", "list", "--json"]).await.json();
        let [one] = listed.as_slice() else { panic!("{listed:#?}") };
        assert_eq!(
            [&one["quarantine_cause"], &one["quarantined_by"], &one["quarantine_reason"]],
            ["operator", "ada", "does not start"],
            "{one:#}"
        );
        assert!(broker.cli_ok(&["quarantine", "list"]).await.stdout.contains("does not start"));
        assert_eq!(broker.stats().await, Stats { total: 1, quarantined: 1, ..Stats::default() });
        // Nothing that the jobs do lets it out.
        for job in ["census", "sweep", "serve", "expire"] {
            broker.job(job).await;
        }
        assert_eq!(broker.shown("seed-000000").await["status"], "quarantined");

        broker.cli_ok(&["quarantine", "release", "--all", "--dry-run"]).await;
        assert_eq!(broker.stats().await.quarantined, 1, "a dry run");
        broker.cli_ok(&["quarantine", "release", "seed-000000"]).await;
        let held = broker.allocate("student-1").send().await.expect_status(201);
        assert_eq!(held.sandbox_id(), "seed-000000");
        for (command, code) in [
            (&["quarantine", "add", "seed-000000", "--why", "late"][..], 1),
            (&["quarantine", "release", "seed-000000"], 1),
            (&["quarantine", "add", "nothing", "--why", "x"], 1),
            (&["quarantine", "add", "seed-000000", "--why", " "], 2),
            (&["quarantine", "release"], 2),
            (&["quarantine", "retire", "--cause", "mood"], 2),
        ] {
            let told = broker.cli(command).await;
            assert_eq!(told.code, code, "{command:?}: {told:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn over_http_it_is_the_same_and_what_is_retired_is_deleted_for_good() {
    story(Setup::new().pool(2), async |broker| {
        admin(broker, Method::POST, "/add?id=seed-000000").await.expect_problem(400, "VALIDATION_ERROR");
        admin(broker, Method::POST, "/release").await.expect_problem(400, "VALIDATION_ERROR");
        let both = "/add?id=seed-000000,seed-000001&why=broken";
        let dry = admin(broker, Method::POST, &format!("{both}&dry_run=true")).await.expect_status(200);
        assert_eq!((dry.json["done"].clone(), broker.stats().await.quarantined), (json!(2), 0));
        admin(broker, Method::POST, both).await.expect_status(200);
        broker.lists_are_current().await;
        let listed = admin(broker, Method::GET, "").await.expect_status(200).json;
        assert_eq!(listed["sandboxes"].as_array().map(Vec::len), Some(2), "{listed:#}");
        assert_eq!(listed["sandboxes"][0]["quarantined_by"], "ops", "{listed:#}");
        admin(broker, Method::POST, "/retire?id=seed-000000").await.expect_status(200);
        assert_eq!(broker.shown("seed-000000").await["status"], "pending_deletion");
        admin(broker, Method::POST, "/release?cause=operator").await.expect_status(200);
        let told =
            admin(broker, Method::POST, "/release?id=seed-000000,nothing").await.expect_status(200).json;
        assert_eq!(
            (&told["done"], told["refused"].as_array().map(Vec::len)),
            (&json!(0), Some(2)),
            "{told:#}"
        );
        let expected = Stats { total: 2, available: 1, pending_deletion: 1, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
    })
    .await;
}

#[tokio::test]
async fn what_its_owner_reports_is_never_offered_again_and_the_owner_gets_another() {
    story(Setup::new().pool(2), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        let sandbox = held.sandbox_id();
        report(broker, sandbox, "student-2").send().await.expect_problem(403, "NOT_SANDBOX_OWNER");
        report(broker, "nothing", "student-1").send().await.expect_problem(404, "SANDBOX_NOT_FOUND");
        let words = json!({ "reason": "no network\nat all\u{7}" });
        let told = report(broker, sandbox, "student-1").json(&words).send().await.expect_status(200);
        assert_eq!(told.text_of("status"), "quarantined");
        // The same owner again, and by the other route: the lease has ended.
        report(broker, sandbox, "student-1").send().await.expect_status(200);
        let returned = broker.return_sandbox(sandbox, "student-1").send().await.expect_status(200);
        assert_eq!(returned.text_of("status"), "quarantined", "{returned:#?}");
        let shown = broker.shown(sandbox).await;
        assert_eq!(
            [&shown["status"], &shown["quarantine_cause"], &shown["quarantine_reason"]],
            ["quarantined", "report", "no network at all"],
            "{shown:#}"
        );
        assert_eq!(shown["deletion_reason"], "reported");
        let next = broker.allocate("student-1").send().await.expect_status(201);
        assert_ne!(next.sandbox_id(), sandbox);
        let refused = broker.cli(&["quarantine", "release", sandbox]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stdout.contains("handed out before"), "{refused:#?}");
        broker.verify().await;
        broker.cli_ok(&["quarantine", "retire", "--cause", "report"]).await;
        assert_eq!(broker.shown(sandbox).await["status"], "pending_deletion");
    })
    .await;
}

#[tokio::test]
async fn a_large_quarantine_is_listed_by_its_longest_and_says_that_there_is_more() {
    story(Setup::new().pool(205), async |broker| {
        let ids: Vec<_> = (0..205).map(|n| format!("seed-{n:06}")).collect();
        let mut add: Vec<&str> = vec!["quarantine", "add", "--why", "a drill"];
        add.extend(ids.iter().map(String::as_str));
        broker.cli_ok(&add).await;
        broker.lists_are_current().await;
        let listed = admin(broker, Method::GET, "").await.expect_status(200);
        let rows = listed.json["sandboxes"].as_array().expect("a list");
        assert_eq!((rows.len(), &listed.json["more"]), (200, &json!(true)));
        let since: Vec<_> = rows.iter().map(|row| row["quarantined_at"].as_u64()).collect();
        assert!(since.is_sorted(), "{since:?}");
        broker.cli_ok(&["quarantine", "release", "--all"]).await;
        broker.lists_are_current().await;
        let none = admin(broker, Method::GET, "").await.expect_status(200);
        assert_eq!(none.json, json!({ "sandboxes": [], "more": false }));
    })
    .await;
}

#[tokio::test]
async fn over_http_as_many_leave_as_a_call_has_time_for_and_the_same_call_goes_on() {
    const MANY: usize = 1_004;
    story(Setup::new().pool(MANY), async |broker| {
        let ids: Vec<_> = (0..MANY).map(|n| format!("seed-{n:06}")).collect();
        let mut add: Vec<&str> = vec!["quarantine", "add", "--why", "a drill"];
        add.extend(ids.iter().map(String::as_str));
        broker.cli_ok(&add).await;
        broker.lists_are_current().await;
        let (mut parts, mut left) = (Vec::new(), MANY as u64);
        loop {
            let told = admin(broker, Method::POST, "/retire?all=true").await.expect_status(200);
            assert!(told.number_of("selected") == left, "{left}: {}", told.text);
            parts.push(told.number_of("done"));
            left -= told.number_of("done");
            broker.lists_are_current().await;
            if told.json["more"] == json!(false) {
                break;
            }
        }
        assert!(parts.len() > 1 && parts.iter().all(|part| (1..=1_000).contains(part)), "{parts:?}");
        assert_eq!((left, broker.stats().await.quarantined), (0, 0));
    })
    .await;
}
