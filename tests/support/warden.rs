//! Warden: no child process outlives the test process.
//!
//! A shell waits on a pipe whose other end only this process holds. It is told of each process that starts or ends; when the
//! pipe closes (the tests are done, panicked, were killed) it kills the rest and removes the scratch directory. Drop guards
//! do the same earlier, but a static has no drop and SIGKILL leaves no time.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
left= keep=
while read -r word pid; do
    case $word in
    started) left="$left $pid" ;;
    ended) rest= ; for p in $left; do [ "$p" = "$pid" ] || rest="$rest $p"; done ; left=$rest ;;
    keep) keep=yes ;;
    esac
done
[ -z "$left" ] || kill -KILL $left 2>/dev/null
[ -n "$keep" ] || rm -rf -- "$1"
"#;

struct Warden {
    pipe: Mutex<std::process::ChildStdin>,
    scratch: PathBuf,
}

fn warden() -> &'static Warden {
    static WARDEN: OnceLock<Warden> = OnceLock::new();
    WARDEN.get_or_init(|| {
        let scratch = std::env::temp_dir().join(format!("broker-tests-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).expect("the scratch directory can be made");
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "warden"]).arg(&scratch);
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pipe = child.expect("sh starts").stdin.take().expect("stdin is piped");
        Warden { pipe: Mutex::new(pipe), scratch }
    })
}

fn tell(line: &str) {
    let mut pipe = warden().pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("the warden listens");
}

/// This test process's directory for logs and data; gone at its end unless [`keep_scratch`] was called.
pub fn scratch() -> &'static Path {
    &warden().scratch
}

/// Keeps the scratch directory, for the analysis of a failure.
pub fn keep_scratch() {
    tell("keep");
}

/// `pid` was started and must not outlive this process.
pub fn started(pid: u32) {
    tell(&format!("started {pid}"));
}

/// `pid` ended and was reaped; its number may belong to a stranger from now on.
pub fn ended(pid: u32) {
    tell(&format!("ended {pid}"));
}
