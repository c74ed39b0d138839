//! Tests of the console with an API that answers late, or not at all.

use serde_json::{Value, json};

use super::looks::two_frames;
use super::{control, open, says};
use crate::chromium::Chromium;

const DRAWER: &str = "document.querySelector('.drawer').innerText";

/// Opens the letter of a row, and returns the call that is held up.
async fn held_up(page: &mut Chromium, row: usize) -> Value {
    let link = format!("document.querySelectorAll('.view tbody tr')[{row}]?.querySelector('td button.link')");
    page.click(&link).await;
    page.event("Fetch.requestPaused").await["params"].clone()
}

/// Lets a call go on that was held up, until it was answered.
async fn goes_on(page: &mut Chromium, call: &Value) {
    page.evaluate("performance.clearResourceTimings()").await;
    page.call("Fetch.continueRequest", json!({ "requestId": call["requestId"] })).await;
    let url = &call["request"]["url"];
    page.until(&format!("performance.getEntriesByName({url}).length > 0")).await;
    two_frames(page).await;
}

/// What was opened later stays open, and what was closed stays closed.
pub(super) async fn a_late_answer_replaces_nothing(page: &mut Chromium) {
    open(page, "letters").await;
    page.until("document.querySelectorAll('.view tbody tr').length > 2 && !document.querySelector('.busy:not([hidden])')").await;
    let letters = json!({ "patterns": [{ "urlPattern": "*v1/admin/dead-letters/*" }] });
    page.call("Fetch.enable", letters).await;
    let first = held_up(page, 0).await;
    let second = held_up(page, 1).await;
    assert_ne!(first["request"]["url"], second["request"]["url"]);
    goes_on(page, &second).await;
    page.until("document.querySelector('.drawer pre')").await;
    let shown = page.evaluate(DRAWER).await;
    goes_on(page, &first).await;
    assert_eq!(page.evaluate(DRAWER).await, shown, "the first answer came last");

    page.press("Escape").await;
    let late = held_up(page, 0).await;
    open(page, "overview").await;
    goes_on(page, &late).await;
    assert!(page.evaluate("document.querySelector('.drawer').hidden").await == true, "another view is open");
    page.call("Fetch.disable", json!({})).await;
}

/// A page that is not answered does not say that it is live.
pub(super) async fn what_hangs_is_told(page: &mut Chromium) {
    open(page, "overview").await;
    let is_live = "document.querySelector('.live').innerText.trim() === 'live'";
    page.until(is_live).await;
    // The patience of the page, shortened.
    page.evaluate(
        "window.patience = window.setTimeout; \
         window.setTimeout = (does, ms) => window.patience(does, ms < 15000 ? ms : ms / 15); true",
    )
    .await;
    page.call("Fetch.enable", json!({ "patterns": [{ "urlPattern": "*v1/admin/overview*" }] })).await;
    page.click(&control("Refresh")).await;
    page.event("Fetch.requestPaused").await;
    page.until(&says("not reached")).await;
    page.evaluate("window.setTimeout = window.patience; true").await;
    page.call("Fetch.disable", json!({})).await;
    page.click(&control("Refresh")).await;
    page.until(is_live).await;
}
