//! Tests of the times of day that the console shows.

use serde_json::json;

use super::open;
use crate::chromium::Chromium;

/// The calendar on a day with a clock change, and the axis of a chart.
pub(super) async fn hours_are_those_of_the_reader(page: &mut Chromium) {
    page.call("Emulation.setTimezoneOverride", json!({ "timezoneId": "Europe/Berlin" })).await;
    open(page, "reservations").await;
    page.until("document.querySelector('.heads span')").await;
    page.click("document.querySelector('[data-span=day]')").await;
    // The next day that has 23 hours, and how far it is.
    let turned = "(() => { const day = new Date(); day.setHours(0, 0, 0, 0); let turns = 0; \
        const next = () => new Date(day.getFullYear(), day.getMonth(), day.getDate() + 1); \
        while (next() - day !== 23 * 3600000) { day.setTime(next()); turns += 1 } \
        const later = [...document.querySelectorAll('button')].find(one => one.innerText === 'Later'); \
        for (let n = 0; n < turns; n += 1) later.click(); \
        const six = [...document.querySelectorAll('.heads span')].find(one => one.innerText === '06:00'); \
        return Math.round(parseFloat(six.style.left) * 23 / 100 * 10) / 10 })()";
    assert_eq!(page.evaluate(turned).await.as_f64(), Some(5.0), "hours from midnight to six");

    page.call("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Kolkata" })).await;
    open(page, "overview").await;
    page.until("document.querySelector('.chart text[text-anchor=middle]')").await;
    let away = "(() => { const [hour, minute] = [...document.querySelectorAll('.chart text[text-anchor=middle]')].at(-1).textContent.split(':'); \
        const now = new Date(); return (now.getHours() * 60 + now.getMinutes() - hour * 60 - minute + 1440) % 1440 })()";
    let away = page.evaluate(away).await.as_f64();
    page.call("Emulation.setTimezoneOverride", json!({ "timezoneId": "" })).await;
    assert!(away.is_some_and(|minutes| minutes <= 60.0), "{away:?} minutes from the axis to the clock");
}
