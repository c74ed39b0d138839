//! Reservations: sandboxes that are put aside for one tenant.

mod claims;
mod life;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Answer, Broker, Call, Setup, wait_for_condition};
use http::Method;
use serde_json::Value;

const ACME: &str = "tok-of-acme-0123456789";
const UMBRELLA: &str = "tok-of-umbrella-01234";
const READER: &str = "tok-of-a-reader-012345";
const SMALL: &str = "[flavour.small]\nprefix = \"lab-\"\n[flavour.gpu]\nprefix = \"gpu-\"\n";
const HOUR: u64 = 3_600;

fn setup() -> Setup {
    of_tenants(Setup::new())
}

fn of_tenants(setup: Setup) -> Setup {
    setup
        .var("BROKER_TRACK_TOKENS", &format!("acme={ACME},umbrella={UMBRELLA}"))
        .var("BROKER_ADMIN_TOKENS", &format!("admin={ADMIN_TOKEN},eve:ro={READER}"))
        .var("BROKER_WAITING", "on")
        .var("BROKER_SERVE_EVERY_S", "1")
}

async fn seed(broker: &Broker, start: usize, count: usize) {
    let (start, count) = (start.to_string(), count.to_string());
    broker.cli_ok(&["pool", "seed", "--name-prefix", "lab", "--start", &start, "--count", &count]).await;
}

/// Reserves by the command, and returns the id.
async fn reserve(broker: &Broker, args: &[&str]) -> String {
    let args = [&["reservation", "create", "--tenant", "acme", "--json"], args].concat();
    let made: Value = broker.cli_ok(&args).await.json();
    made["id"].as_str().expect("an id").to_owned()
}

fn at(seconds: u64) -> String {
    // A time of a zone that is an hour ahead.
    let ahead = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds + HOUR);
    let text = aws_sdk_sqs::primitives::DateTime::from(ahead);
    let text = text.fmt(aws_sdk_sqs::primitives::DateTimeFormat::DateTime).expect("a time");
    text.replace('Z', "+01:00")
}

async fn shown(broker: &Broker, id: &str) -> Value {
    broker.cli_ok(&["reservation", "show", id, "--json"]).await.json()
}

async fn reserved(broker: &Broker) -> u64 {
    // A busy machine may not count in time.
    wait_for_condition("a count of the pool", async || {
        let live = broker.balanced().call(Method::GET, "/v1/admin/stats?live=true").token(ADMIN_TOKEN);
        let told = live.send().await;
        if told.status == 200 { Ok(told.number_of("reserved")) } else { Err(told.text) }
    })
    .await
}

async fn until_reserved(broker: &Broker, count: u64) {
    wait_for_condition(&format!("{count} to be put aside"), async || match reserved(broker).await {
        now if now == count => Ok(()),
        now => Err(now),
    })
    .await;
}

fn asks(broker: &Broker, token: &str, track: &str) -> Call {
    broker.allocate(track).token(token).header("x-sandbox-flavour", "small")
}

async fn api(broker: &Broker, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let call = broker.balanced().call(method, &format!("/v1/admin/reservations{path}")).token(token);
    match body {
        Some(body) => call.json(body).send().await,
        None => call.send().await,
    }
}
