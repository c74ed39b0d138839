//! One process of the broker: started with its output in files, watched, signalled, reaped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait::wait_for_condition;
use crate::warden;

/// How many lines of a log a failing test prints.
const TAIL: usize = 25;

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to files named after `name`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| warden::scratch().join(format!("{number:04}-{name}.{kind}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let create = |path: &PathBuf| File::create(path).expect("the log file can be made");
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        warden::started(child.id());
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// Its name in the story.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in MiB, as Linux tells it; 0 once it ended.
    pub fn resident_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    /// The most resident memory that it ever had, in MiB, as Linux tells it; 0 once it ended.
    pub fn peak_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, line: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1_024.0
    }

    /// The processor time it has taken, in seconds, as Linux tells it (in hundredths); 0 once it ended.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the name in parentheses: state is the first field, utime and stime are the 12th and 13th.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() / 100.0
    }

    /// Everything it printed so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for a line of JSON on stdout that `pick` takes.
    pub async fn stdout_line<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        let path = self.stdout.clone();
        self.line(what, path, pick).await
    }

    /// Waits for the log line `message` (stderr) and returns the address it tells.
    pub async fn listening(&mut self, message: &str) -> String {
        let path = self.stderr.clone();
        self.line(message, path, |line| {
            let said = find(line, "message")? == message;
            said.then(|| find(line, "address").map(str::to_owned))?
        })
        .await
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// The lines of its log with this message so far.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| find(line, "message") == Some(message)).collect()
    }

    /// The processes that it started and that have not ended, as Linux tells them.
    pub fn children(&self) -> Vec<Pid> {
        let parent = self.child.id().to_string();
        let entries = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| running_parent(*pid).is_some_and(|of| of == parent)).map(Pid::from_raw).collect()
    }

    /// That it runs.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn must_run(&mut self) {
        let status = self.child.try_wait().expect("our own child");
        assert!(status.is_none(), "{} ended: {status:?}\n{}", self.name, self.tail());
    }

    async fn line<T>(&mut self, what: &str, path: PathBuf, pick: impl Fn(&Value) -> Option<T>) -> T {
        let condition = format!("{}: {what}", self.name);
        wait_for_condition(&condition, async || {
            let ended = self.child.try_wait().expect("our own child");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            match (lines.find_map(|line| pick(&line)), ended) {
                (Some(said), _) => Ok(said),
                (None, None) => Err("not yet said"),
                (None, Some(status)) => {
                    panic!("{} ended ({status}) before it said \"{what}\":\n{}", self.name, self.tail())
                }
            }
        })
        .await
    }

    /// Every `field` of the log lines `message` so far.
    pub fn said(&self, message: &str, field: &str) -> Vec<String> {
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| find(line, "message") == Some(message));
        lines.filter_map(|line| find(&line, field).map(str::to_owned)).collect()
    }

    /// Waits until it is stopped (SIGSTOP).
    pub async fn frozen(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        wait_for_condition(&format!("{} to stand still", self.name), async || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            // "pid (name) state …"; a name may hold anything.
            let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
            if state == Some('T') { Ok(()) } else { Err(state) }
        })
        .await;
    }

    /// Sends `signal`.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{} cannot get {signal}: {error}", self.name));
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let condition = format!("{} to end", self.name);
        let status = wait_for_condition(&condition, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("still running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        warden::ended(self.child.id());
        status
    }

    /// Asks it to drain (SIGTERM) and waits; it must end with exit code 0.
    ///
    /// # Panics
    ///
    /// When it ends in any other way, or its log tells of a panic.
    pub async fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.stopped().await;
    }

    /// Waits for the end of a process that was asked to drain; it must end with exit code 0.
    ///
    /// # Panics
    ///
    /// When it ends in any other way, or its log tells of a panic.
    pub async fn stopped(mut self) {
        let status = self.ended().await;
        assert!(status.success(), "{} ended with {status} after SIGTERM:\n{}", self.name, self.tail());
        self.must_not_have_panicked();
    }

    /// Whether it has ended, and was reaped.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait().expect("our own child").is_some();
        if ended {
            warden::ended(self.child.id());
        }
        ended
    }

    /// The line of its log that tells of a panic, if there is one.
    pub fn panic(&self) -> Option<String> {
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        log.lines().find(|line| line.contains("panicked at")).map(str::to_owned)
    }

    fn must_not_have_panicked(&self) {
        let panic = self.panic();
        assert!(panic.is_none(), "{} panicked: {panic:?}\n{}", self.name, self.tail());
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        format!("--- {} (pid {}, {})\n{tail}", self.name, self.child.id(), self.stderr.display())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid fits"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            warden::ended(self.child.id());
        }
    }
}

/// The parent of a running process; `None` if it ended, also if its exit code was not read yet.
fn running_parent(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.next().filter(|_parent| state != "Z").map(str::to_owned)
}

/// Whether this process runs.
pub fn runs(pid: Pid) -> bool {
    running_parent(pid.as_raw()).is_some()
}

/// The text of `key`, at the top of a log line or under `fields`.
fn find<'a>(line: &'a Value, key: &str) -> Option<&'a str> {
    line[key].as_str().or_else(|| line["fields"][key].as_str())
}
