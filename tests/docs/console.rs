//! Console test: an operator signs in, finds out why, and repairs, in a real Chromium, by keyboard where it matters.
//!
//! Every view is looked at by axe and photographed, light, dark and as wide as a phone (`target/console/`). With a large pool it
//! is the measurement of the first paint and of the refresh, which are printed and not asserted.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Broker, Setup, binaries, wait_for_condition};
use serde_json::{Value, json};

use crate::chromium::{self, Chromium};

const VIEWER: &str = "tok-viewer-0123456789abcdef";
const STUDENT: &str = "student-maria";
const DESK: (u32, u32) = (1440, 1000);
const PHONE: (u32, u32) = (390, 844);
const VIEWS: [&str; 10] = [
    "overview",
    "tracks",
    "sandboxes",
    "waiting",
    "letters",
    "jobs",
    "supply",
    "quarantine",
    "audit",
    "runbook",
];
/// A sandbox that an operator puts into quarantine.
const BROKEN: &str = "seed-000040";

/// With more letters it is a measurement, and nothing else is done.
const MANY: usize = 1_000;

/// The visible text of the page has this.
fn says(text: &str) -> String {
    format!("document.body.innerText.includes({})", json!(text))
}

/// A button or link with this text, or label; the one of an open dialog first.
fn control(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('dialog[open] button'), ...document.querySelectorAll('button, a')]\
         .find(one => one.innerText.trim() === {0} || one.getAttribute('aria-label') === {0})",
        json!(text)
    )
}

/// Plays an operator through the console, on a pool of `sandboxes` with `letters` dead letters.
///
/// # Panics
///
/// When the console does not do what an operator expects, or asks another host.
pub(crate) async fn tells_why(sandboxes: usize, letters: usize) {
    let mut broker =
        Broker::start(Setup::new().apis(0).workers(2).pool(sandboxes).var("BROKER_WAITING", "on")).await;
    let tokens = format!("ops={ADMIN_TOKEN}, viewer:ro={VIEWER}");
    broker.start_api_with(&[("BROKER_ADMIN_TOKENS", tokens.as_str())]).await;
    let sandbox = prepare(&broker, letters).await;
    wait_in_line(&broker).await;
    let origin = format!("http://{}", broker.api(0).address());

    let mut page = Chromium::start().await;
    page.look(DESK, "light").await;
    page.open(&format!("{origin}/console")).await;
    sign_in(&mut page, ADMIN_TOKEN).await;
    measure(&mut page, letters > MANY).await;
    if letters > MANY {
        page.close().await;
        broker.abandon();
        return;
    }
    by_keyboard(&mut page, &sandbox).await;
    looks(&mut page).await;
    letters_are_repaired(&mut page, letters).await;
    who_waits_is_cancelled(&mut page).await;
    jobs_are_run(&mut page).await;
    supply_is_paused(&mut page).await;
    a_broken_sandbox_is_put_aside(&mut page).await;
    nothing_is_left_behind(&mut page, &origin).await;
    a_hidden_tab_reads_nothing(&mut page).await;
    a_bulk_action_survives_a_reload(&mut page, &origin, letters).await;
    a_viewer_only_looks(&mut page).await;

    let asked = page.asked();
    let elsewhere: Vec<_> =
        asked.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "asked elsewhere: {elsewhere:?}");
    println!("the console made {} requests, none elsewhere; pictures in target/console", asked.len());
    page.close().await;
    broker.finish().await;
}

/// A student with a sandbox, one who gave it back, and dead letters.
async fn prepare(broker: &Broker, letters: usize) -> String {
    let held = broker.allocate(STUDENT).lab("rust-basics").send().await.expect_status(201);
    let back = broker.allocate("student-tom").lab("rust-basics").send().await.expect_status(201);
    broker.return_sandbox(back.sandbox_id(), "student-tom").send().await.expect_status(200);
    for number in 0..12 {
        broker.allocate(&format!("student-{number}")).lab("go-basics").send().await.expect_status(201);
    }
    let queues = broker.queues();
    let (at, reply_to) =
        ((now_s() - 60) * 1_000, queues.name("replies-01890a5d-ac96-774b-bcce-b302099a8057"));
    let allocate = |number: usize| {
        json!({
            "v": 1, "request_id": format!("01890a5d-ac96-774b-8000-{number:012x}"), "reply_to": reply_to,
            "enqueued_at_ms": at, "reply_by_ms": at, "deadline_ms": at + 900_000, "async": false,
            "body": { "kind": "allocate", "track_id": format!("late-{number}"), "fingerprint": "f", "lab_duration_hours": 4 },
        })
        .to_string()
    };
    let poison: Vec<_> = (0..letters).map(|number| format!("poison {number}")).collect();
    queues.send_all(&queues.name("maintenance-dlq"), &poison).await;
    queues.send_all(&queues.name("requests-dlq"), &[allocate(1), allocate(2)]).await;
    while broker.open_letters().await.len() < letters + 2 {
        tokio::task::yield_now().await;
    }
    policy(broker).await;
    held.sandbox_id().to_owned()
}

/// Three students who want what there is not.
async fn wait_in_line(broker: &Broker) {
    for number in 0..3 {
        let call = broker.allocate(&format!("waits-{number}")).name_prefix("big-").respond_async();
        call.json(&json!({ "max_wait_s": 3_600 })).send().await.expect_status(202);
    }
    while broker.table().keys("LINE#").await.len() < 3 {
        tokio::task::yield_now().await;
    }
}

/// A flavour that is refilled; nothing is missing, so its hook is not called.
async fn policy(broker: &Broker) {
    let text = "[flavour.small]\nprefix = \"sandbox-\"\nrefill = { min = 1, max = 1000000, rate_per_minute = 60, url = \"https://ops.example/refill\" }\n";
    let path = broker_tests::warden::scratch().join("console-policy.toml");
    std::fs::write(&path, text).expect("the file is written");
    broker.cli_ok(&["policy", "apply", path.to_str().expect("a path of text")]).await;
    wait_for_condition("a census by a worker that knows the policy", async || {
        broker.job("census").await;
        let census = broker.table().must_get("CENSUS").await;
        if census.contains_key("by_flavour") { Ok(()) } else { Err(census) }
    })
    .await;
}

async fn sign_in(page: &mut Chromium, token: &str) {
    page.until("document.activeElement?.id === 'token'").await;
    page.insert(token).await;
    page.press("Enter").await;
    page.until("document.querySelector('.tiles, .view')").await;
}

/// Prints the first paint and the server's time of each read, as the browser saw them.
async fn measure(page: &mut Chromium, patiently: bool) {
    page.until("document.querySelector('.tile strong')").await;
    if patiently {
        // Four refreshes.
        page.promised("new Promise(done => setTimeout(done, 21000))").await;
    }
    let paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    let painted = page.evaluate(paint).await;
    let reads = page
        .promised(
            "(async () => { for (const view of ['sandboxes', 'letters', 'audit', 'overview']) { \
             document.querySelector(`[data-view=${view}]`).click(); \
             await new Promise(done => { const look = () => document.querySelector('.busy:not([hidden])') ? setTimeout(look, 20) : done(); setTimeout(look, 150) }) } \
             return performance.getEntriesByType('resource').filter(one => one.name.includes('/v1/admin/')) \
             .map(one => [new URL(one.name).pathname, Math.round(one.responseEnd - one.requestStart)]) })()",
        )
        .await;
    println!("first paint after {painted} ms; reads in ms: {reads}");
}

/// Why does this student have what they have, and whose is this sandbox: typed, without a mouse.
async fn by_keyboard(page: &mut Chromium, sandbox: &str) {
    page.press("/").await;
    page.until("document.activeElement?.name === 'find'").await;
    page.insert(STUDENT).await;
    page.press("Enter").await;
    page.until(&says(&format!("Holds {sandbox}"))).await;
    page.until(&says("Allocated to student-maria, lab rust-basics.")).await;
    page.evaluate("document.activeElement.blur()").await;
    page.press("/").await;
    page.insert(sandbox).await;
    page.press("Enter").await;
    page.until("document.querySelector('.timeline .is-allocated')").await;
    page.until(&says(STUDENT)).await;
    let address = page.evaluate("location.href").await.to_string();
    assert!(!address.contains("maria") && !address.contains(sandbox), "{address}");

    // Every control of a view can be reached, and what opens closes again and gives the focus back.
    page.evaluate("document.activeElement.blur()").await;
    page.press("1").await;
    page.until("document.querySelector('.problems button')").await;
    let count = "[...document.querySelectorAll('button, a[href], input, select, summary')].filter(one => one.checkVisibility() && !one.disabled).length";
    let wanted = page.evaluate(count).await.as_u64().expect("a number");
    let mut reached = BTreeSet::new();
    for _ in 0..wanted * 2 {
        page.press("Tab").await;
        let at = "(() => { const all = [...document.querySelectorAll('button, a[href], input, select, summary')]; return all.indexOf(document.activeElement) })()";
        reached.extend(page.evaluate(at).await.as_u64());
    }
    assert_eq!(u64::try_from(reached.len()).ok(), Some(wanted), "controls that Tab reaches");
    page.evaluate("document.querySelector('.problems button').focus()").await;
    page.press("Enter").await;
    page.until("document.querySelector('.drawer:not([hidden]) h3')").await;
    page.press("Escape").await;
    page.until(
        "document.querySelector('.drawer').hidden && document.activeElement.innerText === 'What to do'",
    )
    .await;
}

/// Every view is read by axe and photographed.
async fn looks(page: &mut Chromium) {
    let axe = chromium::axe().expect("main looked for it");
    for view in VIEWS {
        page.look(DESK, "light").await;
        page.click(&format!("document.querySelector('[data-view={view}]')")).await;
        page.until("document.querySelector('.view').innerText.length > 20 && !document.querySelector('.busy:not([hidden])')").await;
        match view {
            "tracks" => {
                page.write("document.querySelector('.view input[name=find]')", STUDENT).await;
                page.click(&control("Find")).await;
                page.until("document.querySelector('.timeline')").await;
            }
            "sandboxes" => {
                page.click("document.querySelector('.view td button.link')").await;
                page.until("document.querySelector('.drawer .timeline')").await;
            }
            "letters" => {
                page.click("document.querySelector('.view td button.link')").await;
                page.until("document.querySelector('.drawer pre')").await;
            }
            _ => {}
        }
        for (size, name, scheme) in [
            (DESK, "light", "light"),
            (DESK, "dark", "dark"),
            (PHONE, "phone", "light"),
            (PHONE, "phone-dark", "dark"),
        ] {
            page.look(size, scheme).await;
            picture(page, &format!("{view}-{name}")).await;
            let found = violations(page, &axe).await;
            assert!(found.is_empty(), "{view} {name}: {found:#?}");
        }
        page.look(DESK, "light").await;
        page.press("Escape").await;
    }
}

async fn picture(page: &mut Chromium, name: &str) {
    // Two frames: what was sized anew is drawn anew.
    page.promised(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))",
    )
    .await;
    let folder = binaries::workspace().join("target/console");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    let bytes = BASE64_STANDARD.decode(page.screenshot().await).expect("base64");
    std::fs::write(folder.join(name).with_extension("png"), bytes).expect("the picture can be written");
}

/// What axe finds, each with where.
async fn violations(page: &mut Chromium, axe: &str) -> Vec<Value> {
    if page.evaluate("typeof axe").await != "object" {
        page.evaluate(&format!("{axe}; true")).await;
    }
    let found = page
        .promised(
            "axe.run(document, { resultTypes: ['violations'] }).then(told => told.violations.map(one => \
             ({ id: one.id, help: one.help, where: one.nodes.slice(0, 3).map(node => node.html + ' ' + node.failureSummary) })))",
        )
        .await;
    found.as_array().cloned().unwrap_or_default()
}

async fn open(page: &mut Chromium, view: &str) {
    page.click(&format!("document.querySelector('[data-view={view}]')")).await;
    page.until(&format!("location.hash === '#{view}'")).await;
}

/// What failed last, and how is it repeated: one replayed, one discarded.
async fn letters_are_repaired(page: &mut Chromium, letters: usize) {
    open(page, "letters").await;
    page.evaluate("document.querySelector('[name=kind]').value = 'allocate'").await;
    page.click(&control("Filter")).await;
    page.until(&says("2 letters shown")).await;
    page.click("document.querySelector('.view td button.link')").await;
    page.until(&says("\"track_id\": \"late-")).await;
    page.click(&control("Replay")).await;
    page.click(&control("Replay 1")).await;
    page.until(&says("1 of 1 replayed")).await;
    page.click(&control("Close")).await;

    page.until("!document.querySelector('dialog')").await;
    page.evaluate("document.querySelector('[name=queue]').value = 'maintenance'").await;
    page.click(&control("Filter")).await;
    page.until("document.querySelectorAll('.view tbody tr').length > 2 && !document.querySelector('.busy:not([hidden])')").await;
    page.click("document.querySelector('.view td button.link')").await;
    page.until("document.querySelector('.drawer pre')?.innerText.startsWith('poison')").await;
    page.click(&control("Discard")).await;
    page.write("document.querySelector('dialog [name=why]')", "not ours").await;
    page.click(&control("Discard 1")).await;
    page.until(&says("1 of 1 discarded")).await;
    page.click(&control("Close")).await;
    page.until("!document.querySelector('dialog')").await;

    // All that match are counted first; nothing is done by that.
    page.click(&control("Replay all …")).await;
    page.until("document.querySelector('dialog .counts')").await;
    picture(page, "letters-bulk").await;
    let told = page.text("document.querySelector('dialog .big')").await.replace(',', "");
    assert_eq!(told, format!("{letters} letters."), "the poison that is left, and the other allocate");
    page.click(&control("Cancel")).await;
}

/// Who waits, and why; one is cancelled, then the rest.
async fn who_waits_is_cancelled(page: &mut Chromium) {
    open(page, "waiting").await;
    page.until(&says("3 requests shown")).await;
    page.until(&says("nothing is free")).await;
    page.click(&control("Cancel: waits-1")).await;
    page.until(&says("2 requests shown")).await;
    page.click(&control("Cancel all …")).await;
    page.click(&control("Cancel 2 requests")).await;
    page.until(&says("Nobody waits.")).await;
}

/// A job is run, paused and resumed, and the audit tells who did it.
async fn jobs_are_run(page: &mut Chromium) {
    open(page, "jobs").await;
    page.click(&control("Run now: expire")).await;
    page.until(&says("found 0, changed 0")).await;
    page.click(&control("Pause: census")).await;
    page.until(&control("Resume: census")).await;
    open(page, "overview").await;
    page.until(&says("The job census is paused.")).await;
    open(page, "jobs").await;
    page.click(&control("Resume: census")).await;
    page.until(&control("Pause: census")).await;
    open(page, "audit").await;
    page.until(&says("pause job")).await;
    for told in ["resume job", "run job", "discard", "not ours", "ops"] {
        page.until(&says(told)).await;
    }
}

/// What is short is seen, paused and resumed.
async fn supply_is_paused(page: &mut Chromium) {
    open(page, "supply").await;
    page.until(&says("asks for what is missing")).await;
    page.click(&control("Pause: small")).await;
    page.until(&says("an operator paused it")).await;
    page.click(&control("Resume: small")).await;
    page.until(&control("Pause: small")).await;
}

/// A sandbox is put into quarantine, counted, let go, and a click alone changes nothing.
async fn a_broken_sandbox_is_put_aside(page: &mut Chromium) {
    open(page, "quarantine").await;
    page.until(&says("Nothing is in quarantine.")).await;
    page.write("document.querySelector('.view [name=id]')", BROKEN).await;
    page.write("document.querySelector('.view [name=why]')", "no network").await;
    page.click(&control("Put into quarantine")).await;
    page.until(&control(&format!("Release: {BROKEN}"))).await;
    page.until(&says("no network")).await;
    page.click(&control("Retire all …")).await;
    page.until("document.querySelector('dialog .big')?.innerText === '1 sandbox.'").await;
    picture(page, "quarantine-retire").await;
    page.click(&control("Cancel")).await;
    page.until("!document.querySelector('dialog')").await;
    page.click(&control(&format!("Release: {BROKEN}"))).await;
    page.click(&control("Release 1")).await;
    page.until(&says("Nothing is in quarantine.")).await;
    open(page, "audit").await;
    page.until(&says("quarantine")).await;
}

/// No token in the page, its address or its storage; nothing that the browser complains of.
async fn nothing_is_left_behind(page: &mut Chromium, origin: &str) {
    let kept = "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}, document.documentElement.outerHTML])";
    let kept = page.evaluate(kept).await.to_string();
    assert!(!kept.contains(ADMIN_TOKEN), "the token is kept: {kept}");
    assert!(page.evaluate("document.referrer").await == "");
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "the browser complains at {origin}: {complaints:#?}");
}

async fn a_hidden_tab_reads_nothing(page: &mut Chromium) {
    open(page, "overview").await;
    // As the browser tells it: a headless one hides no tab.
    let hide = |state: &str| {
        format!(
            "Object.defineProperty(document, 'visibilityState', {{ value: '{state}', configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    page.evaluate(&hide("hidden")).await;
    page.until("true").await;
    let before = page.asked().len();
    page.promised("new Promise(done => setTimeout(done, 6000))").await;
    assert_eq!(page.asked().len(), before, "a hidden tab asks");
    page.evaluate(&hide("visible")).await;
    while page.asked().len() == before {
        page.until("true").await;
    }
}

/// The second part of a discard is not answered; the page is reloaded, and what was left goes on.
async fn a_bulk_action_survives_a_reload(page: &mut Chromium, origin: &str, letters: usize) {
    open(page, "letters").await;
    page.until("!document.querySelector('.busy:not([hidden])')").await;
    page.click(&control("Discard all …")).await;
    page.write("document.querySelector('dialog [name=why]')", "a drill").await;
    let stop = json!({ "patterns": [{ "urlPattern": "*dead-letters/discard*" }] });
    page.call("Fetch.enable", stop).await;
    page.click("document.querySelector('dialog button.danger')").await;
    let asked = page.event("Fetch.requestPaused").await;
    let failed = json!({ "requestId": asked["params"]["requestId"], "errorReason": "ConnectionReset" });
    page.call("Fetch.failRequest", failed).await;
    page.call("Fetch.disable", json!({})).await;
    page.until(&says("The API cannot be reached.")).await;

    page.open(&format!("{origin}/console#letters")).await;
    page.call("Page.reload", json!({})).await;
    sign_in(page, ADMIN_TOKEN).await;
    page.until(&says(&format!("A discard was left: 0 of {letters} are done."))).await;
    page.click(&control("Go on")).await;
    page.until(&says(&format!("{letters} of {letters} discarded."))).await;
    page.click(&control("Close")).await;
    page.until(&says("No letter matches.")).await;
    assert!(page.evaluate("sessionStorage.length").await == 0, "what is done is not kept");
}

async fn a_viewer_only_looks(page: &mut Chromium) {
    page.click(&control("Sign out")).await;
    sign_in(page, VIEWER).await;
    page.until(&says("read-only")).await;
    open(page, "jobs").await;
    page.until("document.querySelector('.view tbody')").await;
    assert!(page.evaluate(&format!("!({})", control("Run now: sync"))).await == true);
    open(page, "quarantine").await;
    page.until(&says("Nothing is in quarantine.")).await;
    assert!(page.evaluate(&format!("!({})", control("Put into quarantine"))).await == true);
    open(page, "letters").await;
    page.until("!document.querySelector('.busy:not([hidden])')").await;
    assert!(page.evaluate(&format!("!({})", control("Replay all …"))).await == true);
    open(page, "waiting").await;
    page.until("!document.querySelector('.busy:not([hidden])')").await;
    assert!(page.evaluate(&format!("!({})", control("Cancel all …"))).await == true);
}
