//! Tests of the console by keyboard alone.

use std::collections::BTreeSet;

use super::{STUDENT, control, open, says};
use crate::chromium::Chromium;

/// Why does this student have what they have, and whose is this sandbox: typed, without a mouse.
pub(super) async fn by_keyboard(page: &mut Chromium, sandbox: &str) {
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

    // A class in the calendar is opened and closed where it was.
    open(page, "reservations").await;
    let bar = "document.querySelector('.bar-of.is-available')";
    page.until(bar).await;
    page.evaluate(&format!("{bar}.focus()")).await;
    page.press("Enter").await;
    page.until(&says("0 are in the hands of the tenant")).await;
    page.until(&control("Sandboxes that are put aside")).await;
    page.press("Escape").await;
    page.until("document.querySelector('.drawer').hidden && document.activeElement.matches('.bar-of')").await;
    page.evaluate("document.activeElement.blur()").await;
    page.press("7").await;
    page.until("location.hash === '#tenants'").await;
}
