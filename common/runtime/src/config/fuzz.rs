//! Fuzz tests of the configuration: any settings are read, or refused with the setting's name and without its secret.
//!
//! Short in `cargo test`; `.ci/fuzz` runs it for minutes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Config, Networks, Origins, SETTINGS, unknown_names};

/// Plausible and implausible values of a setting.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "-?[0-9]{1,22}",
        "(true|false|TRUE|0|1| )",
        "[0-9a-f.:]{1,40}(/[0-9]{1,3})?(, ?[0-9.]{1,15}(/[0-9]{1,2})?)?",
        "([a-z@=,]{1,8}=[!-~]{0,40}[,\n]?){0,4}",
        "(https?://)?[a-z.:*/0-9]{0,30}",
        "(trace|info|warn|broker_api=debug|,|=|\\[)*",
    ]
}

fn any_settings() -> impl Strategy<Value = BTreeMap<String, String>> {
    let known = prop::sample::select(SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
    let name =
        prop_oneof![8 => known.prop_map(str::to_owned), 1 => "BROKER_[A-Z_]{0,20}", 1 => any::<String>()];
    prop::collection::btree_map(name, any_value(), 0..4)
}

proptest! {
    #[test]
    fn any_settings_are_read_or_refused_by_name(settings in any_settings()) {
        unknown_names(&settings);
        match Config::read(&settings) {
            Ok(config) => {
                let shown = format!("{config:?}");
                for token in config.track_tokens.iter().chain(config.admin_tokens.iter()) {
                    let secret = std::str::from_utf8(token.secret()).unwrap();
                    prop_assert!(secret.len() >= 16 && !shown.contains(secret), "{}", shown);
                }
                prop_assert!(config.rate_limit.is_none_or(|limit| limit.per_s > 0 && limit.burst > 0));
            }
            Err(error) => {
                prop_assert!(settings.contains_key(&error.name), "{error}");
                prop_assert!(SETTINGS.iter().any(|setting| setting.name == error.name), "{error}");
            }
        }
    }

    #[test]
    fn no_refusal_of_a_token_shows_it(entries in "([a-z@]{0,6}=?[!-~]{12,40}[,\n]?){1,4}") {
        let settings = BTreeMap::from([("BROKER_TRACK_TOKENS".to_owned(), entries.clone())]);
        if let Err(error) = Config::read(&settings) {
            // The text after the first "=" of an entry is its secret; names may be shown.
            for secret in entries.split([',', '\n']).filter_map(|entry| Some(entry.split_once('=')?.1.trim())) {
                prop_assert!(secret.len() < 4 || !error.to_string().contains(secret), "{error}");
            }
        }
    }

    #[test]
    fn any_list_is_read_or_refused(text in any_value(), address in any::<[u8; 4]>()) {
        if let Ok(networks) = Networks::parse(&text) {
            networks.contain(address.into());
        }
        if let Ok(origins) = Origins::parse(&text) {
            prop_assert!(!origins.allow("null") || text.contains('*'));
        }
    }
}
