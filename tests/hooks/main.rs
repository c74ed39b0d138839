//! `broker-hooks`: events to hooks, verified by other implementations. `tests/hooks/run` starts hooks with the verifiers of
//! Standard Webhooks for Python and JavaScript. Exit codes: 0 all judge as they should, 101 (a panic with the reason) not.

use std::time::Duration;

use broker_domain::Timestamp;
use broker_domain::policy::Hook;
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind, Hooks};
use broker_runtime::clock::Clock;
use broker_runtime::config::{HookSecret, HooksConfig, Networks};
use clap::Parser;
use serde_json::json;

/// Asks each hook with both secrets, which it must accept, and with the one that it does not have, which it must refuse.
#[derive(Debug, Parser)]
struct Arguments {
    /// The secret of the hooks whose names end in -old
    #[arg(long)]
    old: String,
    /// The secret of the others
    #[arg(long)]
    new: String,
    /// The hooks: NAME=URL
    #[arg(required = true)]
    hooks: Vec<String>,
}

fn signing(secrets: &[&str]) -> Hooks {
    let secrets = secrets.iter().map(|secret| HookSecret::parse(secret).expect("a secret"));
    let networks = Networks::parse("127.0.0.1").expect("an address");
    Hooks::new(&HooksConfig { secrets: secrets.collect(), networks }, Clock::system())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { old, new, hooks } = Arguments::parse();
    let at = Timestamp::from_ms(1_795_824_000_000);
    let data = json!({ "name": "lab-ä" });
    let event = HookEvent { id: "check_lab-1_3".to_owned(), kind: HookKind::Check, at, data };
    for named in &hooks {
        let (name, url) = named.split_once('=').expect("NAME=URL");
        let hook = Hook { url: url.parse().expect("a URL"), timeout: Duration::from_secs(10) };
        let both = signing(&[&old, &new]).ask(&hook, &event).await;
        assert_eq!(both, HookAnswer::Yes { status: 204 }, "{name}");
        let other = if name.ends_with("-old") { &new } else { &old };
        let refused = signing(&[other]).ask(&hook, &event).await;
        assert!(matches!(refused, HookAnswer::No { .. }), "{name} takes a signature of another secret");
        println!("{name}: accepts ours beside the other secret's, refuses the other's alone: {refused:?}");
    }
}
