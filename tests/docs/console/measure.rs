//! Measurement of the first paint and of what each read costs, as the browser sees it.

use crate::chromium::Chromium;

/// Prints the first paint and the server's time of each read, as the browser saw them.
pub(super) async fn measure(page: &mut Chromium, patiently: bool) {
    page.until("document.querySelector('.tile strong')").await;
    if patiently {
        // Four refreshes.
        page.promised("new Promise(done => setTimeout(done, 21000))").await;
    }
    let paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    let painted = page.evaluate(paint).await;
    let reads = page
        .promised(
            "(async () => { for (const view of ['sandboxes', 'letters', 'waiting', 'reservations', 'tenants', 'supply', 'quarantine', 'audit', 'overview']) { \
             document.querySelector(`[data-view=${view}]`).click(); \
             await new Promise(done => { const look = () => document.querySelector('.busy:not([hidden])') ? setTimeout(look, 20) : done(); setTimeout(look, 150) }) } \
             return performance.getEntriesByType('resource').filter(one => one.name.includes('/v1/admin/')) \
             .map(one => [new URL(one.name).pathname, Math.round(one.responseEnd - one.requestStart)]) })()",
        )
        .await;
    println!("first paint after {painted} ms; reads in ms: {reads}");
}
