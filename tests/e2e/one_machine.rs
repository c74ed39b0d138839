//! `broker up --data-dir`: the whole broker on one machine, stopped and started again.

use std::process::Command;

use broker_tests::api::{ADMIN_TOKEN, TRACK_TOKEN};
use broker_tests::binaries::binaries;
use broker_tests::process::Process;
use broker_tests::{Answer, Api, Up, endpoint, raw, wait_for_condition, warden};

/// Starts `broker up` on `data_dir` and waits until it is ready.
async fn up(data_dir: &std::path::Path, workers: &str) -> (Process, Api) {
    up_by(Command::new(&binaries().broker), data_dir, workers).await
}

/// [`up`] by a command that ends in running `broker` with its arguments.
async fn up_by(mut command: Command, data_dir: &std::path::Path, workers: &str) -> (Process, Api) {
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

/// Lets the process write so many bytes into a file at most: what a disk without room is to its table.
fn room_for(process: &Process, bytes: &str) {
    let status = Command::new("prlimit")
        .args([format!("--pid={}", process.id()), format!("--fsize={bytes}:unlimited")])
        .status()
        .expect("prlimit of util-linux");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_full_disk_is_not_ready_says_so_and_loses_nothing() {
    let data_dir = warden::scratch().join("full-disk");
    // A write that has no room is an error then, not the end of the process.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(&binaries().broker);
    let (process, api) = up_by(shell, &data_dir, "1").await;
    let held = api.allocate("student-1").send().await.expect_status(201);

    // The table's journal is the largest file that it writes, and grows with each change; the log goes on.
    let journal = std::fs::metadata(data_dir.join("table.sqlite3-wal")).expect("a journal").len();
    room_for(&process, &journal.to_string());
    let refused = api.allocate("student-2").wait(2).send().await;
    assert_ne!(refused.status, 201, "{refused:#?}");
    wait_for_condition("broker up to be not ready", async || match api.probe("/readyz").await {
        Some((503, told)) if told.contains("\"table\":false") => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(api.probe("/healthz").await.map(|(status, _)| status), Some(200));
    let log = process.log();
    assert!(log.contains("disk"), "{log}");

    room_for(&process, "unlimited");
    wait_for_condition("broker up to be ready again", async || match api.probe("/readyz").await {
        Some((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    let same = api.allocate("student-1").send().await.expect_status(200);
    assert_eq!(same.sandbox_id(), held.sandbox_id());
    wait_for_condition("student-2 to have a sandbox", async || {
        let answer = api.allocate("student-2").send().await;
        if [200, 201].contains(&answer.status) { Ok(()) } else { Err(answer.status) }
    })
    .await;
    process.stop().await;
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

#[tokio::test]
async fn what_the_provider_brought_is_still_listed_after_a_restart() {
    let data_dir = warden::scratch().join("brought");
    let args = ["--pool", "5", "--data-dir", data_dir.to_str().expect("UTF-8")];
    let up = Up::start(&args).await;
    let printed = up.printed();
    let stand_in = printed.split("/hooks/refill").next().and_then(|before| before.rsplit("http://").next());
    let stand_in = stand_in.expect("the stand-in's address");
    let head = format!("POST /stand-in/accounts HTTP/1.1\r\nhost: {stand_in}\r\nconnection: close\r\n");
    let asked = format!("{head}content-length: 11\r\n\r\n{{\"count\":7}}");
    let told = raw::exchange_to_end(&Api::new(stand_in), asked.as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    // Another run may be under way.
    let synced = async |up: &Up| {
        wait_for_condition("a sync that lists all", async || {
            let told = up.environment().cli(&["job", "run", "sync", "--json"]).await;
            let stats = up.environment().stats().await;
            if told.code == 0 && stats.total == 12 { Ok(stats) } else { Err((told, stats)) }
        })
        .await
    };
    synced(&up).await;
    up.stop().await;

    let up = Up::start(&args).await;
    assert_eq!(synced(&up).await.stale, 0);
    up.stop().await;
}
