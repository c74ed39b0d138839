//! Console test: an operator signs in, finds the cause of problems, and repairs them, in a real Chromium.
//!
//! Every view is checked by axe and gets screenshots: light, dark and in the width of a phone (`target/console/`). With a large pool
//! the test measures the first paint and the refresh, which are printed and not asserted.

mod acts;
mod clock;
mod keyboard;
mod looks;
mod measure;
mod prepare;
mod questions;
mod safety;
mod slow;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::{Broker, Setup};
use serde_json::json;

use self::looks::DESK;
use crate::chromium::Chromium;

const VIEWER: &str = "tok-viewer-0123456789abcdef";
const STUDENT: &str = "student-maria";
/// A sandbox that nobody has, which an operator puts into quarantine.
const BROKEN: &str = "seed-900000";
/// The same, later.
const BROKEN_LATER: &str = "seed-900001";

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
    let setup = Setup::new().apis(0).workers(2).pool(sandboxes);
    let setup = setup.var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1");
    // What an act changed is shown although the index follows the table later. What is measured has no hops in it.
    let setup = if letters > MANY { setup } else { setup.on_aws() };
    let mut broker = Broker::start(setup).await;
    let tokens = format!("ops={ADMIN_TOKEN}, viewer:ro={VIEWER}");
    broker.start_api_with(&[("BROKER_ADMIN_TOKENS", tokens.as_str())]).await;
    prepare::policy(&broker).await;
    let sandbox = prepare::students(&broker).await;
    prepare::dead_letters(&broker, letters).await;
    prepare::wait_in_line(&broker).await;
    prepare::reservations(&broker).await;
    prepare::until_counted(&broker).await;
    let origin = format!("http://{}", broker.api(0).address());

    let mut page = Chromium::start().await;
    page.look(DESK, "light").await;
    page.open(&format!("{origin}/console")).await;
    sign_in(&mut page, ADMIN_TOKEN).await;
    measure::measure(&mut page, letters > MANY).await;
    if letters > MANY {
        safety::a_hidden_tab_reads_nothing(&mut page).await;
        println!("a hidden tab reads nothing");
        page.close().await;
        broker.abandon();
        return;
    }
    keyboard::by_keyboard(&mut page, &sandbox).await;
    questions::are_answered_in_two_clicks(&mut page, &sandbox).await;
    looks::looks(&mut page).await;
    acts::letters_are_repaired(&mut page, letters).await;
    acts::what_was_found_stays(&mut page).await;
    acts::who_waits_is_cancelled(&mut page, &broker).await;
    acts::jobs_are_run(&mut page).await;
    acts::supply_is_paused(&mut page).await;
    acts::a_broken_sandbox_is_put_aside(&mut page, &broker).await;
    clock::hours_are_those_of_the_reader(&mut page).await;
    slow::a_late_answer_replaces_nothing(&mut page).await;
    safety::nothing_is_left_behind(&mut page, &origin).await;
    safety::a_hidden_tab_reads_nothing(&mut page).await;
    safety::a_bulk_action_survives_a_reload(&mut page, &origin, letters).await;
    safety::a_lost_answer_takes_no_letter_that_came_later(&mut page, &broker).await;
    slow::what_hangs_is_told(&mut page).await;
    safety::a_viewer_only_looks(&mut page).await;

    let asked = page.asked();
    let elsewhere: Vec<_> =
        asked.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "asked elsewhere: {elsewhere:?}");
    println!("the console made {} requests, none elsewhere; pictures in target/console", asked.len());
    page.close().await;
    broker.finish().await;
}

async fn sign_in(page: &mut Chromium, token: &str) {
    page.until("document.activeElement?.id === 'token'").await;
    page.insert(token).await;
    page.press("Enter").await;
    page.until("document.querySelector('.tiles, .view')").await;
}

async fn open(page: &mut Chromium, view: &str) {
    page.click(&format!("document.querySelector('[data-view={view}]')")).await;
    page.until(&format!("location.hash === '#{view}'")).await;
}

/// Lets the page see that it is time to read by itself what it shows. Its clock goes on a minute.
async fn reads_by_itself(page: &mut Chromium) {
    page.evaluate(
        "(() => { const before = Date.now; Date.now = () => before() + 60000; \
         document.dispatchEvent(new Event('visibilitychange')) })()",
    )
    .await;
}
