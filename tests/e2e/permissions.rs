//! Permissions of operators: no command makes an AWS call that the operator's policy does not allow.
//!
//! The policy is Terraform's; `infra/check/iam/compare.py` holds it to the lines of `infra/check/iam/calls.txt`, and this
//! story holds each command to the same lines.

use std::collections::BTreeSet;

use broker_tests::provider::HOOK_SECRET;
use broker_tests::table::{lease_key, sandbox_key};
use broker_tests::warden::scratch;
use broker_tests::{Broker, FaultProxy, Setup, endpoint::Urls, story};
use serde_json::json;

/// One flavour with everything that a command asks about. Nobody listens there, and nobody may be called there.
const POLICY: &str = "[flavour.small]\nprefix = \"sandbox-\"\ngate = { url = \"http://127.0.0.1:9/gate\" }\n\
                      refill = { min = 1, max = 9, rate_per_minute = 6 }\n";

const RESERVATION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/check/iam/calls.txt");

/// What the operator may do, without the service's name.
fn allowed() -> BTreeSet<String> {
    let calls = std::fs::read_to_string(CALLS).expect("the list of calls");
    let of_operator = calls.lines().filter_map(|line| line.strip_prefix("operator "));
    let actions = of_operator.filter_map(|line| line.split([' ', ':']).nth(1).map(str::to_owned));
    actions.collect()
}

/// What adding index and expiry to the ancestor's table needs besides: infra/docs/RUNBOOK.md names it, since no role of
/// Terraform's has it.
const TO_MOVE_OVER: [&str; 4] = ["DescribeTable", "UpdateTable", "DescribeTimeToLive", "UpdateTimeToLive"];

/// The IAM actions of a call. A transaction may need fewer; no command's transaction deletes.
fn actions(operation: &str) -> Vec<&str> {
    match operation {
        "TransactGetItems" => vec!["GetItem"],
        "TransactWriteItems" => vec!["PutItem", "UpdateItem"],
        "SendMessageBatch" => vec!["SendMessage"],
        "ExecuteStatement" => vec!["PartiQLSelect"],
        other => vec![other],
    }
}

/// The commands that `broker … --help` lists.
async fn listed(broker: &Broker, group: &[&str]) -> Vec<String> {
    let help = broker.cli_ok(&[group, &["--help"]].concat()).await.stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| line.starts_with("  "));
    let named = commands.filter_map(|line| line.split_whitespace().next());
    named.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Runs a command, and tells what it asked for that it may not.
async fn overreach(broker: &Broker, args: &[&str], allowed: &BTreeSet<String>) -> Vec<String> {
    let vars = broker.vars();
    let of = |name: &str| vars.iter().rfind(|(known, _)| known == name).expect("its endpoint").1.clone();
    let (dynamodb_url, sqs_url) = (of("AWS_ENDPOINT_URL_DYNAMODB"), of("AWS_ENDPOINT_URL_SQS"));
    let proxy = FaultProxy::start(&Urls { dynamodb_url, sqs_url }, 1).await;
    let through = [
        ("AWS_ENDPOINT_URL_DYNAMODB", proxy.urls().dynamodb_url.as_str()),
        ("AWS_ENDPOINT_URL_SQS", proxy.urls().sqs_url.as_str()),
    ];
    let output = broker.cli_with(args, &through).await;
    assert!([0, 1, 3].contains(&output.code), "broker {args:?}: {output:#?}");
    let asked = proxy.tallies();
    let asked = asked.iter().flat_map(|(operation, _)| actions(operation)).map(str::to_owned);
    let beyond: BTreeSet<_> = asked.filter(|action| !allowed.contains(action)).collect();
    beyond.into_iter().map(|action| format!("broker {}: {action}", args.join(" "))).collect()
}

#[tokio::test]
async fn moving_over_needs_the_operators_policy_and_what_the_runbook_names() {
    let runbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/docs/RUNBOOK.md");
    let runbook = std::fs::read_to_string(runbook).expect("the runbook");
    let (_, moving) = runbook.split_once("`broker init --adopt-table` adds the index").expect("its step");
    let (step, _) = moving.split_once("\n2. ").expect("the next step");
    let mut allowed = allowed();
    for action in TO_MOVE_OVER {
        assert!(step.contains(action), "the runbook does not name {action}: {step}");
        allowed.insert(action.to_owned());
    }
    story(Setup::new().apis(0).workers(0), async |broker| {
        broker.table().replace_by_bare().await;
        for command in [
            &["init", "--adopt-table"][..],
            &["init", "--adopt-table"],
            &["pool", "adopt", "--apart-s", "0"],
            &["pool", "adopt", "--apart-s", "0", "--apply"],
            &["pool", "verify"],
        ] {
            assert_eq!(overreach(broker, command, &allowed).await, Vec::<String>::new());
        }
    })
    .await;
}

/// A call of each command of an operator, on `sandbox` and files of handed-out lines and of a policy.
fn commands<'a>(sandbox: &'a str, path: &'a str, policy: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["pool", "list"],
        vec!["pool", "list", "--handed-out"],
        vec!["pool", "stats"],
        vec!["pool", "verify"],
        vec!["pool", "adopt", "--apart-s", "0"],
        vec!["pool", "adopt", "--apart-s", "0", "--apply"],
        vec!["pool", "pause"],
        vec!["pool", "reconcile", "--handed-out", path],
        vec!["pool", "reconcile", "--handed-out", path, "--apply"],
        vec!["pool", "resume"],
        vec!["pool", "seed", "--start", "50", "--count", "1"],
        vec!["quarantine", "add", "seed-000003", "--why", "a test"],
        vec!["quarantine", "list"],
        vec!["quarantine", "show", "seed-000003"],
        vec!["quarantine", "release", "--all"],
        vec!["quarantine", "retire", "--all"],
        vec!["pool", "seed", "--cleanup"],
        vec!["job", "pause", "sync"],
        vec!["job", "resume", "sync"],
        vec!["job", "run", "census", "--timeout-s", "0"],
        vec!["sandbox", "show", sandbox],
        vec!["sandbox", "history", sandbox],
        vec!["sandbox", "extend", sandbox, "--hours", "1"],
        vec!["sandbox", "release", sandbox],
        vec!["sandbox", "retry-delete", sandbox],
        vec!["dead-letters", "list"],
        vec!["dead-letters", "show", "1790000000000-0123456789abcdef0123456789abcdef"],
        vec!["dead-letters", "replay", "--all"],
        vec!["dead-letters", "discard", "--all", "--why", "a test"],
        vec!["policy", "diff", policy],
        vec!["policy", "apply", policy],
        vec!["policy", "show"],
        vec!["refill", "status"],
        vec!["refill", "pause", "small"],
        vec!["refill", "resume", "small"],
        vec![
            "reservation",
            "create",
            "--tenant",
            "acme",
            "--flavour",
            "small",
            "--count",
            "1",
            "--id",
            RESERVATION,
        ],
        vec!["reservation", "list"],
        vec!["reservation", "show", RESERVATION],
        vec!["reservation", "change", RESERVATION, "--count", "2"],
        vec!["reservation", "delete", RESERVATION],
        vec!["hooks", "test", "small.gate"],
        vec!["tenants"],
        vec!["waiting", "list"],
        vec!["waiting", "cancel", "--all"],
        vec!["overview"],
        vec!["track", "student-1"],
        vec!["queues"],
        vec!["audit"],
        vec!["doctor"],
        vec!["pool", "reshard", "--to", "8"],
        vec!["pool", "reshard", "--to", "8", "--apply"],
        vec!["pool", "reshard", "--to", "16", "--apply"],
    ]
}

#[tokio::test]
async fn every_command_of_an_operator_keeps_to_the_operators_policy() {
    let setup = Setup::new().apis(1).workers(1).pool(6).var("BROKER_HOOK_SECRETS", HOOK_SECRET);
    story(setup, async |broker| {
        let mut sandboxes = Vec::new();
        for track in ["student-1", "student-2", "student-3"] {
            let answer = broker.allocate(track).send().await.expect_status(201);
            sandboxes.push(answer.sandbox_id().to_owned());
        }
        broker.stop_workers().await;
        broker.stop_apis().await;
        let path = scratch().join(broker.queues().name("permissions"));
        let line = json!({ "sandbox_id": "seed-000099", "name": "n", "external_id": "identity/accounts/99", "track": "student-4" });
        std::fs::write(&path, format!("{line}\n")).expect("the file is written");
        let path = path.to_str().expect("a path of ours");
        let policy = scratch().join(broker.queues().name("policy"));
        std::fs::write(&policy, POLICY).expect("the file is written");
        let policy = policy.to_str().expect("a path of ours");
        let commands = commands(&sandboxes[1], path, policy);
        // Half a claim, so that reconcile has something to mend.
        let half = broker.table().must_get(&lease_key("student-1", "student-1")).await;
        broker.table().delete(&lease_key("student-1", "student-1")).await;
        let (allowed, mut beyond) = (allowed(), Vec::new());
        for command in &commands {
            beyond.extend(overreach(broker, command, &allowed).await);
        }
        assert_eq!(beyond, Vec::<String>::new(), "give it in Terraform's policy and record it in calls.txt, or do without");
        let mended = broker.table().must_get(&lease_key("student-1", "student-1")).await;
        assert_eq!(mended["sandbox_id"], half["sandbox_id"]);
        let renewed = broker.table().must_get(&sandbox_key("seed-000099")).await;
        assert_eq!(renewed["status"].as_s().expect("text"), "allocated");

        // Processes, what runs everything on one machine, what Terraform does on AWS, and a client of the API.
        let others = ["up", "endpoints", "provider", "init", "api", "worker", "lease"];
        for group in listed(broker, &[]).await.into_iter().filter(|group| !others.contains(&group.as_str())) {
            let tried = |words: &[&str]| commands.iter().any(|command| command.starts_with(words));
            let parts = match group.as_str() {
                "overview" | "track" | "tenants" | "queues" | "audit" | "doctor" => Vec::new(),
                group => listed(broker, &[group]).await,
            };
            assert!(tried(&[&group]), "broker {group} is not tried");
            for part in parts {
                assert!(tried(&[&group, &part]), "broker {group} {part} is not tried");
            }
        }
        broker.start_api().await;
        broker.start_worker().await;
    })
    .await;
}
