//! `broker up --data-dir`: the whole broker on one machine, stopped and started again.

use std::process::Command;

use broker_tests::api::{ADMIN_TOKEN, TRACK_TOKEN};
use broker_tests::binaries::binaries;
use broker_tests::process::Process;
use broker_tests::{Answer, Api, endpoint, wait_for_condition, warden};

/// Starts `broker up` on `data_dir` and waits until it is ready.
async fn up(data_dir: &std::path::Path, workers: &str) -> (Process, Api) {
    let mut command = Command::new(&binaries().broker);
    command.args(["up", "--port", "0", "--pool", "5", "--workers", workers, "--data-dir"]).arg(data_dir);
    endpoint::clean(&mut command)
        .env("BROKER_TRACK_TOKENS", format!("platform={TRACK_TOKEN}"))
        .env("BROKER_ADMIN_TOKENS", format!("ops={ADMIN_TOKEN}"))
        .envs([("BROKER_LOG", "info"), ("BROKER_LOG_FORMAT", "json")]);
    let mut process = Process::start("broker-up", &mut command);
    let api = Api::new(&process.listening("api listening").await);
    wait_for_condition("broker up to be ready", async || match api.probe("/readyz").await {
        Some((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    (process, api)
}

async fn enqueue(api: &Api, track: &str) -> String {
    let answer = api.allocate(track).respond_async().send().await.expect_status(202);
    answer.must_have("location").to_owned()
}

async fn outcome(api: &Api, location: &str, track: &str) -> Answer {
    wait_for_condition(&format!("the outcome of {location}"), async || {
        let answer = api.request(location, track).send().await.expect_status(200);
        if answer.text_of("status") == "queued" { Err(answer.text) } else { Ok(answer) }
    })
    .await
}

#[tokio::test]
async fn what_was_queued_is_sent_again_after_a_stop_and_after_a_crash() {
    let data_dir = warden::scratch().join("one-machine");
    let (process, api) = up(&data_dir, "0").await;
    let waited = api.allocate("student-1").wait(0).send().await.expect_status(202);
    let waited = waited.must_have("location").to_owned();
    let first = enqueue(&api, "student-2").await;
    let cancelled = enqueue(&api, "student-3").await;
    api.cancel(&cancelled, "student-3").send().await.expect_status(200);
    process.stop().await;

    let (process, api) = up(&data_dir, "0").await;
    let second = enqueue(&api, "student-4").await;
    drop(process); // SIGKILL

    let (process, api) = up(&data_dir, "1").await;
    for (location, track) in [(&waited, "student-1"), (&first, "student-2"), (&second, "student-4")] {
        let ended = outcome(&api, location, track).await;
        assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        let held = api.allocate(track).send().await.expect_status(200);
        assert_eq!(ended.json["response"]["body"]["sandbox_id"], held.sandbox_id());
    }
    let seen = api.request(&cancelled, "student-3").send().await.expect_status(200);
    assert_eq!(seen.text_of("status"), "cancelled");
    process.stop().await;

    // Nothing is left to send: all have ended.
    let (process, _api) = up(&data_dir, "0").await;
    assert!(
        process.stdout().contains("; 0 requests that were queued were sent again"),
        "{}",
        process.stdout()
    );
    process.stop().await;
}
