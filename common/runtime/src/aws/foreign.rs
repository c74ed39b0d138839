//! Foreign settings: environment variables for other tools, and whether the broker uses or ignores each.
//!
//! A proxy's value may hold a password, so proxies are told by name alone.

use crate::config::Strings;

/// Settings that hold for endpoints of AWS and not on this machine.
const HOLD_ELSEWHERE: [&str; 10] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
];

/// Settings of other tools that nothing here reads, and why.
const NEVER_HOLD: [(&str, &str); 6] = [
    ("AWS_RETRY_MODE", "the broker has retries of its own"),
    ("AWS_MAX_ATTEMPTS", "the broker has retries of its own"),
    ("AWS_DEFAULT_PROFILE", "the SDK for Rust reads AWS_PROFILE"),
    ("AWS_CA_BUNDLE", "the SDK for Rust trusts the machine's certificates"),
    ("AWS_SECURITY_TOKEN", "the SDK for Rust reads AWS_SESSION_TOKEN"),
    ("BOTO_CONFIG", "it is another tool's"),
];

/// The foreign settings of a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignSettings {
    /// What holds, by name.
    pub hold: Vec<&'static str>,
    /// What does not, and why.
    pub ignored: Vec<(&'static str, &'static str)>,
}

impl ForeignSettings {
    /// Those that are set, for endpoints `on_this_machine` or elsewhere.
    pub(super) fn read(strings: &dyn Strings, on_this_machine: bool) -> Self {
        let is_set = |name: &str| strings.get(name).is_some_and(|value| !value.is_empty());
        let mut foreign = Self::default();
        for name in HOLD_ELSEWHERE.into_iter().filter(|name| is_set(name)) {
            if on_this_machine {
                foreign.ignored.push((name, "the endpoints are on this machine"));
            } else {
                foreign.hold.push(name);
            }
        }
        foreign.ignored.extend(NEVER_HOLD.into_iter().filter(|(name, _)| is_set(name)));
        if is_set("AWS_PROFILE") && is_set("AWS_ACCESS_KEY_ID") {
            foreign.ignored.push(("AWS_PROFILE", "for credentials AWS_ACCESS_KEY_ID goes before it"));
        }
        foreign
    }
}
