//! Operations of operators that are refused or have nothing to change: their messages, and their audit lines.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Broker, Setup, story};
use http::Method;
use serde_json::Value;

use crate::policy;

const REFILLED: &str =
    "[flavour.small]\nprefix = \"seed-\"\nrefill = { min = 1, max = 9, rate_per_minute = 60 }\n";

/// What a command says.
async fn says(broker: &Broker, command: &[&str], by: &str) -> String {
    broker.cli_ok(&[command, &["--by", by]].concat()).await.stdout
}

#[tokio::test]
async fn whoever_pauses_what_is_paused_is_told_by_whom_and_since_when_and_changes_neither() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        policy::apply(broker, REFILLED).await;
        for (what, word) in [("pool", None), ("job", Some("cleanup")), ("refill", Some("small"))] {
            let command = |act: &'static str| [what, act].into_iter().chain(word).collect::<Vec<_>>();
            let first = says(broker, &command("pause"), "maria").await;
            assert!(!first.contains("already"), "{first}");
            let again = says(broker, &command("pause"), "ops").await;
            assert!(again.contains("already paused by maria since 20"), "{what}: {again}");
            assert!(!again.contains("ops"), "{what}: {again}");
            let json: Value =
                broker.cli_ok(&[command("pause"), vec!["--json", "--by", "ops"]].concat()).await.json();
            assert_eq!(json["changed"], false, "{what}: {json:#}");
            let resumed = says(broker, &command("resume"), "ops").await;
            assert!(!resumed.contains("nothing was changed"), "{what}: {resumed}");
            let again = says(broker, &command("resume"), "ops").await;
            assert!(again.contains("nothing was changed"), "{what}: {again}");
        }
    })
    .await;
}

#[tokio::test]
async fn over_http_too_who_paused_it_first_stays_with_its_time() {
    let tokens = format!("ops={ADMIN_TOKEN}");
    let setup = Setup::new().apis(1).workers(0).pool(1).var("BROKER_ADMIN_TOKENS", &tokens);
    story(setup, async |broker| {
        policy::apply(broker, REFILLED).await;
        broker.cli_ok(&["job", "pause", "sync", "--by", "maria"]).await;
        broker.cli_ok(&["refill", "pause", "small", "--by", "maria"]).await;
        for path in ["/v1/admin/jobs/sync/pause", "/v1/admin/refill/small/pause"] {
            let told =
                broker.balanced().call(Method::POST, path).token(ADMIN_TOKEN).send().await.expect_status(200);
            assert_eq!(told.json["paused_by"], "maria", "{path}: {:#}", told.json);
            assert!(told.json["paused_at"].is_u64(), "{path}: {:#}", told.json);
        }
        for path in ["/v1/admin/jobs/sync/resume", "/v1/admin/refill/small/resume"] {
            let told =
                broker.balanced().call(Method::POST, path).token(ADMIN_TOKEN).send().await.expect_status(200);
            assert!(
                told.json["paused_by"].is_null() && told.json["paused_at"].is_null(),
                "{path}: {:#}",
                told.json
            );
        }
    })
    .await;
}

/// The results of an act's lines, the oldest first.
async fn ended(broker: &Broker, act: &str) -> Vec<Value> {
    let lines: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
    let of_act = lines.iter().filter(|line| line["act"] == act);
    of_act
        .map(|line| {
            line["ended"].as_str().map_or(Value::Null, |ended| serde_json::from_str(ended).expect("JSON"))
        })
        .collect()
}

/// What a sandbox's history tells of operators.
async fn history(broker: &Broker, sandbox: &str) -> Vec<String> {
    let story: Value = broker.cli_ok(&["sandbox", "history", sandbox, "--json"]).await.json();
    let events = story["events"].as_array().expect("events").iter();
    let of_operators = events.filter(|event| event["kind"] == "operator");
    of_operators.map(|event| event["text"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn an_act_on_several_or_on_all_is_in_the_history_of_each() {
    story(Setup::new().apis(1).workers(1).pool(3), async |broker| {
        let post = async |path: &str| {
            let call = broker.balanced().call(Method::POST, &format!("/v1/admin/quarantine/{path}"));
            call.token(ADMIN_TOKEN).send().await.expect_status(200);
        };
        post("add?id=seed-000000,seed-000001,nothing&why=a+test").await;
        post("release?id=seed-000000,seed-000002").await;
        broker.lists_are_current().await;
        broker.cli_ok(&["quarantine", "release", "--cause", "operator"]).await;
        for sandbox in ["seed-000000", "seed-000001"] {
            assert_eq!(
                history(broker, sandbox).await,
                ["quarantine: a test", "lift quarantine"],
                "{sandbox}"
            );
        }
        let told = history(broker, "seed-000002").await;
        assert_eq!(told, ["lift quarantine (refused: it is available)"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_refused_or_changed_nothing_says_so_in_the_audit_and_in_the_sandbox_s_history() {
    story(Setup::new().apis(1).workers(1).pool(2), async |broker| {
        let held =
            broker.allocate("student-1").lab("lab-1").send().await.expect_status(201).sandbox_id().to_owned();
        let free: Vec<Value> =
            broker.cli_ok(&["pool", "list", "--status", "available", "--json"]).await.json();
        let free = free[0]["sandbox_id"].as_str().expect("an id");

        // Refused: there is no deletion to retry; it is in use; a lease would last too long; it is not in quarantine.
        assert_eq!(broker.cli(&["sandbox", "retry-delete", free]).await.code, 1);
        assert_eq!(broker.cli(&["quarantine", "release", free]).await.code, 1);
        assert_eq!(broker.cli(&["quarantine", "add", &held, "--why", "a test"]).await.code, 1);
        assert_eq!(
            broker.cli(&["sandbox", "extend", "--track-name", "lab-1", "--hours", "168"]).await.code,
            1
        );
        let over_http = format!("/v1/admin/quarantine/retire?id={free}");
        broker.balanced().call(Method::POST, &over_http).token(ADMIN_TOKEN).send().await.expect_status(200);
        for (sandbox, acts) in [
            (free, ["retry delete", "lift quarantine", "retire"].as_slice()),
            (&held, &["quarantine", "extend"]),
        ] {
            let told = history(broker, sandbox).await;
            assert_eq!(told.len(), acts.len(), "{told:?}");
            for act in acts {
                assert!(
                    told.iter().any(|text| text.starts_with(act) && text.contains("refused: ")),
                    "{act}: {told:?}"
                );
            }
        }
        // Done: nothing of the kind.
        broker.cli_ok(&["sandbox", "extend", &held, "--hours", "1"]).await;
        broker.cli_ok(&["quarantine", "add", free, "--why", "a test"]).await;
        assert!(history(broker, &held).await.iter().any(|text| text == "extend 1"));
        assert!(history(broker, free).await.iter().any(|text| text == "quarantine: a test"));

        // Another operator finds it so already.
        let again = says(broker, &["quarantine", "add", free, "--why", "mine"], "ops").await;
        assert!(
            again.contains("in quarantine already, by cli since 20") && again.contains("a test"),
            "{again}"
        );
        let told = history(broker, free).await;
        assert!(told.iter().any(|text| text.starts_with("quarantine: mine (changed nothing: ")), "{told:?}");

        // Others than of a sandbox.
        let nobody = "01890000-0000-7000-8000-000000000000";
        assert_eq!(broker.cli(&["reservation", "delete", nobody]).await.code, 1);
        assert_eq!(broker.cli(&["pool", "reshard", "--to", "8", "--apply"]).await.code, 1);
        for command in [["pool", "resume"].as_slice(), &["job", "pause", "sync"]] {
            broker.cli_ok(command).await;
        }
        // The same operator at the same second repeats a call whose answer was lost; another one finds it paused.
        says(broker, &["job", "pause", "sync"], "ops").await;
        assert!(ended(broker, "delete_reservation").await[0]["refused"].is_string());
        assert!(ended(broker, "reshard").await[0]["refused"].as_str().expect("refused").contains("alive"));
        assert!(ended(broker, "resume_pool").await[0]["unchanged"].is_string());
        let paused = ended(broker, "pause_job").await;
        assert!(
            paused[0].is_null()
                && paused[1]["unchanged"].as_str().expect("so already").contains("already paused by"),
            "{paused:?}"
        );
        let table = broker.cli_ok(&["audit"]).await.stdout;
        assert!(
            table.contains("RESULT") && table.contains("refused: ") && table.contains("changed nothing: "),
            "{table}"
        );
        broker.cli_ok(&["job", "resume", "sync"]).await;
    })
    .await;
}
