//! Routes of the console: the overview, the stories of sandboxes and tracks, the schedule of the jobs, the audit. The page itself
//! is tested in a browser (`broker-docs console`).

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Answer, Broker, Setup, story};
use http::Method;
use serde_json::Value;

use crate::{policy, waiting};

async fn ask(broker: &Broker, method: Method, path: &str) -> Answer {
    let api = broker.api(broker.addresses().len() - 1);
    api.call(method, &format!("/v1/admin/{path}")).token(ADMIN_TOKEN).send().await
}

async fn get(broker: &Broker, path: &str) -> Value {
    ask(broker, Method::GET, path).await.expect_status(200).json
}

fn kinds(story: &Value) -> Vec<&str> {
    let events = story["events"].as_array().expect("events");
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

fn codes(overview: &Value) -> Vec<&str> {
    let problems = overview["problems"].as_array().expect("problems");
    problems.iter().map(|problem| problem["code"].as_str().expect("a code")).collect()
}

#[tokio::test]
async fn the_overview_tells_what_is_there_what_is_wrong_and_what_was_answered() {
    story(Setup::new().pool(3), async |broker| {
        let first = get(broker, "overview").await;
        assert_eq!(first["pool"], Value::Null);
        assert_eq!(codes(&first), ["census_missing"]);
        assert_eq!(first["caller"]["name"], "ops");
        for student in ["a", "b", "c"] {
            broker.allocate(student).send().await.expect_status(201);
        }
        broker.allocate("a").send().await.expect_status(200);
        broker.allocate("d").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        broker.job("census").await;
        // What an API answered it says when a minute ends, and when it ends itself.
        broker.start_api().await;
        broker.terminate_api(0).0.stopped().await;
        let seen = get(broker, "overview").await;
        assert_eq!(seen["pool"]["states"]["allocated"], 3, "{seen:#}");
        assert_eq!(codes(&seen), ["pool_empty", "refused"], "{seen:#}");
        assert_eq!(seen["processes"]["workers"], 1);
        assert_eq!(seen["jobs"].as_array().map(Vec::len), Some(8));
        let sum = |field: &str| -> u64 {
            seen["history"].as_array().unwrap().iter().filter_map(|minute| minute[field].as_u64()).sum()
        };
        let answered = ["created", "existing", "refused", "failed"].map(sum);
        assert_eq!(answered, [3, 1, 1, 0], "{:#}", seen["history"]);
        assert!(seen["history"].as_array().unwrap().iter().any(|minute| minute["states"]["allocated"] == 3));
        assert!(seen["history"].as_array().unwrap().iter().any(|minute| minute["p99_ms"].is_u64()));

        let told = broker.cli_ok(&["overview", "--history"]).await.stdout;
        for words in ["WRONG  No sandbox is free.", "infra/docs/RUNBOOK.md#pool-low", "allocated", "P99 MS"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        let as_json: Value = broker.cli_ok(&["overview", "--json"]).await.json();
        assert_eq!(as_json["pool"], seen["pool"]);
    })
    .await;
}

#[tokio::test]
async fn the_story_of_a_sandbox_has_everything_in_the_order_of_time() {
    story(Setup::new().pool(1), async |broker| {
        let sandbox = broker.allocate("student-1").lab("rust").send().await.expect_status(201);
        let id = sandbox.sandbox_id().to_owned();
        let history = format!("sandboxes/{id}/history");
        let live = get(broker, &history).await;
        assert_eq!(kinds(&live), ["arrived", "asked", "allocated", "expires"], "{live:#}");
        assert_eq!(live["events"][2]["text"], "Allocated to student-1, lab rust.");
        assert!(live["events"][3]["at_ms"].as_u64() > live["events"][2]["at_ms"].as_u64());

        broker.cli_ok(&["sandbox", "extend", &id, "--hours", "2"]).await;
        broker.cli_ok(&["sandbox", "release", &id]).await;
        let ended = get(broker, &history).await;
        for kind in ["arrived", "asked", "allocated", "operator", "ended", "deletion_due"] {
            assert!(kinds(&ended).contains(&kind), "{kind}: {ended:#}");
        }
        let by: Vec<_> =
            ended["events"].as_array().unwrap().iter().filter(|e| e["kind"] == "operator").collect();
        assert_eq!(by.len(), 2, "{by:?}");
        assert_eq!((&by[0]["who"], &by[0]["text"]), (&"cli".into(), &"extend 2".into()));
        let told = broker.cli_ok(&["sandbox", "history", &id]).await.stdout;
        assert!(
            told.contains("Released by an operator.") && told.contains("Allocated to student-1"),
            "{told}"
        );
        ask(broker, Method::GET, "sandboxes/nobody/history").await.expect_problem(404, "SANDBOX_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_student_is_told_of_by_lease_and_by_what_an_allocate_would_be_answered() {
    story(Setup::new().pool(2), async |broker| {
        broker.job("census").await;
        let nothing = get(broker, "tracks/student-1").await;
        assert_eq!((&nothing["verdict"], &nothing["sandbox"]), (&"nothing".into(), &Value::Null));
        assert!(nothing["text"].as_str().unwrap().contains("2 sandboxes are free"), "{nothing:#}");
        let own = broker.allocate("student-1").send().await.expect_status(201);
        broker.allocate("student-1").key("second").send().await.expect_status(201);
        broker.job("census").await;
        let holds = get(broker, "tracks/student-1").await;
        assert_eq!(
            (&holds["verdict"], &holds["sandbox"]["sandbox_id"]),
            (&"holds".into(), &own.sandbox_id().into())
        );
        assert_eq!(get(broker, "tracks/student-1?key=second").await["verdict"], "holds");
        let same: Value = broker.cli_ok(&["track", "student-1", "--json"]).await.json();
        assert_eq!(same, holds);
        let told = broker.cli_ok(&["track", "student-1", "--key", "second"]).await.stdout;
        assert!(told.contains("second") && told.contains("allocated"), "{told}");
        broker.return_sandbox(own.sandbox_id(), "student-1").send().await.expect_status(200);
        let ended = get(broker, "tracks/student-1").await;
        assert_eq!(ended["verdict"], "ended");
        let text = ended["text"].as_str().unwrap();
        assert!(text.contains("was given back") && text.contains("409 NO_SANDBOXES_AVAILABLE"), "{text}");
        assert_eq!(ended["runbook"], "pool-low");
        ask(broker, Method::GET, "tracks/a%20b").await.expect_problem(400, "VALIDATION_ERROR");
    })
    .await;
}

#[tokio::test]
async fn a_student_who_waits_is_told_to_and_so_is_one_who_meets_a_closed_pool() {
    story(waiting::setup().pool(0), async |broker| {
        waiting::parked(broker, waiting::waits(broker, "student-1"), "student-1").await;
        let waits = get(broker, "tracks/student-1").await;
        assert_eq!((&waits["verdict"], &waits["runbook"]), (&"waits".into(), &"waiting".into()), "{waits:#}");
        assert_eq!(get(broker, "tracks/student-2").await["verdict"], "nothing");
        broker.cli_ok(&["pool", "pause"]).await;
        let closed = get(broker, "tracks/student-2").await;
        let text = closed["text"].as_str().unwrap();
        assert!(text.contains("The pool is closed") && !text.contains("free"), "{text}");
        assert_eq!(closed["runbook"], "no-worker-receives");
        broker.cli_ok(&["pool", "resume"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_student_of_whom_not_everything_was_looked_at_is_not_told_that_there_is_nothing() {
    story(waiting::setup().apis(1).workers(1).pool(0), async |broker| {
        let limits: String = (0..9).map(|n| format!("[tenant.a{n}]\nlimits = {{ small = 5 }}\n")).collect();
        let text = format!(
            "[flavour.small]\nprefix = \"sandbox-\"\n{limits}[tenant.last]\nlimits = {{ small = 0 }}\n"
        );
        policy::apply(broker, &text).await;
        broker.job("census").await;
        let waits = |track: &str, prefix: &str| {
            let call = broker.allocate(track).wait(0).name_prefix(prefix);
            call.json(&serde_json::json!({ "max_wait_s": 600 }))
        };
        waiting::parked(broker, waits("student-1", "z-"), "student-1").await;
        let found = get(broker, "tracks/student-1").await;
        assert_eq!(found["verdict"], "waits", "{found:#}");
        // As many lines as a story reads, all before the student's.
        for n in 0..8 {
            let track = format!("other-{n}");
            waiting::parked(broker, waits(&track, &format!("a{n}-")), &track).await;
        }
        let unclear = get(broker, "tracks/student-1").await;
        assert_eq!((&unclear["verdict"], &unclear["runbook"]), (&"unclear".into(), &"waiting".into()));
        let text = unclear["text"].as_str().unwrap();
        assert!(text.contains("is not known, there are too many lines"), "{text}");
        // The reached limit is the last of ten.
        assert!(text.contains("Tenant last holds 0 of 0 of small"), "{text}");
        let listed: Value =
            broker.cli_ok(&["waiting", "list", "--track", "student-1", "--json"]).await.json();
        assert_eq!(listed[0]["track"], "student-1", "{listed:#}");
    })
    .await;
}

#[tokio::test]
async fn a_job_is_paused_and_resumed_and_every_act_is_in_the_audit_the_newest_first() {
    story(Setup::new(), async |broker| {
        let paused = ask(broker, Method::POST, "jobs/purge_stale/pause").await.expect_status(200);
        assert!(paused.json["paused_at"].is_u64(), "{paused:?}");
        ask(broker, Method::POST, "jobs/purge-stale/pause").await.expect_status(200);
        assert!(codes(&get(broker, "overview").await).contains(&"job_paused"));
        let resumed = ask(broker, Method::POST, "jobs/purge_stale/resume").await.expect_status(200);
        assert_eq!(resumed.json["paused_at"], Value::Null);
        ask(broker, Method::POST, "jobs/tea/pause").await.expect_problem(404, "NOT_FOUND");

        let first = get(broker, "audit?limit=2").await;
        let acts = |page: &Value| -> Vec<String> {
            let lines = page["lines"].as_array().expect("lines");
            lines.iter().map(|line| format!("{} {} {}", line["who"], line["act"], line["target"])).collect()
        };
        let [pause, resume] =
            ["pause_job", "resume_job"].map(|act| format!("\"ops\" \"{act}\" \"purge_stale\""));
        assert_eq!(acts(&first), [resume, pause.clone()]);
        let cursor = first["next_cursor"].as_str().expect("more");
        let second = get(broker, &format!("audit?limit=2&cursor={cursor}")).await;
        assert_eq!(acts(&second), [pause]);
        let other = format!("audit?days_ago=1&cursor={cursor}");
        ask(broker, Method::GET, &other).await.expect_problem(400, "VALIDATION_ERROR");
        assert_eq!(acts(&get(broker, "audit?days_ago=1").await), Vec::<String>::new());
    })
    .await;
}
