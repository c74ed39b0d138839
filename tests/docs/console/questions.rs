//! Tests of the three questions that an operator has during an incident: the console answers each with two clicks at most. Typing
//! an id and pressing Enter counts as a click.

use serde_json::json;

use super::looks::picture;
use super::{control, open, says};
use crate::chromium::Chromium;

/// A row of a table has all of these texts.
fn row(texts: &[&str]) -> String {
    format!(
        "[...document.querySelectorAll('.view tbody tr')].some(row => {}.every(text => row.innerText.includes(text)))",
        json!(texts)
    )
}

/// From the overview on, counts what the answer takes.
async fn ask(page: &mut Chromium, question: &str, answer: impl AsyncFnOnce(&mut Chromium)) {
    open(page, "overview").await;
    page.until("document.querySelector('.tile strong')").await;
    page.evaluate("document.activeElement.blur()").await;
    let before = page.clicks();
    answer(page).await;
    let clicks = page.clicks() - before;
    assert!(clicks <= 2, "{question} takes {clicks} clicks");
    println!("{question} {clicks} click{}", if clicks == 1 { "" } else { "s" });
}

async fn find(page: &mut Chromium, text: &str) {
    page.press("/").await;
    page.until("document.activeElement?.name === 'find'").await;
    page.insert(text).await;
    page.press("Enter").await;
}

pub(super) async fn are_answered_in_two_clicks(page: &mut Chromium, sandbox: &str) {
    ask(page, "Who waits, and why?", async |page| {
        page.click("document.querySelector('[data-view=waiting]')").await;
        page.until(&row(&["waits-1", "nothing that fits is free"])).await;
    })
    .await;
    ask(page, "Why is this student waiting?", async |page| {
        find(page, "waits-1").await;
        page.until(&says("A request of this track waits in a line")).await;
        page.until(&says("nothing that fits is free")).await;
        page.until(&says("in the line of platform")).await;
    })
    .await;
    picture(page, "tracks-waits").await;
    ask(page, "Why is this student waiting, from the list?", async |page| {
        page.click("document.querySelector('[data-view=waiting]')").await;
        page.click(&control("waits-1")).await;
        page.until(&says("in the line of platform")).await;
    })
    .await;
    ask(page, "Whose is this sandbox?", async |page| {
        find(page, sandbox).await;
        page.until("document.querySelector('.timeline .is-allocated')").await;
        page.until(&says("Allocated to student-maria, lab rust-basics.")).await;
    })
    .await;
    ask(page, "What failed last, and how do I repeat it?", async |page| {
        page.click("document.querySelector('[data-view=letters]')").await;
        page.until("document.querySelector('.view tbody tr')").await;
        // The first row is the newest.
        page.click(&control("Replay …")).await;
        page.until(&says("1 letter.")).await;
        page.until(&control("Replay 1")).await;
    })
    .await;
    page.click(&control("Cancel")).await;
    page.until("!document.querySelector('dialog')").await;
    ask(page, "What failed of this student's, and how do I repeat it?", async |page| {
        find(page, "late-1").await;
        page.click(&control("Replay …")).await;
        page.until(&control("Replay 1")).await;
    })
    .await;
    page.click(&control("Cancel")).await;
    page.until("!document.querySelector('dialog')").await;
    ask(page, "Will the next class have its sandboxes?", async |page| {
        page.click("document.querySelector('[data-view=reservations]')").await;
        page.until(&row(&["platform", "30", "planned"])).await;
        page.until(&row(&["evening", "all put aside"])).await;
    })
    .await;
    ask(page, "Has this tenant reached its limit?", async |page| {
        page.click("document.querySelector('[data-view=tenants]')").await;
        page.until(&row(&["platform", "of 40", "none allowed"])).await;
    })
    .await;
}
