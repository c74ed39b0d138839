//! Policy: applied as a whole or not at all, by command or over HTTP, and followed by every process.

use std::sync::atomic::{AtomicU32, Ordering};

use broker_tests::api::{ADMIN_TOKEN, Api};
use broker_tests::cli::Output;
use broker_tests::process::Process;
use broker_tests::table::{number, text};
use broker_tests::{Broker, Call, Setup, story, wait_for_condition};
use http::Method;
use serde_json::Value;

use crate::{quotas, waiting};

/// A file with `text`, in the scratch directory of this run.
fn file(text: &str) -> String {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = broker_tests::warden::scratch().join(format!("policy-{number}.toml"));
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("a path of text").to_owned()
}

async fn policy(broker: &Broker, args: &[&str], text: &str) -> Output {
    let file = file(text);
    broker.cli(&[&["policy"], args, &[file.as_str()]].concat()).await
}

fn over_http(broker: &Broker, method: Method, query: &str) -> Call {
    broker.balanced().call(method, &format!("/v1/admin/policy{query}")).token(ADMIN_TOKEN)
}

/// Applies `text`, and waits until every process follows it.
pub(crate) async fn apply(broker: &Broker, text: &str) {
    let applied: Value = policy(broker, &["apply", "--json"], text).await.json();
    followed(broker, applied["version"].as_f64().expect("a version")).await;
}

async fn followed(broker: &Broker, version: f64) {
    wait_for_condition("every process to follow", async || {
        let mut versions = Vec::new();
        for api in 0..broker.addresses().len() {
            versions.push(broker.api(api).metric("broker_policy_version").await);
        }
        for worker in 0..broker.workers_len() {
            versions.push(broker.worker(worker).metrics().metric("broker_policy_version").await);
        }
        if versions.iter().all(|followed| *followed == version) { Ok(()) } else { Err(versions) }
    })
    .await;
}

const SMALL: &str = "default_flavour = \"small\"\n[flavour.small]\nprefix = \"lab-\"\n";

#[tokio::test]
async fn a_policy_is_shown_before_it_is_applied_and_followed_by_every_process() {
    story(Setup::new(), async |broker| {
        let dry = policy(broker, &["apply", "--dry-run"], SMALL).await;
        assert_eq!(dry.code, 0, "{dry:#?}");
        assert!(dry.stdout.contains("+ flavour.small.prefix = \"lab-\"\n"), "{dry:#?}");
        let none = broker.cli_ok(&["policy", "show"]).await;
        assert!(none.stdout.starts_with("# no policy"), "{none:#?}");

        let applied: Value = policy(broker, &["apply", "--by", "ada", "--json"], SMALL).await.json();
        assert_eq!((&applied["applied"], &applied["version"]), (&true.into(), &1.into()), "{applied:#}");
        followed(broker, 1.0).await;
        // The same again, however it is written, writes nothing.
        let again = policy(broker, &["apply", "--json"], &format!("# a comment\n{SMALL}")).await;
        let again: Value = again.json();
        assert_eq!((&again["applied"], &again["version"]), (&false.into(), &1.into()), "{again:#}");
        let shown = broker.cli_ok(&["policy", "show"]).await;
        assert!(shown.stdout.starts_with("# version 1, applied by ada at 2"), "{shown:#?}");
        let differs = policy(broker, &["diff"], &SMALL.replace("lab-", "x-")).await;
        assert!(differs.stdout.starts_with("~ flavour.small.prefix = \"lab-\" -> \"x-\"\n"), "{differs:#?}");
        // What is shown can be applied again.
        let shown: Value = broker.cli_ok(&["policy", "show", "--json"]).await.json();
        let text = shown["policy"].as_str().expect("a text");
        assert!(policy(broker, &["diff"], text).await.stdout.starts_with("no difference"));

        let audit: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        let acts: Vec<_> = audit.iter().map(|line| (&line["act"], &line["who"], &line["target"])).collect();
        assert_eq!(
            acts,
            [(&"apply_policy".into(), &"ada".into(), &applied["digest"])],
            "one line, one change"
        );
    })
    .await;
}

#[tokio::test]
async fn a_typo_changes_nothing_and_every_mistake_is_named_with_its_place() {
    story(Setup::new().workers(0), async |broker| {
        policy(broker, &["apply"], SMALL).await;
        let wrong = "[flavour.small]\nprefix = \"lab-\"\nrefil = 1\n[flavour.gpu]\nprefix = \"lab-gpu-\"\n";
        for args in [&["apply"][..], &["apply", "--dry-run"], &["diff"]] {
            let refused = policy(broker, args, wrong).await;
            assert_eq!(refused.code, 2, "{refused:#?}");
            let told: Vec<_> = refused.stderr.lines().filter_map(|line| line.split_once(", line ")).collect();
            assert_eq!(told.len(), 2, "{refused:#?}");
            assert_eq!(told[0].1, "3, column 1: flavour.small.refil: unknown key; did you mean `refill`?");
            assert!(
                told[1].1.starts_with("5, column 10: flavour.gpu.prefix: \"lab-gpu-\" overlaps"),
                "{told:?}"
            );
        }
        assert_eq!(policy(broker, &["apply", "/dev/null/none"], "").await.code, 2, "two files");
        for blank in ["", "\u{feff}\n"] {
            let refused = policy(broker, &["apply"], blank).await;
            assert!(refused.code == 2 && refused.stderr.contains("there is no policy"), "{refused:#?}");
            let put = over_http(broker, Method::PUT, "").header("if-match", "*").body(blank).send().await;
            put.expect_problem(400, "VALIDATION_ERROR");
        }
        let over_http = over_http(broker, Method::PUT, "").header("if-match", "*").body(wrong).send().await;
        let problem = over_http.expect_problem(400, "VALIDATION_ERROR");
        assert!(problem.text.contains("line 3, column 1") && problem.text.contains("line 5, column 10"));
        let shown: Value = broker.cli_ok(&["policy", "show", "--json"]).await.json();
        assert_eq!(shown["version"], 1, "nothing was applied: {shown:#}");
    })
    .await;
}

#[tokio::test]
async fn over_http_a_policy_replaces_only_the_one_that_was_read() {
    story(Setup::new(), async |broker| {
        let none = over_http(broker, Method::GET, "").send().await.expect_status(200);
        let empty = none.must_have("etag").to_owned();
        assert_eq!((none.text.as_str(), none.must_have("content-type")), ("", "text/plain; charset=utf-8"));

        let put = |tag: &str, body: &str| {
            over_http(broker, Method::PUT, "").header("if-match", tag).body(body.to_owned())
        };
        put(&empty, "").send().await.expect_problem(400, "VALIDATION_ERROR");
        over_http(broker, Method::PUT, "").body(SMALL).send().await.expect_problem(428, "IF_MATCH_MISSING");
        let dry = over_http(broker, Method::PUT, "?dry_run=true").body(SMALL).send().await.expect_status(200);
        assert_eq!((&dry.json["applied"], dry.must_have("etag")), (&false.into(), empty.as_str()));
        let first = put(&empty, SMALL).send().await.expect_status(200);
        assert_eq!(first.json["changes"][1]["after"], "\"lab-\"", "{first:#?}");
        let stands = first.must_have("etag").to_owned();
        followed(broker, 1.0).await;

        let other = SMALL.replace("lab-", "other-");
        let late = put(&empty, &other).send().await.expect_problem(412, "POLICY_CHANGED");
        assert_eq!(late.must_have("etag"), stands);
        // An answer that was lost is asked for again: nothing is written twice.
        let again = put(&empty, SMALL).send().await.expect_status(200);
        assert_eq!((&again.json["applied"], &again.json["version"]), (&false.into(), &1.into()));
        put("W/\"x\"", &other).send().await.expect_problem(412, "POLICY_CHANGED");
        put("unquoted", &other).send().await.expect_problem(400, "VALIDATION_ERROR");
        put(&stands, &other).send().await.expect_status(200);
        followed(broker, 2.0).await;
        let shown = over_http(broker, Method::GET, "").send().await.expect_status(200);
        assert!(shown.text.contains("prefix = \"other-\""), "{shown:#?}");

        let track = broker.balanced().call(Method::GET, "/v1/admin/policy").send().await;
        track.expect_problem(403, "FORBIDDEN");
    })
    .await;
}

#[tokio::test]
async fn of_two_operators_at_once_one_wins_and_the_other_is_told() {
    story(Setup::new().apis(2).workers(0), async |broker| {
        let none = over_http(broker, Method::GET, "").send().await.expect_status(200);
        let tag = none.must_have("etag");
        let puts = (0..8).map(|n| {
            let body = SMALL.replace("lab-", &format!("lab{n}-"));
            over_http(broker, Method::PUT, "").header("if-match", tag).body(body).send()
        });
        let answers = broker_tests::together(puts).await;
        assert_eq!(crate::count(&answers, 200), 1, "{answers:#?}");
        assert_eq!(crate::count(&answers, 412), 7, "{answers:#?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_policy_names_is_not_told_while_it_is_not_known() {
    story(waiting::setup().apis(1).workers(1).pool(1), async |broker| {
        apply(broker, SMALL).await;
        let call = waiting::waits(broker, "student").name_prefix("big-");
        let location = waiting::parked(broker, call, "student").await;
        let stands = broker.table().must_get("POLICY").await;
        let mut newer = stands.clone();
        newer.insert("policy_text".to_owned(), text("later = true\n"));
        newer.insert("version".to_owned(), number(2));
        broker.table().put(newer).await;

        let mut process = Process::start("broker-api", &mut broker.api_command());
        let unsure = Api::new(&process.listening("api listening").await);
        let admin = |method, path| unsure.call(method, path).token(ADMIN_TOKEN).send();
        for path in [
            "/v1/admin/sandboxes?flavour=small",
            "/v1/admin/waiting",
            "/v1/admin/waiting?flavour=none",
            "/v1/admin/tracks/student",
            "/v1/admin/stats?live=true",
        ] {
            admin(Method::GET, path).await.expect_problem(503, "UNAVAILABLE");
        }
        let cancel = admin(Method::POST, "/v1/admin/waiting/cancel?flavour=none").await;
        cancel.expect_problem(503, "UNAVAILABLE");
        admin(Method::GET, "/v1/admin/sandboxes").await.expect_status(200);
        let told =
            unsure.call(Method::GET, &location).header("x-instruqt-sandbox-id", "student").send().await;
        let told = told.expect_status(200);
        assert_eq!((told.text_of("status"), &told.json["waiting"]), ("queued", &Value::Null), "{told:#?}");
        process.stop().await;
        let listed = broker.cli_ok(&["waiting", "list", "--json"]).await;
        assert!(listed.stderr.contains("why they wait is not known"), "{listed:#?}");
        let listed: Vec<Value> = listed.json();
        assert!(listed.len() == 1 && listed[0]["reason"].is_null(), "{listed:#?}");

        broker.table().put(stands).await;
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn arrivals_that_nobody_serves_without_the_policy_are_told() {
    story(Setup::new().apis(1).workers(0), async |broker| {
        apply(broker, SMALL).await;
        let stands = broker.table().must_get("POLICY").await;
        let mut newer = stands.clone();
        newer.insert("policy_text".to_owned(), text("later = true\n"));
        newer.insert("version".to_owned(), number(2));
        broker.table().put(newer).await;
        broker.cli_ok(&["pool", "seed", "--count", "3"]).await;
        broker.start_worker().await;
        let served = broker.job("serve").await;
        assert_eq!((served.found, served.failed), (3, 3), "{served:?}");
        let told = "arrivals left to the next look: the policy cannot be read";
        assert!(!broker.logged(told).is_empty());
        broker.table().put(stands).await;
        wait_for_condition("them to be offered", async || match broker.stats().await.available {
            3 => Ok(()),
            available => Err(available),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_a_limit_of_another_prefix_does_not_count_is_told_before_and_when_it_is_applied() {
    story(quotas::setup().apis(1).workers(1), async |broker| {
        quotas::seed(broker, "lab", 0, 3).await;
        quotas::limited(broker, 2).await;
        for track in ["student-1", "student-2"] {
            quotas::asks(broker, track).send().await.expect_status(201);
        }
        let renamed = |prefix: &str| {
            format!(
                "[flavour.small]\nprefix = \"{prefix}\"\n[flavour.gpu]\nprefix = \"gpu-\"\n\
                 [tenant.acme]\nlimits = {{ small = 2, gpu = 0 }}\n"
            )
        };
        let held = serde_json::json!([{ "tenant": "acme", "prefix": "lab-", "held": 2 }]);
        let told = policy(broker, &["diff"], &renamed("lab")).await;
        assert!(told.stderr.contains("acme holds 2 sandboxes under its limit of lab-"), "{told:#?}");
        let dry = over_http(broker, Method::PUT, "?dry_run=true").body(renamed("lab")).send().await;
        assert_eq!(dry.expect_status(200).json["uncounted"], held);
        for (prefix, uncounted) in [("lab", &held), ("lab-", &serde_json::json!([]))] {
            let applied: Value = policy(broker, &["apply", "--json"], &renamed(prefix)).await.json();
            assert_eq!((&applied["applied"], &applied["uncounted"]), (&true.into(), uncounted));
        }
    })
    .await;
}
