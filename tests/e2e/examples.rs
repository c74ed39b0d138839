//! Examples for integrators: the scripts of `infra/examples`, run as they are.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::binaries::{binaries, workspace};
use broker_tests::process::Process;
use broker_tests::warden::scratch;
use broker_tests::{Api, Broker, Setup, TRACK_TOKEN, endpoint, story, wait_for_condition, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

/// How a script ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The sandbox that a start printed.
    #[track_caller]
    fn sandbox(&self) -> String {
        let told: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {self:#?}, {}", self.stderr));
        told["sandbox_id"].as_str().unwrap_or_else(|| panic!("no sandbox: {self:#?}")).to_owned()
    }
}

/// Starts `line` (a script and its arguments) against `api`, with more environment variables.
fn start(api: &Api, line: &str, vars: &[(&str, &str)]) -> JoinHandle<Ran> {
    let mut words = line.split(' ');
    let script = workspace().join("infra/examples").join(words.next().unwrap_or_default());
    let mut command = Command::new(&script);
    endpoint::clean(&mut command).args(words).env("BROKER_URL", format!("http://{}", api.address()));
    command.env("BROKER_TOKEN", TRACK_TOKEN).envs(vars.iter().copied()).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    tokio::spawn(async move {
        let output = command.kill_on_drop(true).output().await;
        let output =
            output.unwrap_or_else(|error| panic!("{} (needs curl, python3): {error}", script.display()));
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

async fn run(broker: &Broker, line: &str) -> Ran {
    start(broker.balanced(), line, &[]).await.expect("the script was waited for")
}

/// Waits until some API has answered an allocate with `status`.
async fn answered(broker: &Broker, status: u16) {
    let (route, status) = ("route=\"/v1/allocate\"", format!("status=\"{status}\""));
    wait_for_condition(&format!("an allocate with {status}"), async || {
        for api in broker.metrics() {
            let (_, text) = api.probe("/metrics").await.unwrap_or_default();
            if text.lines().any(|line| line.contains(route) && line.contains(&status)) {
                return Ok(());
            }
        }
        Err("none")
    })
    .await;
}

#[tokio::test]
async fn the_calls_are_answered_as_their_comments_say() {
    story(Setup::new().pool(2), async |broker| {
        let ran = run(broker, "calls.sh").await.expect_code(0);
        let statuses: Vec<_> = ran.stdout.split_whitespace().collect();
        assert_eq!(
            statuses,
            ["201", "200", "202", "200", "422", "409", "403", "200", "200", "200"],
            "{ran:#?}"
        );
        assert_eq!(broker.stats().await.pending_deletion, 2);
    })
    .await;
}

/// The commands of a section of the README.
fn commands(heading: &str) -> String {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("a README");
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("commands").to_owned()
}

#[tokio::test]
async fn a_class_is_reserved_as_the_readme_says() {
    story(Setup::new().pool(2), async |broker| {
        let mut command = Command::new("sh");
        endpoint::clean(&mut command).args(["-ec", &commands("A class at nine")]).stdin(Stdio::null());
        command.env("URL", format!("http://{}", broker.balanced().address()));
        command.envs([("TOKEN", TRACK_TOKEN), ("ADMIN_TOKEN", ADMIN_TOKEN)]);
        let ran = tokio::process::Command::from(command).output().await.expect("sh, curl and date are there");
        assert!(ran.status.success(), "{ran:?}");
        let told: Vec<Value> = serde_json::Deserializer::from_slice(&ran.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("JSON");
        let [made, quota] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((made["count"].as_u64(), made["state"].as_str()), (Some(30), Some("planned")), "{made}");
        assert_eq!(
            (quota["tenant"].as_str(), &quota["reservations"][0]["id"]),
            (Some("platform"), &made["id"])
        );
    })
    .await;
}

#[tokio::test]
async fn a_lab_starts_again_with_its_sandbox_and_stops_as_often_as_it_likes() {
    story(Setup::new().pool(4), async |broker| {
        for (script, instance) in [("start", "student-1"), ("lab.py start", "student-2")] {
            let first = run(broker, &format!("{script} {instance}")).await.expect_code(0).sandbox();
            let again = run(broker, &format!("{script} {instance}")).await.expect_code(0).sandbox();
            assert_eq!(first, again);
        }
        let held = run(broker, "start student-1").await.expect_code(0).sandbox();
        let second = run(broker, "lab.py start student-2 --key second --lab kubernetes-101 --async").await;
        let second = second.expect_code(0).sandbox();
        assert_eq!(broker.stats().await.allocated, 3);

        run(broker, &format!("stop student-2 {held}")).await.expect_code(1);
        run(broker, &format!("lab.py stop student-2 {held}")).await.expect_code(1);
        run(broker, &format!("stop student-1 {held}")).await.expect_code(0);
        run(broker, &format!("lab.py stop student-1 {held}")).await.expect_code(0);
        run(broker, &format!("lab.py stop student-2 {second}")).await.expect_code(0);
        for script in ["stop", "lab.py stop"] {
            run(broker, &format!("{script} student-1 gone-long-ago")).await.expect_code(0);
            run(broker, &format!("{} student~1", script.replace("stop", "start"))).await.expect_code(1);
        }
        assert_eq!(broker.stats().await.pending_deletion, 2);
    })
    .await;
}

#[tokio::test]
async fn a_start_on_the_empty_pool_waits_for_sandboxes_and_not_for_ever() {
    story(Setup::new().apis(2), async |broker| {
        let late = start(broker.api(0), "start student-1", &[("PATIENCE_S", "0")]);
        late.await.unwrap().expect_code(75);
        let late = start(broker.api(0), "lab.py start student-1", &[("PATIENCE_S", "0")]);
        late.await.unwrap().expect_code(75);

        let waiting =
            ["start student-1", "lab.py start student-2"].map(|line| start(broker.api(1), line, &[]));
        answered(broker, 409).await;
        broker.seed(2).await;
        for ran in waiting {
            ran.await.unwrap().expect_code(0).sandbox();
        }
    })
    .await;
}

#[tokio::test]
async fn a_start_outlasts_202_and_503() {
    let slow = Setup::new().apis(1).workers(0).pool(3).var("BROKER_MAX_PENDING", "1");
    story(slow, async |broker| {
        // It gets a 202 after its wait, and its request goes on waiting: no other may.
        let first = start(broker.api(0), "start student-1", &[("WAIT_S", "1")]);
        answered(broker, 202).await;
        let others =
            ["start student-2", "lab.py start student-3"].map(|line| start(broker.api(0), line, &[]));
        answered(broker, 503).await;
        broker.start_worker().await;
        let mut sandboxes = vec![first.await.unwrap().expect_code(0).sandbox()];
        for ran in others {
            sandboxes.push(ran.await.unwrap().expect_code(0).sandbox());
        }
        sandboxes.sort();
        sandboxes.dedup();
        assert_eq!(sandboxes.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn scripts_that_know_no_202_outlast_a_wait_that_runs_out() {
    let slow = Setup::new().apis(1).workers(0).pool(3).var("BROKER_WAIT_S", "1");
    story(slow, async |broker| {
        let waiting =
            ["start student-1", "lab.py start student-2"].map(|line| start(broker.api(0), line, &[]));
        answered(broker, 503).await;
        broker.start_worker().await;
        for ran in waiting {
            ran.await.unwrap().expect_code(0).sandbox();
        }
    })
    .await;
}

#[tokio::test]
async fn a_start_slows_down_when_it_is_told_to() {
    let limited = [("BROKER_RATE_LIMIT", "1"), ("BROKER_RATE_BURST", "1")];
    let setup =
        limited.iter().fold(Setup::new().apis(1).pool(6), |setup, (name, value)| setup.var(name, value));
    story(setup, async |broker| {
        let lines = (0..3).flat_map(|n| [format!("start student-{n}"), format!("lab.py start pupil-{n}")]);
        let started: Vec<_> = lines.map(|line| start(broker.api(0), &line, &[])).collect();
        for ran in started {
            ran.await.unwrap().expect_code(0).sandbox();
        }
        answered(broker, 429).await;
    })
    .await;
}

#[tokio::test]
async fn a_lab_is_renewed_from_its_page_until_it_is_taken_back() {
    story(Setup::new().pool(2), async |broker| {
        let held = run(broker, "start student-1").await.expect_code(0).sandbox();
        let end = async || broker.shown(&held).await["expires_at"].to_string();
        let until = run(broker, &format!("renew student-1 {held} 9")).await.expect_code(0).stdout;
        assert_eq!(until.trim(), end().await);
        let until =
            run(broker, &format!("lab.py renew student-1 {held} --hours 20")).await.expect_code(0).stdout;
        assert_eq!(until.trim(), end().await);
        let shorter = run(broker, &format!("renew student-1 {held}")).await.expect_code(0).stdout;
        assert_eq!(shorter, until);
        for script in ["renew", "lab.py renew"] {
            run(broker, &format!("{script} student-2 {held}")).await.expect_code(1);
        }
        broker.cli_ok(&["sandbox", "release", &held]).await;
        for script in ["renew", "lab.py renew"] {
            run(broker, &format!("{script} student-1 {held}")).await.expect_code(3);
        }
    })
    .await;
}

#[tokio::test]
async fn a_student_who_waits_is_told_why() {
    story(Setup::new().apis(2), async |broker| {
        let waiting = [(0, "start student-1"), (1, "lab.py start student-2")];
        let waiting = waiting.map(|(api, line)| start(broker.api(api), line, &[]));
        for api in [0, 1] {
            wait_for_condition("both to be refused", async || {
                let asked = broker.api(api).metric("broker_allocate_total").await;
                if asked >= 1.0 { Ok(()) } else { Err(asked) }
            })
            .await;
        }
        broker.seed(2).await;
        for ran in waiting {
            let ran = ran.await.unwrap().expect_code(0);
            assert!(ran.stderr.contains("All sandboxes are in use. Waiting for one"), "{ran:#?}");
        }
    })
    .await;
}

/// The script of a CI job's example that runs its tests, as the CI system gives it to a shell.
fn ci_script(file: &str) -> String {
    let text = std::fs::read_to_string(workspace().join("infra/examples").join(file)).expect("the example");
    let (_, script) = text.split_once("exec broker lease").expect("it leases");
    let mut lines = Vec::new();
    for line in script.lines() {
        lines.push(line.trim().to_owned());
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    format!("exec broker lease {}", lines.join("\n"))
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the job's programs are where this test's are")]
async fn a_ci_job_has_a_sandbox_and_gives_it_back_also_when_it_is_cancelled() {
    story(Setup::new().pool(4), async |broker| {
        let bin = binaries().broker.parent().expect("a folder").to_owned();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        for (number, file) in ["github-actions.yml", "gitlab-ci.yml"].into_iter().enumerate() {
            let folder = scratch().join(format!("{}-{number}", broker.queues().name("ci")));
            std::fs::create_dir_all(&folder).expect("a folder");
            let tests = folder.join("run-tests");
            let run_tests =
                "#!/bin/sh\necho \"has $SANDBOX_ID\"\n[ -z \"${WHOLE-}\" ] || exit 3\nexec sleep 600\n";
            std::fs::write(&tests, run_tests).expect("written");
            std::fs::set_permissions(&tests, std::fs::Permissions::from_mode(0o755)).expect("executable");
            let job = |whole: &str| {
                let mut command = Command::new("bash");
                endpoint::clean(&mut command).args(["-e", "-c", &ci_script(file)]).current_dir(&folder);
                command.env("PATH", &path).env("BROKER_URL", format!("http://{}", broker.api(0).address()));
                command.env("BROKER_TOKEN", TRACK_TOKEN).env("WHOLE", whole);
                for name in
                    ["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "CI_JOB_ID", "CI_PROJECT_PATH_SLUG"]
                {
                    command.env(name, format!("{name}-{whole}"));
                }
                Process::start("ci-job", &mut command)
            };
            let mut whole = job("yes");
            assert_eq!(whole.ended().await.code(), Some(3), "{}", whole.log());
            let mut cancelled = job("");
            wait_until("the tests run", || cancelled.stdout().contains("has ")).await;
            assert_eq!(broker.stats().await.allocated, 1);
            cancelled.signal(Signal::SIGINT);
            assert!(!cancelled.ended().await.success());
            assert_eq!(broker.stats().await.allocated, 0, "{}", cancelled.log());
        }
        assert_eq!(broker.stats().await.pending_deletion, 4);
    })
    .await;
}
