//! Page test: a reader of `/v1/docs` authorizes, tries an allocation, reads the response.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker_tests::api::TRACK_TOKEN;
use broker_tests::{Broker, binaries};

use crate::chromium::Chromium;

const TRACK: &str = "reader-1";

/// The part of the dialogue that takes the platform's token.
const PLATFORM: &str = "[...document.querySelectorAll('.modal-ux .auth-container')]\
                        .find(part => part.querySelector('h4').innerText.startsWith('platform'))";
const OPERATION: &str = "document.querySelector('#operations-tracks-allocate')";

/// Allocates through the page.
///
/// # Panics
///
/// When the page does not do what a reader expects, asks another host, or breaks its own policy.
pub(crate) async fn allocates(broker: &Broker) {
    let origin = format!("http://{}", broker.api(0).address());
    let mut page = Chromium::start().await;
    page.open(&format!("{origin}/v1/docs")).await;

    page.click("document.querySelector('.auth-wrapper .btn.authorize')").await;
    page.write(&format!("{PLATFORM}?.querySelector('input')"), TRACK_TOKEN).await;
    page.click(&format!("{PLATFORM}?.querySelector('.auth-btn-wrapper .authorize')")).await;
    page.click(&format!("{PLATFORM}?.querySelector('.auth-btn-wrapper .btn-done')")).await;

    page.click(&format!("{OPERATION}?.querySelector('.opblock-summary-control')")).await;
    page.click(&format!("{OPERATION}?.querySelector('.try-out__btn')")).await;
    let owner = "tr[data-param-name=\"X-Instruqt-Sandbox-ID\"] input";
    page.write(&format!("{OPERATION}?.querySelector('{owner}')"), TRACK).await;
    page.click(&format!("{OPERATION}?.querySelector('.btn.execute')")).await;

    let answer = format!("{OPERATION}?.querySelector('.live-responses-table .response')");
    let status = page.text(&format!("{answer}?.querySelector('.response-col_status')")).await;
    let body = page
        .text(&format!(
            "{answer}?.querySelector('.response-col_description .microlight, .response-col_description pre')"
        ))
        .await;
    let picture = BASE64_STANDARD.decode(page.screenshot().await).expect("base64");
    let file = binaries::workspace().join("target/swagger-ui.png");
    std::fs::write(&file, picture).expect("the screenshot can be written");

    assert_eq!(status.trim(), "201", "{body}");
    let told: serde_json::Value =
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let sandbox = told["sandbox_id"].as_str().unwrap_or_else(|| panic!("no sandbox in {body}"));
    // The responses in the page match those of other clients.
    let held = broker.sandbox(sandbox, TRACK).send().await.expect_status(200);
    assert_eq!(held.text_of("status"), "allocated");

    let complaints = page.complaints();
    assert!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    let asked = page.asked();
    let elsewhere: Vec<_> =
        asked.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "asked elsewhere: {elsewhere:?}");
    println!(
        "allocated {sandbox} through {origin}/v1/docs: {} requests, none elsewhere; {}",
        asked.len(),
        file.display()
    );
    page.close().await;
}
