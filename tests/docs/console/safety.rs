//! Tests of the console's safety: it stores no token, does not poll while hidden, resumes a bulk action, and offers no action to a
//! read-only token.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Broker, wait_for_condition};
use serde_json::{Value, json};

use super::{VIEWER, control, open, says, sign_in};
use crate::chromium::Chromium;

/// No token in the page, its address or its storage; nothing that the browser complains of.
pub(super) async fn nothing_is_left_behind(page: &mut Chromium, origin: &str) {
    let kept = "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}, document.documentElement.outerHTML])";
    let kept = page.evaluate(kept).await.to_string();
    assert!(!kept.contains(ADMIN_TOKEN), "the token is kept: {kept}");
    assert!(page.evaluate("document.referrer").await == "");
    // An id that is no student's is looked for among the sandboxes: 404 is an answer.
    let is_answer = |one: &Value| {
        let entry = &one["params"]["entry"];
        let url = entry["url"].as_str().unwrap_or_default();
        url.ends_with("/history") && entry["text"].as_str().is_some_and(|text| text.contains("404"))
    };
    let complaints: Vec<_> = page.complaints().into_iter().filter(|one| !is_answer(one)).collect();
    assert!(complaints.is_empty(), "the browser complains at {origin}: {complaints:#?}");
}

pub(super) async fn a_hidden_tab_reads_nothing(page: &mut Chromium) {
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
pub(super) async fn a_bulk_action_survives_a_reload(page: &mut Chromium, origin: &str, letters: usize) {
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

/// A discard is done and its answer is lost: who goes on takes none that came after the count.
pub(super) async fn a_lost_answer_takes_no_letter_that_came_later(page: &mut Chromium, broker: &Broker) {
    let queue = broker.queues().name("maintenance-dlq");
    let dies = async |letters: &[&str], open: usize| {
        let letters: Vec<_> = letters.iter().map(|letter| (*letter).to_owned()).collect();
        broker.queues().send_all(&queue, &letters).await;
        broker.holds_letters(open).await;
        // Ages are whole seconds.
        let died = now_s();
        wait_for_condition("a second", async || if now_s() > died + 1 { Ok(()) } else { Err(now_s()) }).await;
    };
    dies(&["drill 0", "drill 1", "drill 2"], 3).await;
    open(page, "overview").await;
    open(page, "letters").await;
    page.until(&says("3 letters shown")).await;
    page.click(&control("Discard all …")).await;
    page.write("document.querySelector('dialog [name=why]')", "a drill").await;
    let answers =
        json!({ "patterns": [{ "urlPattern": "*dead-letters/discard*", "requestStage": "Response" }] });
    page.call("Fetch.enable", answers).await;
    page.click(&control("Discard 3")).await;
    let answered = page.event("Fetch.requestPaused").await;
    let lost = json!({ "requestId": answered["params"]["requestId"], "errorReason": "ConnectionReset" });
    page.call("Fetch.failRequest", lost).await;
    page.call("Fetch.disable", json!({})).await;
    page.until(&says("The API cannot be reached.")).await;

    dies(&["later"], 1).await;
    page.click(&control("Go on")).await;
    page.until("document.querySelector('dialog h2').innerText === 'Done'").await;
    page.until(&says("0 of 3 discarded.")).await;
    page.click(&control("Close")).await;
    page.until(&says("1 letter shown")).await;
    page.click(&control("Discard all …")).await;
    page.write("document.querySelector('dialog [name=why]')", "a drill").await;
    page.click(&control("Discard 1")).await;
    page.until(&says("1 of 1 discarded.")).await;
    page.click(&control("Close")).await;
    page.until(&says("No letter matches.")).await;
}

pub(super) async fn a_viewer_only_looks(page: &mut Chromium) {
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
    for act in ["Replay all …", "Replay …"] {
        assert!(page.evaluate(&format!("!({})", control(act))).await == true, "{act}");
    }
    open(page, "waiting").await;
    page.until("!document.querySelector('.busy:not([hidden])')").await;
    assert!(page.evaluate(&format!("!({})", control("Cancel all …"))).await == true);
}
