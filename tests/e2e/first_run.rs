//! First run: what `broker up` prints when something is wrong, and what it leaves.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;

use broker_tests::binaries::binaries;
use broker_tests::process::Process;
use broker_tests::{Up, endpoint, warden};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = taken.local_addr().expect("an address").port();
    let mut command = Command::new(&binaries().broker);
    command.args(["up", "--port", &port.to_string()]);
    let mut process = Process::start("broker-up", endpoint::clean(&mut command));
    assert_eq!(process.ended().await.code(), Some(1), "{}", process.tail());
    let said = process.log();
    assert!(said.contains(&format!("port {port} is taken")), "{said}");
    assert!(said.contains("--port"), "{said}");
    assert_eq!(process.printed(), "", "nothing is promised before it can be kept");

    let mut command = Command::new(&binaries().api);
    endpoint::clean(&mut command).env("BROKER_LISTEN", format!("127.0.0.1:{port}"));
    command.envs([("BROKER_LOCAL", "true"), ("AWS_REGION", endpoint::REGION)]);
    let mut process = Process::start("broker-api", &mut command);
    assert_eq!(process.ended().await.code(), Some(1), "{}", process.tail());
    assert!(process.log().contains("BROKER_LISTEN"), "{}", process.tail());
}

#[tokio::test]
async fn a_bad_setting_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = taken.local_addr().expect("an address").port();
    let (address, not_text) = (OsString::from(format!("127.0.0.1:{port}")), OsString::from_vec(vec![0xff]));
    for (name, value, code, also) in [
        ("BROKER_LOG", "info=loud".into(), 2, None),
        ("BROKER_SYNC_EVERY_S", not_text, 2, None),
        ("BROKER_ADMIN_TOKENS", "ops=0123456789abcdef".into(), 2, Some("BROKER_ADMIN_TOKENS_FILE")),
        ("BROKER_LISTEN", address, 1, None),
    ] {
        let mut command = Command::new(&binaries().broker);
        endpoint::clean(command.arg("up")).env(name, value).envs(also.map(|also| (also, "/dev/null")));
        let mut process = Process::start("broker-up", &mut command);
        assert_eq!(process.ended().await.code(), Some(code), "{name}: {}", process.tail());
        let named = if code == 2 { name.to_owned() } else { format!("port {port} is taken") };
        assert!(process.log().contains(&named), "{name}: {}", process.tail());
        assert_eq!(process.printed(), "", "{name}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_setting_is_told_by_up_and_not_again_by_its_workers() {
    let mut command = Command::new(&binaries().broker);
    command.env("BROKER_TABEL", "prod");
    let up = Up::start_with(command, &["--pool", "1", "--workers", "1..1"]).await;
    up.lists(1).await;
    up.api().allocate("student-1").send().await.expect_status(201);
    assert_eq!(up.log().matches("BROKER_TABEL").count(), 1, "{}", up.log());
    up.stop().await;
}

#[tokio::test]
async fn an_empty_pool_is_told_at_once_and_filled_as_it_says() {
    let up = Up::start(&["--pool", "0"]).await;
    let printed = up.printed();
    assert!(printed.contains("The pool is empty") && printed.contains("--pool 10"), "{printed}");
    up.api().allocate("student-1").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
    up.stop().await;
    let up = Up::start(&["--pool", "10"]).await;
    up.api().allocate("student-1").send().await.expect_status(201);
    up.stop().await;
}

#[tokio::test]
async fn what_ctrl_c_leaves_behind_is_told_before_and_after() {
    let in_memory = Up::start(&["--pool", "3"]).await;
    assert!(in_memory.printed().contains("nothing survives Ctrl-C"), "{}", in_memory.printed());
    let last = in_memory.interrupt().await;
    assert!(last.ends_with("Stopped. Nothing is left of it.\n"), "{last}");

    let data_dir = warden::scratch().join("first-run");
    let path = data_dir.to_str().expect("UTF-8");
    let kept = Up::start(&["--pool", "3", "--data-dir", path]).await;
    assert!(kept.printed().contains(&format!("The table is kept in {path}")), "{}", kept.printed());
    let held = kept.api().allocate("student-1").send().await.expect_status(201);
    let last = kept.interrupt().await;
    assert!(last.ends_with(&format!("Stopped. The table is left in {path}.\n")), "{last}");

    let again = Up::start(&["--pool", "3", "--data-dir", path]).await;
    let same = again.api().allocate("student-1").send().await.expect_status(200);
    assert_eq!(same.sandbox_id(), held.sandbox_id());
    again.stop().await;
}

#[tokio::test]
async fn a_machine_that_allows_few_open_files_is_told_what_follows_and_still_served() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 700 && exec \"$0\" \"$@\""]).arg(&binaries().broker);
    command.env("BROKER_MAX_CONNECTIONS", "20000");
    let up = Up::start_with(command, &["--pool", "2"]).await;
    let said = up.log();
    let told = said.lines().find(|line| line.contains("open files")).unwrap_or_else(|| panic!("{said}"));
    assert!(told.contains("ulimit -n") && told.contains("BROKER_MAX_CONNECTIONS"), "{told}");
    up.lists(2).await;
    up.api().allocate("student-1").send().await.expect_status(201);
    up.stop().await;
}
