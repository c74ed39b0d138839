//! `broker lease`: a command with a sandbox of its own.

use std::time::Duration;

use broker_tests::cli::Output;
use broker_tests::process::Process;
use broker_tests::table::text;
use broker_tests::{Broker, Setup, TRACK_TOKEN, story, wait_for_condition, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::waiting;

fn vars(broker: &Broker) -> [(&'static str, String); 2] {
    let url = format!("http://{}", broker.balanced().address());
    [("BROKER_URL", url), ("BROKER_TOKEN", TRACK_TOKEN.to_owned())]
}

/// `broker lease` with these arguments, to its end.
async fn lease(broker: &Broker, args: &[&str]) -> Output {
    let vars = vars(broker);
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    broker.cli_with(&[&["lease"], args].concat(), &vars).await
}

/// `broker lease` with these arguments, under way.
fn leasing(broker: &Broker, args: &[&str]) -> Process {
    let mut command = broker.cli_command(&[&["lease"], args].concat());
    Process::start("broker-lease", command.envs(vars(broker)))
}

/// Waits until the command of a `broker lease` has said this.
async fn says(process: &Process, word: &str) {
    wait_until(&format!("the command says {word}"), || process.stdout().contains(word)).await;
}

async fn pool_is(broker: &Broker, allocated: u64, pending_deletion: u64) {
    let stats = broker.stats().await;
    assert_eq!((stats.allocated, stats.pending_deletion), (allocated, pending_deletion), "{stats:?}");
}

#[tokio::test]
async fn a_command_finds_its_sandbox_in_its_environment_and_its_code_is_told_on() {
    story(Setup::new().pool(4), async |broker| {
        let script = r#"echo "$SANDBOX_ID|$SANDBOX_NAME|$SANDBOX_EXTERNAL_ID|$SANDBOX_EXPIRES_AT"; exit 7"#;
        let ran = lease(broker, &["--owner", "job-1", "--lab", "nightly", "--", "sh", "-c", script]).await;
        assert_eq!(ran.code, 7, "{ran:#?}");
        let told: Vec<_> = ran.stdout.trim().split('|').collect();
        let shown = broker.shown(told[0]).await;
        assert_eq!((&shown["name"], &shown["external_id"]), (&json!(told[1]), &json!(told[2])));
        assert_eq!((&shown["track"], &shown["track_name"]), (&json!("job-1"), &json!("nightly")));
        assert_eq!(
            (&shown["status"], &shown["deletion_reason"]),
            (&json!("pending_deletion"), &json!("marked"))
        );
        let lasted =
            told[3].parse::<u64>().expect("seconds") - shown["allocated_at"].as_u64().expect("seconds");
        assert_eq!(lasted, 180, "three heartbeats");

        assert_eq!(lease(broker, &["--", "no-such-command-at-all"]).await.code, 127);
        assert_eq!(lease(broker, &["--", "sh", "-c", "kill -KILL $$"]).await.code, 137);
        pool_is(broker, 0, 3).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_said_before_anything_is_asked_for() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        for wrong in [
            &["--heartbeat", "29s", "--", "true"][..],
            &["--wait", "soon", "--", "true"],
            &["--hours", "0", "--", "true"],
            &["--owner", "not an id", "--", "true"],
            &[],
        ] {
            let told = lease(broker, wrong).await;
            assert_eq!(told.code, 2, "{wrong:?} {told:#?}");
        }
        for (missing, value) in [
            ("BROKER_URL", ""),
            ("BROKER_TOKEN", ""),
            ("BROKER_URL", "nowhere"),
            ("BROKER_TOKEN", "two\nlines"),
        ] {
            let vars = vars(broker);
            let mut vars = vars.each_ref().map(|(name, value)| (*name, value.as_str())).to_vec();
            vars.push((missing, value));
            let told = broker.cli_with(&["lease", "--", "true"], &vars).await;
            assert_eq!(told.code, 2, "{told:#?}");
            assert!(told.stderr.contains(missing), "{told:#?}");
            let other = if missing == "BROKER_URL" { "BROKER_TOKEN" } else { "BROKER_URL" };
            assert!(!told.stderr.contains(other), "{told:#?}");
        }
        let hours = lease(broker, &["--hours", "0", "--", "true"]).await;
        assert!(hours.stderr.contains("--hours"), "{hours:#?}");
        assert!(!hours.stderr.contains("lab_duration_hours"), "{hours:#?}");
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_wait_ends_with_a_sandbox_or_says_that_there_was_none() {
    story(Setup::new().pool(0), async |broker| {
        let none = lease(broker, &["--wait", "1s", "--", "echo", "ran"]).await;
        assert_eq!((none.code, none.stdout.as_str()), (75, ""), "{none:#?}");
        assert!(none.stderr.contains("NO_SANDBOXES_AVAILABLE"), "{none:#?}");
        let waiting = leasing(broker, &["--wait", "2m", "--", "echo", "has $SANDBOX_ID"]);
        wait_for_condition("it asks", async || {
            let refused = broker.api(0).metric("broker_allocate_total").await
                + broker.api(1 % broker.addresses().len()).metric("broker_allocate_total").await;
            if refused >= 2.0 { Ok(()) } else { Err(refused) }
        })
        .await;
        broker.seed(1).await;
        says(&waiting, "has").await;
        let mut waiting = waiting;
        assert!(waiting.ended().await.success());
        pool_is(broker, 0, 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_signal_goes_on_to_the_command_and_the_sandbox_is_given_back() {
    story(Setup::new().pool(2), async |broker| {
        for (number, signal) in [(1, Signal::SIGTERM), (2, Signal::SIGINT)] {
            let script = "trap 'echo told; exit 9' TERM INT; echo begun; while :; do sleep 0.1; done";
            let mut leasing = leasing(broker, &["--", "sh", "-c", script]);
            says(&leasing, "begun").await;
            pool_is(broker, 1, number - 1).await;
            leasing.signal(signal);
            assert_eq!(leasing.ended().await.code(), Some(9), "{}", leasing.log());
            assert!(leasing.stdout().contains("told"));
            pool_is(broker, 0, number).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_whose_heartbeat_is_refused_is_ended_loudly() {
    story(Setup::new().pool(1), async |broker| {
        let script = "echo begun $SANDBOX_ID; exec sleep 600";
        let args = ["--owner", "job-1", "--heartbeat", "30s", "--", "sh", "-c", script];
        let mut leasing = leasing(broker, &args);
        says(&leasing, "begun").await;
        let sandbox = leasing.stdout().trim().trim_start_matches("begun ").to_owned();
        broker.cli_ok(&["sandbox", "release", &sandbox]).await;
        let ended = leasing.ended().await;
        assert_eq!(ended.code(), Some(70), "{}", leasing.log());
        let log = leasing.log();
        assert!(log.contains("ALLOCATION_EXPIRED") && log.contains(&sandbox), "{log}");
    })
    .await;
}

#[tokio::test]
async fn the_sandbox_of_a_lease_that_was_killed_is_abandoned() {
    story(Setup::new().pool(1), async |broker| {
        let args =
            ["--owner", "job-1", "--heartbeat", "30s", "--", "sh", "-c", "echo $SANDBOX_ID; exec sleep 5"];
        let mut leasing = leasing(broker, &args);
        wait_until("the command begins", || leasing.stdout().ends_with('\n')).await;
        let sandbox = leasing.stdout().trim().to_owned();
        leasing.signal(Signal::SIGKILL);
        leasing.ended().await;
        pool_is(broker, 1, 0).await;
        // Three heartbeats later.
        broker.table().age(&sandbox, 2).await;
        assert_eq!(broker.job("expire").await.changed, 1);
        assert_eq!(broker.shown(&sandbox).await["deletion_reason"], "abandoned");
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_away_for_a_while_ends_no_command() {
    story(Setup::new().apis(1).pool(1), async |broker| {
        let args = ["--heartbeat", "30s", "--", "sh", "-c", "echo begun; sleep 33; echo whole"];
        let mut leasing = leasing(broker, &args);
        says(&leasing, "begun").await;
        broker.stop_apis().await;
        wait_until("a heartbeat fails", || leasing.log().contains("a heartbeat was not answered")).await;
        says(&leasing, "whole").await;
        leasing.signal(Signal::SIGKILL);
        leasing.ended().await;
        broker.start_api().await;
    })
    .await;
}

/// The calls of allocate that were answered.
async fn asked(broker: &Broker) -> f64 {
    broker.api(0).metric("broker_allocate_total").await + broker.api(1).metric("broker_allocate_total").await
}

#[tokio::test]
async fn a_command_that_waited_in_vain_ends_with_its_wait_and_says_so() {
    story(waiting::setup(), async |broker| {
        let before = asked(broker).await;
        let ran = lease(broker, &["--wait", "4s", "--", "echo", "ran"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (75, ""), "{ran:#?}");
        assert!(ran.stderr.contains("no sandbox within 4 s"), "{ran:#?}");
        for not_so in ["UNAVAILABLE", "No worker"] {
            assert!(!ran.stderr.contains(not_so), "{ran:#?}");
        }
        // It has one place, and asks for no other when that one's time is over.
        let calls = asked(broker).await - before;
        assert!((1.0..=2.0).contains(&calls), "{calls} calls: {ran:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_is_told_to_end_while_it_waits_leaves_the_line_at_once() {
    story(waiting::setup(), async |broker| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut leasing = leasing(broker, &["--owner", "job-1", "--wait", "10m", "--", "true"]);
            wait_for_condition("it to be parked", async || {
                match broker.table().keys("LINE#").await.as_slice() {
                    [_] => Ok(()),
                    keys => Err(keys.to_vec()),
                }
            })
            .await;
            leasing.signal(signal);
            // Its first call was held for 20 s once, and nobody listened meanwhile.
            let ended = tokio::time::timeout(Duration::from_secs(15), leasing.ended()).await;
            let code = ended.ok().and_then(|status| status.code());
            assert_eq!(code, Some(75), "{}", leasing.log());
            assert_eq!(broker.table().keys("LINE#").await, Vec::<String>::new(), "{}", leasing.log());
        }
        for key in broker.table().keys("REQ#").await {
            assert_eq!(broker.table().must_get(&key).await["state"], text("cancelled"));
        }
        waiting::arrive(broker, 0, 1).await;
        assert_eq!(broker.stats().await.allocated, 0);
    })
    .await;
}
