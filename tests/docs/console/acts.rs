//! Tests of the console's actions: dead letters, waiting requests, jobs, supply, quarantine.

use broker_tests::{Broker, wait_for_condition};
use serde_json::json;

use super::looks::{picture, two_frames};
use super::{BROKEN, BROKEN_LATER, control, open, reads_by_itself, says};
use crate::chromium::Chromium;

/// What failed last, and how is it repeated: one replayed, one discarded.
pub(super) async fn letters_are_repaired(page: &mut Chromium, letters: usize) {
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

/// Reads the list by itself until the request of this student is no more in it.
async fn until_gone(page: &mut Chromium, student: &str) {
    wait_for_condition(&format!("{student} to be gone"), async || {
        reads_by_itself(page).await;
        let is_gone = format!("!{} && !({})", says("reading …"), control(&format!("Cancel: {student}")));
        if page.evaluate(&is_gone).await == true { Ok(()) } else { Err("it is listed") }
    })
    .await;
}

/// Who waits, and why; one is cancelled, then the rest. What is read meanwhile moves the focus to nobody else's row.
pub(super) async fn who_waits_is_cancelled(page: &mut Chromium, broker: &Broker) {
    let focus = "document.activeElement.getAttribute('aria-label')";
    open(page, "waiting").await;
    page.until(&says("3 requests shown")).await;
    page.until(&says("nothing that fits is free")).await;
    page.evaluate(&format!("{}.focus()", control("Cancel: waits-1"))).await;
    broker.cli_ok(&["waiting", "cancel", "--track", "waits-0"]).await;
    until_gone(page, "waits-0").await;
    assert_eq!(page.evaluate(focus).await, "Cancel: waits-1");
    broker.cli_ok(&["waiting", "cancel", "--track", "waits-1"]).await;
    until_gone(page, "waits-1").await;
    assert_eq!(page.evaluate(focus).await, "Requests that wait", "the row is gone");

    // A click alone changes nothing.
    page.click(&control("Cancel: waits-2")).await;
    page.until(&control("Cancel 1 request")).await;
    page.click(&control("Close")).await;
    page.until("!document.querySelector('dialog')").await;
    page.until(&control("Cancel: waits-2")).await;
    let call = broker.allocate("waits-3").name_prefix("big-").respond_async();
    call.json(&json!({ "max_wait_s": 3_600 })).send().await.expect_status(202);
    wait_for_condition("waits-3 to be listed", async || {
        reads_by_itself(page).await;
        if page.evaluate(&says("2 requests shown")).await == true { Ok(()) } else { Err("not yet") }
    })
    .await;
    page.click(&control("Cancel: waits-2")).await;
    page.click(&control("Cancel 1 request")).await;
    page.until(&says("1 request shown")).await;
    page.click(&control("Cancel all …")).await;
    page.click(&control("Cancel 1 request")).await;
    page.until(&says("Nobody waits.")).await;
}

/// Where one call reads a part of a list, what is read by itself shows no less than was shown, and reads no list anew of which
/// more was asked for.
pub(super) async fn what_was_found_stays(page: &mut Chromium) {
    // As among many lines: each call finds one.
    page.evaluate(
        "window.asIs = window.fetch; window.fetch = (url, more) => \
         window.asIs(url.replace(/(waiting|tenants)\\?(.*)limit=\\d+/, '$1?$2limit=1'), more); true",
    )
    .await;
    open(page, "waiting").await;
    page.until(&says("3 requests shown")).await;
    page.until("document.querySelector('.busy').hidden").await;
    page.evaluate(
        "window.least = 99; window.watch = new MutationObserver(() => { window.least = Math.min(window.least, \
         document.querySelectorAll('[aria-label=\"Requests that wait\"] tbody tr').length) }); \
         window.watch.observe(document.querySelector('[aria-label=\"Requests that wait\"]').parentElement, { childList: true }); true",
    )
    .await;
    reads_by_itself(page).await;
    page.until("window.least < 99").await;
    page.evaluate("window.watch.disconnect()").await;
    assert_eq!(page.evaluate("window.least").await, 3, "requests that a refresh shows");

    open(page, "tenants").await;
    page.until(&says("1 tenant shown")).await;
    page.click(&control("More")).await;
    page.until(&says("2 tenants shown")).await;
    let asked = |page: &Chromium, path: &str| page.asked().iter().filter(|url| url.contains(path)).count();
    let (tenants, overviews) = (asked(page, "admin/tenants"), asked(page, "admin/overview"));
    reads_by_itself(page).await;
    wait_for_condition("two overviews", async || {
        two_frames(page).await;
        if asked(page, "admin/overview") > overviews + 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert_eq!(asked(page, "admin/tenants"), tenants, "what was turned is read anew");
    page.until(&says("2 tenants shown")).await;
    page.evaluate("window.fetch = window.asIs; true").await;
}

/// A job is run, paused and resumed, and the audit tells who did it.
pub(super) async fn jobs_are_run(page: &mut Chromium) {
    open(page, "jobs").await;
    page.click(&control("Run now: expire")).await;
    page.until(&says("found 0, changed 0")).await;
    page.click(&control("Pause: census")).await;
    page.until(&control("Resume: census")).await;
    open(page, "overview").await;
    page.until(&says("The job census is paused by ops.")).await;
    open(page, "jobs").await;
    page.click(&control("Resume: census")).await;
    page.until(&control("Pause: census")).await;

    // It is looked for again where one look fails.
    page.evaluate(
        "window.asIs = window.fetch; window.fetch = (url, more) => { if (url.includes('/jobs/')) { window.fetch = window.asIs; \
         return Promise.reject(new TypeError('network')) } \
         if (more.method === 'POST') more.headers.prefer = 'wait=0'; return window.asIs(url, more) }; true",
    )
    .await;
    page.click(&control("Run now: purge_stale")).await;
    page.until("window.fetch === window.asIs").await;
    let row = format!("{}.closest('tr').innerText.includes('found 0')", control("Run now: purge_stale"));
    page.until(&row).await;
    open(page, "audit").await;
    page.until(&says("pause job")).await;
    for told in ["resume job", "run job", "discard", "not ours", "ops"] {
        page.until(&says(told)).await;
    }
}

/// What is short is seen, paused and resumed.
pub(super) async fn supply_is_paused(page: &mut Chromium) {
    open(page, "supply").await;
    page.until(&says("asks for what is missing")).await;
    page.click(&control("Pause: small")).await;
    page.until(&says("an operator paused it")).await;
    page.click(&control("Resume: small")).await;
    page.until(&control("Pause: small")).await;
}

/// A sandbox is put into quarantine, counted, let go, and a click alone changes nothing.
pub(super) async fn a_broken_sandbox_is_put_aside(page: &mut Chromium, broker: &Broker) {
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

    // One that came after the count stays; what a colleague did is seen after a while.
    page.click(&control("Release all …")).await;
    page.until("document.querySelector('dialog .big')?.innerText === '1 sandbox.'").await;
    broker.cli_ok(&["quarantine", "add", BROKEN_LATER, "--why", "no network either"]).await;
    page.click(&control("Release 1")).await;
    page.until(&says("1 of 1 released.")).await;
    page.until(&control(&format!("Release: {BROKEN_LATER}"))).await;
    page.until(&format!("!({})", control(&format!("Release: {BROKEN}")))).await;
    page.click(&control(&format!("Release: {BROKEN_LATER}"))).await;
    page.click(&control("Release 1")).await;
    page.until(&says("Nothing is in quarantine.")).await;
    open(page, "audit").await;
    page.until(&says("quarantine")).await;
}
