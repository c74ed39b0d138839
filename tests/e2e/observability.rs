//! Observability: the metrics in dashboard and alerts are those that the processes expose.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::binaries::workspace;
use broker_tests::promql::{Exposed, expressions};
use broker_tests::{Broker, Fault, Provider, Rule, Setup, story, wait_for_condition};
use http::Method;
use serde_json::Value;

use crate::policy;

/// Where, and what it asks for.
type Query = (String, String);

fn file(name: &str) -> String {
    let path = workspace().join("infra/observability").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every query of the dashboard; variables of Grafana stand for durations.
fn dashboard() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |key: &str| target[key].as_str().expect("a text").to_owned();
            let title = panel["title"].as_str().expect("a title");
            legend_is_grouped(title, &text("expr"), &text("legendFormat"));
            queries.push((format!("panel {title:?}"), text("expr")));
        }
    }
    queries
}

/// A legend can only name what its query leaves.
fn legend_is_grouped(title: &str, query: &str, legend: &str) {
    let by = broker_tests::promql::asked(query).by;
    for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")) {
        assert!(by.contains(label.0) || label.0 == "instance", "{title}: {{{{{}}}}} of {query}", label.0);
    }
}

fn alerts() -> Vec<Query> {
    expressions(&file("alerts.yaml"))
        .into_iter()
        .map(|(alert, query)| (format!("alert {alert}"), query))
        .collect()
}

/// Does everything that is counted: allocates, repeats, runs out, gives back, deletes, is throttled, keeps a dead letter.
async fn everything_happens(broker: &Broker) {
    let proxy = broker.proxy();
    proxy.add(Rule::new(Fault::Throttle).on("TransactWriteItems").times(1));
    let held = broker.allocate("student-1").send().await.expect_status(201);
    broker.allocate("student-1").send().await.expect_status(200);
    broker.allocate("student-2").send().await.expect_status(201);
    broker.allocate("student-3").send().await.expect_status(409);
    broker.return_sandbox(held.sandbox_id(), "student-1").send().await.expect_status(200);
    for job in ["sync", "expire", "purge-stale", "cleanup"] {
        broker.job(job).await;
    }
    wait_for_condition("the deletion", async || match broker.stats().await {
        stats if stats.deleted == 1 => Ok(()),
        stats => Err(stats),
    })
    .await;
    let run = broker.api(0).call(Method::POST, "/v1/admin/sync").token(ADMIN_TOKEN);
    run.send().await.expect_status(200);
    broker.queues().send(&broker.queues().name("requests"), "this is not JSON").await;
    broker.holds_letters(1).await;
    let refilled =
        "[flavour.small]\nprefix = \"sandbox-\"\nrefill = { min = 1, max = 9, rate_per_minute = 60 }\n";
    policy::apply(broker, refilled).await;
    broker.allocate("student-2").send().await.expect_status(200);
    wait_for_condition("a census by a worker that knows the policy", async || {
        broker.job("census").await;
        let flavours = broker
            .api(0)
            .call(Method::GET, "/v1/admin/flavours")
            .token(ADMIN_TOKEN)
            .send()
            .await
            .expect_status(200);
        match &flavours.json["flavours"][0]["counts"]["total"] {
            total if total.as_u64() > Some(0) => Ok(()),
            _ => Err(flavours.json),
        }
    })
    .await;
    // One waits in a line until its time is over.
    let waits = broker.allocate("student-9").name_prefix("no-such-name").respond_async();
    let waits = waits.json(&serde_json::json!({ "max_wait_s": 1 })).send().await.expect_status(202);
    let ended = broker.outcome(waits.must_have("location"), "student-9").await;
    assert_eq!(ended.text_of("status"), "expired", "{ended:#?}");
}

async fn exposed(broker: &Broker) -> Exposed {
    let mut exposed = Exposed::default();
    for process in broker.metrics() {
        exposed.add(&process.probe("/metrics").await.expect("metrics").1);
    }
    exposed
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_the_alerts_asks_for_what_is_exposed() {
    let provider = Provider::start(2).await;
    story(provider.setup().pool(2).faults(8).var("BROKER_WAITING", "on"), async |broker| {
        everything_happens(broker).await;
        let queries: Vec<Query> = dashboard().into_iter().chain(alerts()).collect();
        assert!(queries.len() > 60, "{} queries", queries.len());
        // Gauges of the table are set every few seconds.
        wait_for_condition("all that is asked for", async || {
            // Refill believes a census that began after every process knew the policy.
            broker.job("census").await;
            broker.job("refill").await;
            broker.allocate("student-2").send().await.expect_status(200);
            let exposed = exposed(broker).await;
            let told = |(place, query): &Query| {
                exposed.missing(query).into_iter().map(|what| format!("{place}: {what}")).collect::<Vec<_>>()
            };
            let missing: Vec<_> = queries.iter().flat_map(told).collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
        assert_eq!(broker.discard(&["--all"]).await.done, 1);
    })
    .await;
}

#[tokio::test]
async fn what_an_alert_waits_for_is_counted_from_zero_on() {
    // A series that begins at 1 has not increased, as far as Prometheus can tell.
    story(Setup::new().apis(1).workers(1), async |broker| {
        let exposed = exposed(broker).await;
        for query in [
            "broker_allocate_total{outcome=\"no_sandboxes\"}",
            "broker_requests_shed_total",
            "broker_sync_total{outcome=\"refused\"}",
            "broker_allocate_conflicts_total",
            "broker_reply_waits_total{outcome=\"answered\"}",
            "broker_reply_waits_total{outcome=\"ran_out\"}",
            "broker_reply_waits_total{outcome=\"waiting\"}",
            "broker_ready",
            "broker_policy_unread_total{reason=\"invalid\"}",
        ] {
            assert_eq!(exposed.missing(query), Vec::<String>::new(), "{query}");
        }
    })
    .await;
}
