//! Flavour with gate, refill and quarantine, and with hooks that fail, beside the sandboxes of all other clients; and the checks of
//! it at the end.

use broker_tests::{Broker, Provider, wait_for_condition};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde::Deserialize;
use serde_json::{Value, json};

/// There are never more of it.
pub(crate) const MAX: usize = 300;
/// How its names begin.
const PREFIX: &str = "guarded-";
/// What a scheduler outside starts, again and again.
const JOBS: [&str; 2] = ["census", "refill"];

/// The flavour, as the policy says it.
pub(crate) fn policy(provider: &Provider) -> String {
    let url = provider.url();
    format!(
        "[flavour.guarded]\nprefix = \"{PREFIX}\"\nfailed_deletions = \"quarantine\"\n\
         refill = {{ min = 40, max = {MAX}, rate_per_minute = 3000, url = \"{url}/hooks/refill\", timeout_s = 2 }}\n\
         gate = {{ url = \"{url}/hooks/gate\", timeout_s = 2, attempts = 3 }}\n"
    )
}

/// Starts its jobs, as a scheduler outside does: twice, for it may.
pub(crate) async fn start_jobs(broker: &Broker) {
    let queues = broker.queues();
    for job in JOBS {
        let text = format!(r#"{{"v":1,"body":{{"kind":"start_job","job":"{job}"}}}}"#);
        queues.send_all(&queues.name("maintenance"), &[text.clone(), text]).await;
    }
}

/// Faults of the hooks, beside those of the list. None of them makes an account that nobody asked for.
pub(crate) fn hook_faults(rng: &mut SmallRng, faults: &mut Value) {
    let gates = [
        json!({}),
        json!({ "status": 422, "reason": "broken", "every": 3 }),
        json!({ "status": 500 }),
        json!({ "status": 429, "retry_after_s": 1, "every": 2 }),
        json!({ "lost": true, "every": 2 }),
        json!({ "delay_ms": 3_000, "every": 4 }),
    ];
    let refills = [
        json!({}),
        json!({ "status": 500 }),
        json!({ "status": 422, "every": 2 }),
        json!({ "status": 429, "retry_after_s": 1, "every": 2 }),
        json!({ "lost": true }),
        json!({ "lies": true, "every": 2 }),
        json!({ "delay_ms": 1_500 }),
    ];
    faults["gate"] = gates[rng.random_range(0..gates.len())].clone();
    faults["refill"] = refills[rng.random_range(0..refills.len())].clone();
}

/// A sandbox in a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    name: String,
    status: String,
}

impl Row {
    /// Whether it is of the flavour that supplies itself.
    pub(crate) fn is_guarded(&self) -> bool {
        self.name.starts_with(PREFIX)
    }
}

/// Everything that is not as it must be, once the hooks answer again.
pub(crate) async fn judge(broker: &Broker, provider: &Provider) -> Vec<String> {
    // What a dead worker had asked about is asked again after a pause.
    wait_for_condition("everything that arrived to be asked about", async || {
        broker.job("serve").await;
        match broker.stats().await {
            stats if stats.arriving == 0 => Ok(()),
            stats => Err(stats),
        }
    })
    .await;
    let listed = broker.cli_ok(&["pool", "list", "--limit", "1000000", "--json"]).await;
    let rows: Vec<Row> = listed.json();
    let of_it: Vec<_> = rows.iter().filter(|row| row.is_guarded()).collect();
    let quarantined = of_it.iter().filter(|row| row.status == "quarantined").count();
    let world = provider.world().await;
    let asked: std::collections::BTreeSet<_> =
        world.hooked("sandbox.check").filter_map(|call| call.data["sandbox_id"].as_str()).collect();
    println!(
        "the flavour with hooks: {} sandboxes, {quarantined} in quarantine, {} asked about, {} calls of the gate, {} of refill",
        of_it.len(),
        asked.len(),
        world.hooked("sandbox.check").count(),
        world.hooked("refill.requested").count()
    );
    let mut faults = Vec::new();
    if of_it.len() > MAX {
        faults.push(format!("{} sandboxes of the flavour are more than max, {MAX}", of_it.len()));
    }
    if quarantined > 1 && quarantined * 5 > of_it.len() {
        faults.push(format!("{quarantined} of {} are in quarantine: more than a fifth", of_it.len()));
    }
    if asked.is_empty() {
        faults.push("nothing was ever asked for, or about: the run shows nothing".to_owned());
    }
    faults
}
