//! Chromium, driven through the DevTools protocol over its pipe: file descriptors 3 and 4, one JSON object after another,
//! each ended by a zero byte. No port, and no library for it.
//!
//! Invariant: it can reach this machine only, whatever a page requests; its requests and its errors are recorded.

use std::process::Command;
use std::time::Duration;

use broker_tests::process::Process;
use broker_tests::{wait_for_condition, warden, within};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;

/// Its names on the systems that have it.
const FIND: &str = "command -v chromium || command -v chromium-browser || command -v google-chrome";
/// How long it may take for one answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The installed Chromium, or what to do about it.
pub(crate) fn executable() -> Result<String, String> {
    let found = Command::new("sh").args(["-c", FIND]).output().expect("sh starts");
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    if found.status.success() {
        Ok(path)
    } else {
        Err("Chromium is missing. Install it with\n\n    apt-get install --no-install-recommends chromium"
            .to_owned())
    }
}

/// The script of axe, which finds what people who do not see a page cannot use, or what to do about it.
pub(crate) fn axe() -> Result<String, String> {
    let path = broker_tests::binaries::workspace().join("target/axe-core/package/axe.min.js");
    std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "{}: {error}. Fetch it as .ci/run does: npm pack axe-core, and unpack it there.",
            path.display()
        )
    })
}

/// A browser with one open tab.
pub(crate) struct Chromium {
    process: Process,
    calls: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    last_id: u64,
    tab: Option<String>,
    /// Its events.
    events: Vec<Value>,
    /// Clicks, and Enters that stand for one.
    clicks: usize,
}

impl Chromium {
    pub(crate) async fn start() -> Self {
        let fifo = |name: &str| {
            let path = warden::scratch().join(name);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe can be made");
            path
        };
        let (calls, answers) = (fifo("chromium.calls"), fifo("chromium.answers"));
        let open = || {
            // Opened for both directions, neither end waits for the other.
            let mut options = pipe::OpenOptions::new();
            options.read_write(true);
            options
        };
        let (to, from) = (open().open_sender(&calls), open().open_receiver(&answers));
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<\"$1\" 4>\"$2\"; shift 2; exec \"$@\"", "sh"]).arg(calls).arg(answers);
        command.arg(executable().expect("main looked for it")).args([
            "--headless=new",
            "--remote-debugging-pipe",
            // There is no user but root in a container, and no GPU.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1280,1600",
        ]);
        command.arg(format!("--user-data-dir={}", warden::scratch().join("chromium").display()));
        let mut chromium = Self {
            process: Process::start("chromium", &mut command),
            calls: to.expect("our own pipe"),
            answers: BufReader::new(from.expect("our own pipe")),
            last_id: 0,
            tab: None,
            events: Vec::new(),
            clicks: 0,
        };
        let tab = chromium.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let session = chromium.call("Target.attachToTarget", attach).await;
        chromium.tab = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            chromium.call(domain, json!({})).await;
        }
        chromium
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut call = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(tab) = &self.tab {
            call["sessionId"] = tab.as_str().into();
        }
        self.process.must_run();
        let bytes = [call.to_string().as_bytes(), b"\0"].concat();
        let answer = within(PATIENCE, method, async {
            self.calls.write_all(&bytes).await.expect("chromium listens");
            loop {
                let told = self.told().await;
                if told["id"] == self.last_id {
                    break told;
                }
                self.events.push(told);
            }
        });
        let answer = answer.await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn told(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).await.expect("chromium answers");
        serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).expect("chromium speaks JSON")
    }

    /// Goes to `url`.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    /// The value of a JavaScript expression in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until the expression is a text, and returns it.
    pub(crate) async fn text(&mut self, expression: &str) -> String {
        let asked =
            format!("(() => {{ const found = {expression}; return found ? found.innerText : null }})()");
        wait_for_condition(expression, async || match self.evaluate(&asked).await {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
        .await
    }

    /// Clicks what the expression finds, once it is there.
    pub(crate) async fn click(&mut self, expression: &str) {
        self.clicks += 1;
        self.with(expression, "click").await;
    }

    /// How many clicks there were, with each Enter.
    pub(crate) const fn clicks(&self) -> usize {
        self.clicks
    }

    /// Types `text` into the element of the expression, once it exists, and leaves it: pages validate a field then.
    pub(crate) async fn write(&mut self, expression: &str, text: &str) {
        self.with(expression, "focus").await;
        self.call("Input.insertText", json!({ "text": text })).await;
        self.with(expression, "blur").await;
    }

    async fn with(&mut self, expression: &str, action: &str) {
        let asked = format!(
            "(() => {{ const found = {expression}; if (!found || found.disabled) return false; \
             found.scrollIntoView(); found.{action}(); return true }})()"
        );
        wait_for_condition(&format!("{action} of {expression}"), async || {
            if self.evaluate(&asked).await == true { Ok(()) } else { Err("not there") }
        })
        .await;
    }

    /// Presses a key: `Enter`, `Tab`, `Escape`, or a character.
    pub(crate) async fn press(&mut self, key: &str) {
        self.clicks += usize::from(key == "Enter");
        let (code, text, number) = match key {
            "Enter" => ("Enter", "\r", 13),
            "Tab" => ("Tab", "", 9),
            "Escape" => ("Escape", "", 27),
            " " => ("Space", " ", 32),
            character => ("", character, 0),
        };
        let down = json!({ "type": "keyDown", "key": key, "code": code, "text": text, "windowsVirtualKeyCode": number });
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({ "type": "keyUp", "key": key, "code": code, "windowsVirtualKeyCode": number });
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Types `text` where the focus is.
    pub(crate) async fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Waits until the expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let asked = format!("Boolean({expression})");
        wait_for_condition(expression, async || {
            if self.evaluate(&asked).await == true {
                Ok(())
            } else {
                Err(self.evaluate("document.body.innerText").await)
            }
        })
        .await;
    }

    /// The value of a promise.
    pub(crate) async fn promised(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Takes the next event of this method out of those that came, or waits for it.
    pub(crate) async fn event(&mut self, method: &str) -> Value {
        if let Some(at) = self.events.iter().position(|event| event["method"] == method) {
            return self.events.remove(at);
        }
        within(PATIENCE, method, async {
            loop {
                let told = self.told().await;
                if told["method"] == method {
                    break told;
                }
                self.events.push(told);
            }
        })
        .await
    }

    /// Shows the page in a window of this size, light or dark.
    pub(crate) async fn look(&mut self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The page as it is seen, as base64 of a PNG.
    pub(crate) async fn screenshot(&mut self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// Every URL that was asked for so far.
    pub(crate) fn asked(&self) -> Vec<&str> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    /// Everything that the browser complained of so far: errors of scripts, breaches of the page's policy.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let complaint = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some(_) | None => false,
        };
        self.events.iter().filter(complaint).collect()
    }

    /// Closes it, and waits.
    pub(crate) async fn close(mut self) {
        self.tab = None;
        self.call("Browser.close", json!({})).await;
        self.process.ended().await;
    }
}
