//! The part of the AWS environment that decides how clients are made.
//!
//! A shell has settings for other tools: a proxy, FIPS, a retry mode. Endpoints on this machine take none of them.
//! Elsewhere they hold, and a value that the SDK cannot use is a [`ConfigError`] with its name; the SDK itself would panic.

use http::Uri;

use super::foreign::ForeignSettings;
use crate::config::{ConfigError, Strings};

/// Retry modes that the SDK for Rust knows.
const RETRY_MODES: [&str; 2] = ["standard", "adaptive"];

/// Where the endpoints are, as far as it matters to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwsEnvironment {
    /// Whether both endpoints are on this machine.
    pub(super) on_this_machine: bool,
}

/// What the AWS environment says, for people.
#[derive(Clone, Debug)]
pub struct ToldEnvironment {
    /// The profile and what names it.
    pub profile: Option<String>,
    /// What the region is read from, if it is a variable.
    pub region_from: Option<&'static str>,
    /// The endpoints that are set: the variable and the URL, without user and password.
    pub endpoints: Vec<(&'static str, String)>,
    /// Settings for other tools.
    pub foreign: ForeignSettings,
}

/// The variables that name endpoints: of everything, and of each service.
const EVERYWHERE: &str = "AWS_ENDPOINT_URL";
const OF_SERVICES: [&str; 2] = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS"];
/// Has the SDK pass over all of them.
const WITHOUT_ENDPOINTS: &str = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS";

impl AwsEnvironment {
    /// Reads `AWS_ENDPOINT_URL[_DYNAMODB|_SQS]` and checks what the SDK would not survive.
    ///
    /// # Errors
    ///
    /// Names the variable whose value cannot be used.
    pub fn read(strings: &dyn Strings) -> Result<Self, ConfigError> {
        let set = |name: &str| strings.get(name).filter(|value| !value.is_empty());
        let everywhere = endpoint(EVERYWHERE, set(EVERYWHERE))?;
        let mut on_this_machine =
            !set(WITHOUT_ENDPOINTS).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        for name in OF_SERVICES {
            let own = endpoint(name, set(name))?;
            on_this_machine &= own.or_else(|| everywhere.clone()).is_some_and(|url| is_loopback(&url));
        }
        if !on_this_machine {
            refuse_what_panics(&set)?;
        }
        Ok(Self { on_this_machine })
    }

    /// The same for people.
    pub fn told(self, strings: &dyn Strings) -> ToldEnvironment {
        let set = |name: &str| strings.get(name).filter(|value| !value.is_empty());
        let url = |name| {
            let url = endpoint(name, set(name)).ok().flatten()?;
            let host = url.authority().map_or("", |at| at.as_str().rsplit('@').next().unwrap_or_default());
            Some((name, format!("{}://{host}{}", url.scheme_str().unwrap_or("http"), url.path())))
        };
        ToldEnvironment {
            profile: set("AWS_PROFILE"),
            region_from: ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find(|name| set(name).is_some()),
            endpoints: [EVERYWHERE].into_iter().chain(OF_SERVICES).filter_map(url).collect(),
            foreign: ForeignSettings::read(strings, self.on_this_machine),
        }
    }
}

fn endpoint(name: &str, value: Option<String>) -> Result<Option<Uri>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let url = value.parse::<Uri>().ok().filter(|url| {
        url.host().is_some() && url.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https")
    });
    url.map(Some).ok_or_else(|| ConfigError::new(name, "is not a URL like http://127.0.0.1:4566"))
}

/// Whether `url` is one of this machine.
pub(super) fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refuse_what_panics(set: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    if let Some(mode) = set("AWS_RETRY_MODE")
        && !RETRY_MODES.contains(&mode.as_str())
    {
        let problem = format!(
            "is {mode}; the SDK knows standard and adaptive. Unset it: the broker has retries of its own"
        );
        return Err(ConfigError::new("AWS_RETRY_MODE", problem));
    }
    if let Some(attempts) = set("AWS_MAX_ATTEMPTS")
        && attempts.parse::<u32>().ok().is_none_or(|attempts| attempts == 0)
    {
        return Err(ConfigError::new(
            "AWS_MAX_ATTEMPTS",
            format!("is {attempts}, which is no number of 1 or more"),
        ));
    }
    for name in ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"] {
        if let Some(value) = set(name)
            && !["true", "false"].contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(ConfigError::new(name, format!("is {value}, which is neither true nor false")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<AwsEnvironment, ConfigError> {
        let strings: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        AwsEnvironment::read(&strings)
    }

    #[test]
    fn endpoints_on_this_machine_take_nothing_of_the_shell() {
        for url in ["http://127.0.0.1:4566", "http://localhost:1", "http://[::1]:8000"] {
            let told =
                read(&[("AWS_ENDPOINT_URL", url), ("AWS_RETRY_MODE", "legacy"), ("AWS_MAX_ATTEMPTS", "x")]);
            assert_eq!(told, Ok(AwsEnvironment { on_this_machine: true }), "{url}");
        }
    }

    #[test]
    fn one_endpoint_elsewhere_is_elsewhere() {
        let one = [("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:4566")];
        assert_eq!(read(&one), Ok(AwsEnvironment { on_this_machine: false }));
        assert_eq!(read(&[]), Ok(AwsEnvironment { on_this_machine: false }));
        let other =
            [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ENDPOINT_URL_SQS", "https://sqs.example")];
        assert_eq!(read(&other), Ok(AwsEnvironment { on_this_machine: false }));
    }

    #[test]
    fn endpoints_that_the_sdk_passes_over_are_none() {
        let local = ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566");
        let told = read(&[local, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE")]);
        assert_eq!(told, Ok(AwsEnvironment { on_this_machine: false }));
        let told = read(&[local, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")]);
        assert_eq!(told, Ok(AwsEnvironment { on_this_machine: true }));
    }

    #[test]
    fn what_is_set_for_other_tools_is_told_with_what_becomes_of_it() {
        let of = |pairs: &[(&str, &str)]| {
            let strings: BTreeMap<String, String> =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            AwsEnvironment::read(&strings).unwrap().told(&strings)
        };
        let proxy = ("HTTPS_PROXY", "http://user:secret@proxy:3128");
        let there = of(&[proxy, ("AWS_MAX_ATTEMPTS", "3"), ("AWS_PROFILE", "okta"), ("AWS_REGION", "r")]);
        assert_eq!((there.profile.as_deref(), there.region_from), (Some("okta"), Some("AWS_REGION")));
        assert_eq!(there.foreign.hold, ["HTTPS_PROXY"]);
        assert_eq!(there.foreign.ignored, [("AWS_MAX_ATTEMPTS", "the broker has retries of its own")]);
        let here = of(&[
            proxy,
            ("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:1/x"),
            ("AWS_PROFILE", "okta"),
            ("AWS_ACCESS_KEY_ID", "a"),
        ]);
        assert_eq!(here.endpoints, [("AWS_ENDPOINT_URL", "http://127.0.0.1:1/x".to_owned())]);
        let ignored: Vec<_> = here.foreign.ignored.iter().map(|(name, _)| *name).collect();
        assert_eq!((here.foreign.hold.len(), ignored.as_slice()), (0, &["HTTPS_PROXY", "AWS_PROFILE"][..]));
        assert!(!format!("{here:?}").contains("secret"));
    }

    #[test]
    fn a_value_that_the_sdk_would_not_survive_is_named() {
        let bad = [
            ("AWS_RETRY_MODE", "legacy"),
            ("AWS_MAX_ATTEMPTS", "many"),
            ("AWS_MAX_ATTEMPTS", "0"),
            ("AWS_USE_FIPS_ENDPOINT", "yes"),
            ("AWS_ENDPOINT_URL", "somewhere"),
            ("AWS_ENDPOINT_URL_SQS", "ftp://host"),
        ];
        for (name, value) in bad {
            assert_eq!(read(&[(name, value)]).unwrap_err().name, name);
        }
        assert!(read(&[("AWS_RETRY_MODE", "adaptive"), ("AWS_MAX_ATTEMPTS", "3")]).is_ok());
    }
}
