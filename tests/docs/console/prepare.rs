//! Preparation of the broker for the console test: allocations, dead letters, waiting requests, limits, reservations.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Broker, wait_for_condition, warden};
use http::Method;
use serde_json::{Value, json};

use super::STUDENT;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// A flavour that is refilled: nothing is missing of it, so its hook is not called. Tenants with limits.
const POLICY: &str = r#"
[flavour.small]
prefix = "sandbox-"
refill = { min = 1, max = 1000000, rate_per_minute = 60, url = "https://ops.example/refill" }
[flavour.gpu]
prefix = "gpu-"
[tenant.platform]
limits = { small = 40, gpu = 0 }
[tenant.ci]
limits = { small = 5 }
weight = 2
"#;

/// The policy, and nothing goes on until everybody follows it.
pub(super) async fn policy(broker: &Broker) {
    let path = warden::scratch().join("console-policy.toml");
    std::fs::write(&path, POLICY).expect("the file is written");
    broker.cli_ok(&["policy", "apply", path.to_str().expect("a path of text")]).await;
    wait_for_condition("a census by a worker that knows the policy", async || {
        broker.job("census").await;
        let census = broker.table().must_get("CENSUS").await;
        if census.contains_key("by_flavour") { Ok(()) } else { Err(census) }
    })
    .await;
}

/// A student with a sandbox, one who gave it back, and a class.
pub(super) async fn students(broker: &Broker) -> String {
    let held = broker.allocate(STUDENT).lab("rust-basics").send().await.expect_status(201);
    let back = broker.allocate("student-tom").lab("rust-basics").send().await.expect_status(201);
    broker.return_sandbox(back.sandbox_id(), "student-tom").send().await.expect_status(200);
    for number in 0..12 {
        broker.allocate(&format!("student-{number}")).lab("go-basics").send().await.expect_status(201);
    }
    // Two that none of them got.
    broker.cli_ok(&["pool", "seed", "--name-prefix", "spare", "--start", "900000", "--count", "2"]).await;
    held.sandbox_id().to_owned()
}

/// As many letters that nobody can read, and two allocations that died.
pub(super) async fn dead_letters(broker: &Broker, letters: usize) {
    let queues = broker.queues();
    let (at, reply_to) =
        ((now_s() - 60) * 1_000, queues.name("replies-01890a5d-ac96-774b-bcce-b302099a8057"));
    let allocate = |number: usize| {
        json!({
            "v": 1, "request_id": format!("01890a5d-ac96-774b-8000-{number:012x}"), "reply_to": reply_to,
            "enqueued_at_ms": at, "reply_by_ms": at, "deadline_ms": at + 900_000, "async": false,
            "body": { "kind": "allocate", "track_id": format!("late-{number}"), "fingerprint": "f", "lab_duration_hours": 4, "prefix": "sandbox-" },
        })
        .to_string()
    };
    let poison: Vec<_> = (0..letters).map(|number| format!("poison {number}")).collect();
    queues.send_all(&queues.name("maintenance-dlq"), &poison).await;
    queues.send_all(&queues.name("requests-dlq"), &[allocate(1), allocate(2)]).await;
    while broker.open_letters().await.len() < letters + 2 {
        tokio::task::yield_now().await;
    }
}

/// Three students who want what there is not.
pub(super) async fn wait_in_line(broker: &Broker) {
    for number in 0..3 {
        let call = broker.allocate(&format!("waits-{number}")).name_prefix("big-").respond_async();
        call.json(&json!({ "max_wait_s": 3_600 })).send().await.expect_status(202);
    }
    while broker.table().keys("LINE#").await.len() < 3 {
        tokio::task::yield_now().await;
    }
}

async fn reservations_of(broker: &Broker, method: Method, path: &str, terms: Option<Value>) -> Value {
    let call = broker.api(0).call(method, &format!("/v1/admin/reservations{path}")).token(ADMIN_TOKEN);
    let call = match &terms {
        Some(terms) => call.json(terms),
        None => call,
    };
    let answer = call.send().await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text);
    answer.json
}

/// A class that sits, one tomorrow, a floor, and one that was given up.
pub(super) async fn reservations(broker: &Broker) {
    let made = async |terms| reservations_of(broker, Method::POST, "", Some(terms)).await;
    let now = now_s();
    let sits = made(json!({ "tenant": "evening", "prefix": "sandbox-00001", "count": 3, "from": now - HOUR,
                            "until": now + 2 * HOUR, "no_show_s": 2 * HOUR }));
    let sits = sits.await["id"].as_str().expect("an id").to_owned();
    made(json!({ "tenant": "platform", "flavour": "small", "count": 30, "from": now + DAY, "until": now + DAY + 4 * HOUR,
                 "lead_s": 2 * HOUR }))
    .await;
    made(json!({ "tenant": "ci", "prefix": "sandbox-00002", "count": 1 })).await;
    let over =
        made(json!({ "tenant": "evening", "prefix": "sandbox-00003", "count": 2, "from": now + 3 * DAY }));
    let over = over.await["id"].as_str().expect("an id").to_owned();
    reservations_of(broker, Method::DELETE, &format!("/{over}"), None).await;
    wait_for_condition("a class to have its sandboxes", async || {
        let told = reservations_of(broker, Method::GET, &format!("/{sits}"), None).await;
        if told["held"] == 3 { Ok(()) } else { Err(told) }
    })
    .await;
}

/// The pool and the lines are counted as they are.
pub(super) async fn until_counted(broker: &Broker) {
    broker.job("census").await;
    wait_for_condition("a walk of the lines", async || {
        let call = broker.api(0).call(Method::GET, "/v1/admin/tenants?tenant=platform").token(ADMIN_TOKEN);
        let told = call.send().await.expect_status(200);
        if told.json["tenants"][0]["waiting"] == 3 { Ok(()) } else { Err(told.text) }
    })
    .await;
}
