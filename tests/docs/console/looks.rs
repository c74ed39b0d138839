//! Accessibility (axe) and screenshots of every view: light, dark, and in the width of a phone.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker_tests::binaries;
use serde_json::Value;

use super::{STUDENT, control, says};
use crate::chromium::{self, Chromium};

pub(super) const DESK: (u32, u32) = (1440, 1000);
const PHONE: (u32, u32) = (390, 844);
const VIEWS: [&str; 12] = [
    "overview",
    "tracks",
    "sandboxes",
    "waiting",
    "letters",
    "reservations",
    "tenants",
    "supply",
    "quarantine",
    "jobs",
    "audit",
    "runbook",
];
/// How much wider the page is than the window, and the first element that makes it so.
const OVERFLOW: &str = "(() => { const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth; if (wide <= 0) return null; \
     const first = [...document.querySelectorAll('.view *')].find(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !one.closest('.scroll, nav')); \
     return wide + ' px: ' + (first ? first.outerHTML.slice(0, 200) : '') })()";

/// Every view is read by axe and photographed.
pub(super) async fn looks(page: &mut Chromium) {
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
            "reservations" => page.until("document.querySelectorAll('.bar-of').length > 1").await,
            "tenants" => page.until(&says("of 40")).await,
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
            let overflow = page.evaluate(OVERFLOW).await;
            assert!(overflow.is_null(), "{view} {name} is too wide: {overflow}");
            let found = violations(page, &axe).await;
            assert!(found.is_empty(), "{view} {name}: {found:#?}");
        }
        page.look(DESK, "light").await;
        page.press("Escape").await;
    }
}

/// Two frames: what was answered is shown, and what was sized anew is drawn anew.
pub(super) async fn two_frames(page: &mut Chromium) {
    page.promised(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))",
    )
    .await;
}

pub(super) async fn picture(page: &mut Chromium, name: &str) {
    two_frames(page).await;
    let folder = binaries::workspace().join("target/console");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    let bytes = BASE64_STANDARD.decode(page.screenshot().await).expect("base64");
    std::fs::write(folder.join(name).with_extension("png"), bytes).expect("the picture can be written");
}

/// What axe finds, each with where.
pub(super) async fn violations(page: &mut Chromium, axe: &str) -> Vec<Value> {
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
