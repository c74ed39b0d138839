//! Tests of following pages and of hiding the token. HTTP behaviour is covered by `tests/e2e` against the stand-in.

use std::time::Duration;

use secrecy::SecretString;

use super::ProviderError;
use super::http::Http;
use broker_runtime::clock::Clock;
use broker_runtime::config::ProviderConfig;

fn http(url: &str) -> Http {
    let config = ProviderConfig {
        url: url.parse().unwrap(),
        token: SecretString::from("secret"),
        rate: 2,
        timeout: Duration::from_secs(1),
    };
    Http::new(&config, Clock::system()).unwrap()
}

#[test]
fn a_page_of_the_same_origin_is_followed_and_no_other() {
    let http = http("https://provider.example/api");
    assert_eq!(http.at("/x").unwrap().to_string(), "https://provider.example/api/x");
    for same in ["https://provider.example/api/x?page=2", "/api/x?page=2"] {
        assert_eq!(http.follow(same).unwrap().to_string(), "https://provider.example/api/x?page=2");
    }
    for foreign in [
        "http://provider.example/api/x",
        "https://elsewhere.example/api/x",
        "https://provider.example:444/x",
        "https://provider.example@elsewhere.example/x",
        "x?page=2",
        "",
    ] {
        assert!(matches!(http.follow(foreign), Err(ProviderError::Malformed { .. })), "{foreign}");
    }
}

#[test]
fn the_token_is_not_shown() {
    assert!(!format!("{:?}", http("http://127.0.0.1:1")).contains("secret"));
}
