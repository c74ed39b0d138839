//! Flavours: a request says one by name, and operators see the pool by them.

use broker_tests::api::{ADMIN_TOKEN, KEY};
use broker_tests::{Broker, Setup, story, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use crate::policy;

const FLAVOUR: &str = "x-sandbox-flavour";
const TWO: &str =
    "default_flavour = \"small\"\n[flavour.small]\nprefix = \"lab-\"\n[flavour.gpu]\nprefix = \"gpu-\"\n";

/// Three of flavour `small`, two of `gpu`, one of none.
async fn mixed_pool(broker: &Broker) {
    for (prefix, count, start) in [("lab", "3", "0"), ("gpu", "2", "3"), ("other", "1", "5")] {
        let seed = ["pool", "seed", "--name-prefix", prefix, "--count", count, "--start", start];
        broker.cli_ok(&seed).await;
    }
}

async fn admin(broker: &Broker, path: &str) -> Value {
    broker.balanced().call(Method::GET, path).token(ADMIN_TOKEN).send().await.expect_status(200).json
}

#[tokio::test]
async fn a_request_gets_a_sandbox_of_the_flavour_that_it_names() {
    story(Setup::new(), async |broker| {
        mixed_pool(broker).await;
        let unknown = broker.allocate("student-0").header(FLAVOUR, "gpu").send().await;
        unknown.expect_problem(400, "UNKNOWN_FLAVOUR");
        policy::apply(broker, TWO).await;

        let name = |answer: &broker_tests::Answer| answer.text_of("name")[..4].to_owned();
        let header = broker.allocate("student-1").header(FLAVOUR, "gpu").send().await.expect_status(201);
        let body = broker.allocate("student-2").body(r#"{"flavour":"gpu"}"#).send().await.expect_status(201);
        assert_eq!([name(&header), name(&body)], ["gpu-", "gpu-"]);
        broker
            .allocate("student-3")
            .header(FLAVOUR, "gpu")
            .send()
            .await
            .expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        let default = broker.allocate("student-3").send().await.expect_status(201);
        assert_eq!(name(&default), "lab-");
        let other = broker.allocate("student-4").name_prefix("other").send().await.expect_status(201);
        assert_eq!(name(&other), "othe", "a prefix beside every flavour");

        let bad = [
            (broker.allocate("student-5").header(FLAVOUR, "huge"), "UNKNOWN_FLAVOUR"),
            (broker.allocate("student-5").body(r#"{"flavour":"huge"}"#), "UNKNOWN_FLAVOUR"),
            (
                broker.allocate("student-5").header(FLAVOUR, "gpu").body(r#"{"flavour":"small"}"#),
                "VALIDATION_ERROR",
            ),
            (broker.allocate("student-5").header(FLAVOUR, "gpu").name_prefix("lab-"), "VALIDATION_ERROR"),
            (broker.allocate("student-5").header(FLAVOUR, "GPU"), "VALIDATION_ERROR"),
            (broker.allocate("student-5").body(r#"{"flavour":5}"#), "VALIDATION_ERROR"),
            (broker.allocate("student-5").body(r#"{"flavour":""}"#), "VALIDATION_ERROR"),
        ];
        for (call, code) in bad {
            call.send().await.expect_problem(400, code);
        }
        let same = broker.allocate("student-5").header(FLAVOUR, "small").name_prefix("lab-").send().await;
        same.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn the_same_flavour_is_the_same_request_wherever_it_is_named_and_whatever_its_prefix_becomes() {
    story(Setup::new(), async |broker| {
        mixed_pool(broker).await;
        policy::apply(broker, TWO).await;
        let call = || broker.allocate("student-1").header(KEY, "k");
        let first = call().header(FLAVOUR, "gpu").send().await.expect_status(201);
        let again = call().body(r#"{"flavour":"gpu"}"#).send().await.expect_status(200);
        assert_eq!(first.text_of("sandbox_id"), again.text_of("sandbox_id"));
        call().send().await.expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
        let both = || broker.allocate("student-2").header(FLAVOUR, "gpu").name_prefix("gpu-");
        let second = both().send().await.expect_status(201);
        // The operator renames what the flavour is made of: the student's repeat is still the same request.
        policy::apply(broker, &TWO.replace("gpu-", "big-")).await;
        call().header(FLAVOUR, "gpu").send().await.expect_status(200);
        assert_eq!(both().send().await.expect_status(200).sandbox_id(), second.sandbox_id());
        // Or calls the flavour something else: only who holds nothing is told that there is none of this name.
        policy::apply(broker, &TWO.replace("[flavour.gpu]", "[flavour.huge]")).await;
        let again = call().header(FLAVOUR, "gpu").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), first.sandbox_id());
        broker.return_sandbox(first.sandbox_id(), "student-1").send().await.expect_status(200);
        call().header(FLAVOUR, "gpu").send().await.expect_problem(400, "UNKNOWN_FLAVOUR");
    })
    .await;
}

#[tokio::test]
async fn operators_see_the_pool_by_flavour() {
    story(Setup::new(), async |broker| {
        mixed_pool(broker).await;
        let stats = admin(broker, "/v1/admin/stats?live=true").await;
        assert!(stats.get("flavours").is_none(), "without a policy all is as before: {stats:#}");
        let flavours = admin(broker, "/v1/admin/flavours?live=true").await;
        assert_eq!(flavours["flavours"][0]["flavour"], "any", "{flavours:#}");
        assert_eq!(flavours["flavours"][0]["counts"]["available"], 6, "{flavours:#}");

        policy::apply(broker, TWO).await;
        broker.allocate("student-1").header(FLAVOUR, "gpu").send().await.expect_status(201);
        let stats = admin(broker, "/v1/admin/stats?live=true").await;
        assert_eq!(stats["flavours"]["gpu"]["available"], 1, "{stats:#}");
        assert_eq!(
            (&stats["total"], &stats["flavours"]["any"]["total"]),
            (&json!(6), &json!(1)),
            "{stats:#}"
        );
        broker.cli_ok(&["job", "run", "census"]).await;
        let overview = admin(broker, "/v1/admin/overview").await;
        assert_eq!(overview["pool"]["flavours"]["gpu"]["available"], 1, "{overview:#}");
        let track = admin(broker, "/v1/admin/tracks/student-1").await;
        assert_eq!(track["sandbox"]["flavour"], "gpu", "{track:#}");
        let flavours = admin(broker, "/v1/admin/flavours").await;
        let rows: Vec<_> = flavours["flavours"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| {
                (
                    row["flavour"].as_str().expect("a name"),
                    row["prefix"].as_str(),
                    &row["default"],
                    &row["counts"]["total"],
                )
            })
            .collect();
        let (yes, no) = (&json!(true), &json!(false));
        assert_eq!(
            rows,
            [
                ("gpu", Some("gpu-"), no, &json!(2)),
                ("small", Some("lab-"), yes, &json!(3)),
                ("any", None, no, &json!(1)),
            ]
        );

        let listed = admin(broker, "/v1/admin/sandboxes?flavour=gpu").await;
        let of: Vec<_> =
            listed["sandboxes"].as_array().expect("a list").iter().map(|row| &row["flavour"]).collect();
        assert_eq!(of, ["gpu", "gpu"]);
        let none = admin(broker, "/v1/admin/sandboxes?flavour=any").await;
        assert_eq!(none["sandboxes"][0]["flavour"], Value::Null, "{none:#}");
        let unknown = broker.balanced().call(Method::GET, "/v1/admin/sandboxes?flavour=x").token(ADMIN_TOKEN);
        unknown.send().await.expect_problem(400, "UNKNOWN_FLAVOUR");

        let listed: Vec<Value> =
            broker.cli_ok(&["pool", "list", "--flavour", "small", "--json"]).await.json();
        assert_eq!(listed.len(), 3, "{listed:#?}");
        assert_eq!(broker.cli(&["pool", "list", "--flavour", "x"]).await.code, 2);
        let stats: Value = broker.cli_ok(&["pool", "stats", "--json"]).await.json();
        assert_eq!(stats["flavours"]["small"]["available"], 3, "{stats:#}");
        let table = broker.cli_ok(&["pool", "stats"]).await.stdout;
        assert!(table.contains("gpu") && table.contains("(all)"), "{table}");

        wait_for_condition("the gauges to follow the census", async || {
            let metrics = broker.worker(0).metrics().probe("/metrics").await.expect("metrics").1;
            let line = "broker_flavour_sandboxes{flavour=\"gpu\",status=\"available\"} 1";
            if metrics.contains(line) { Ok(()) } else { Err(metrics) }
        })
        .await;
        let metrics = broker.api(0).probe("/metrics").await.expect("metrics").1;
        assert!(
            metrics.contains("broker_flavour_allocate_total{flavour=\"gpu\",outcome=\"created\"} 1"),
            "{metrics}"
        );
    })
    .await;
}
