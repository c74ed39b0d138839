//! Reader of settings: names and strings in, checked values out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;
use tracing_subscriber::filter::Targets;

use super::hooks::HookSecret;
use super::settings::{CRASH_SETTING, SETTINGS, Setting, setting};
use super::tokens::Tokens;

/// A source of settings.
pub trait Strings {
    /// The value of `name`, if it is set.
    fn get(&self, name: &str) -> Option<String>;
    /// Every name that is set.
    fn names(&self) -> Vec<String>;
}

/// The environment as `main` gets it. A setting, or a variable of AWS, whose value is no text is refused: without it the
/// default would apply.
pub fn strings(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let read = environment.into_iter().map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) if is_known(&name) || name.starts_with("AWS_") => {
                Err(ConfigError::new(&name, "is not UTF-8 text"))
            }
            // Nothing reads it. Its name may be told.
            Err(value) => Ok((name, value.to_string_lossy().into_owned())),
        }
    });
    read.collect()
}

impl Strings for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Some strings (flags) laid over others (the environment).
pub struct Overlay<'a> {
    /// The strings that win.
    pub over: &'a dyn Strings,
    /// The strings for other names.
    pub under: &'a dyn Strings,
}

impl Strings for Overlay<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.over.get(name).or_else(|| self.under.get(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.over.names();
        names.extend(self.under.names());
        names
    }
}

/// A setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    /// The setting.
    pub name: String,
    /// The problem. Never shows a secret.
    pub problem: String,
}

impl ConfigError {
    /// The setting `name` is wrong for the reason `problem`.
    pub fn new(name: &str, problem: impl Into<String>) -> Self {
        Self { name: name.to_owned(), problem: problem.into() }
    }
}

/// A `BROKER_*` name that is not a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// The known name that is the most similar.
    pub nearest: &'static str,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest } = self;
        write!(f, "{name} is not a setting and has no effect: did you mean {nearest}?")
    }
}

/// Names of clients, which a shell may have beside the settings: those of `broker lease`, the examples and `infra/check/smoke`.
const OF_CLIENTS: [&str; 3] = ["BROKER_URL", "BROKER_TOKEN", "BROKER_SMOKE_TOKEN"];

fn is_known(name: &str) -> bool {
    match name.strip_suffix("_FILE") {
        Some(base) => setting(base).is_some_and(|setting| setting.secret),
        None => setting(name).is_some() || name == CRASH_SETTING || OF_CLIENTS.contains(&name),
    }
}

/// The names in `strings` that look like settings and are not.
pub fn unknown_names(strings: &dyn Strings) -> Vec<UnknownName> {
    let ours = strings.names().into_iter().filter(|name| name.starts_with("BROKER_") && !is_known(name));
    ours.map(|name| {
        let known = SETTINGS.iter().map(|setting| setting.name).chain(OF_CLIENTS);
        let nearest = known.min_by_key(|known| strsim::levenshtein(known, &name)).unwrap_or_default();
        UnknownName { name, nearest }
    })
    .collect()
}

/// Reads settings of the list by name.
pub(super) struct SettingsReader<'a> {
    strings: &'a dyn Strings,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(strings: &'a dyn Strings) -> Self {
        Self { strings }
    }

    /// Whether the setting is set, and has not its default.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.strings.get(name).is_some()
    }

    fn raw(&self, name: &str) -> Result<String, ConfigError> {
        let setting =
            setting(name).ok_or_else(|| ConfigError::new(name, "is not in the list of settings"))?;
        let value = self.strings.get(name);
        let file = if setting.secret { self.strings.get(&format!("{name}_FILE")) } else { None };
        match (value, file) {
            (Some(_), Some(_)) => {
                Err(ConfigError::new(name, format!("is set, and so is {name}_FILE: set one of them")))
            }
            (Some(value), None) => Ok(value),
            (None, Some(path)) => std::fs::read_to_string(&path).map_err(|error| {
                // What is no path may be the secret itself, put into the wrong variable.
                let shown = if path.starts_with(['/', '.']) { &path } else { "the file that it names" };
                ConfigError::new(&format!("{name}_FILE"), format!("cannot read {shown}: {error}"))
            }),
            (None, None) => Ok(setting.default.to_owned()),
        }
    }

    pub(super) fn text(
        &self,
        name: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Result<String, ConfigError> {
        let value = self.raw(name)?;
        match check(&value) {
            Ok(()) => Ok(value),
            Err(rule) => Err(ConfigError::new(name, format!("{value:?} is not {rule}"))),
        }
    }

    fn parsed<T: FromStr>(&self, name: &str, what: &str) -> Result<T, ConfigError> {
        let value = self.raw(name)?;
        value.trim().parse().map_err(|_| ConfigError::new(name, format!("{value:?} is not {what}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        self.parsed(name, "true or false")
    }

    pub(super) fn log_filter(&self, name: &str) -> Result<Targets, ConfigError> {
        self.parsed(name, "a log filter, such as info or broker_worker=debug,warn")
    }

    pub(super) fn address(&self, name: &str) -> Result<SocketAddr, ConfigError> {
        self.parsed(name, "an address with a port, such as 127.0.0.1:8080")
    }

    /// What `read` says of the setting `name`, unless that is empty.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        if self.raw(name)?.is_empty() { Ok(None) } else { read(self, name).map(Some) }
    }

    /// A whole number in the range of the setting.
    pub(super) fn number<T>(&self, name: &str) -> Result<T, ConfigError>
    where
        T: TryFrom<u64>,
    {
        let range = setting(name).map_or(0..=u64::MAX, Setting::range);
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        let number: u64 = self.parsed(name, &rule)?;
        let fits = range.contains(&number).then_some(number).and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| ConfigError::new(name, format!("{number} is not {rule}")))
    }

    /// A directory; whether the default one is there is not asked.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, ConfigError> {
        let is_default = |path: &str| setting(name).is_some_and(|setting| setting.default == path);
        let check = |path: &str| {
            if is_default(path) || Path::new(path).is_dir() { Ok(()) } else { Err("a directory") }
        };
        self.text(name, check).map(PathBuf::from)
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Duration, ConfigError> {
        self.number(name).map(Duration::from_secs)
    }

    /// A number from 0 to 1.
    pub(super) fn ratio(&self, name: &str) -> Result<f64, ConfigError> {
        const RULE: &str = "a number from 0 to 1, such as 0.1";
        let ratio: f64 = self.parsed(name, RULE)?;
        let fits = (0.0..=1.0).contains(&ratio).then_some(ratio);
        fits.ok_or_else(|| ConfigError::new(name, format!("{ratio} is not {RULE}")))
    }

    /// The base of an HTTP API, if it is set, without a slash at the end.
    pub(super) fn url(&self, name: &str) -> Result<Option<Uri>, ConfigError> {
        let url = self.text(name, |_| Ok(()))?;
        if url.is_empty() {
            return Ok(None);
        }
        // It may hold a password.
        let shown = || without_userinfo(&url);
        let refuse = || ConfigError::new(name, format!("{:?} is not an http or https URL", shown()));
        let parsed: Uri = url.trim_end_matches('/').parse().map_err(|_| refuse())?;
        let fits = matches!(parsed.scheme_str(), Some("http" | "https")) && parsed.query().is_none();
        let authority = parsed.authority().filter(|_| fits).ok_or_else(refuse)?;
        if authority.as_str().contains('@') {
            let problem = format!(
                "{:?} had a name or password in it: those belong into a secret of their own",
                shown()
            );
            return Err(ConfigError::new(name, problem));
        }
        Ok(Some(parsed))
    }

    pub(super) fn list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        parse(&self.raw(name)?).map_err(|problem| ConfigError::new(name, problem))
    }

    /// A secret, without the newline that a file ends with.
    pub(super) fn secret(&self, name: &str) -> Result<SecretString, ConfigError> {
        let value = self.raw(name)?;
        let value = value.trim();
        if value.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(SecretString::from(value))
        } else {
            Err(ConfigError::new(name, "has characters that are not visible ASCII"))
        }
    }

    /// The value of one of two words.
    pub(super) fn either<T>(&self, name: &str, words: [(&str, T); 2]) -> Result<T, ConfigError> {
        let text = self.raw(name)?;
        let problem = format!("{text:?} is neither {} nor {}", words[0].0, words[1].0);
        let value = words.into_iter().find(|(word, _)| *word == text).map(|(_, value)| value);
        value.ok_or_else(|| ConfigError::new(name, problem))
    }

    pub(super) fn hook_secrets(&self, name: &str) -> Result<Vec<HookSecret>, ConfigError> {
        HookSecret::parse_all(&self.raw(name)?).map_err(|problem| ConfigError::new(name, problem))
    }

    pub(super) fn tokens(&self, name: &str) -> Result<Tokens, ConfigError> {
        Tokens::parse(&self.raw(name)?).map_err(|problem| ConfigError::new(name, problem))
    }

    pub(super) fn platform_tokens(&self, name: &str) -> Result<Tokens, ConfigError> {
        self.tokens(name)?.of_platforms().map_err(|problem| ConfigError::new(name, problem))
    }
}
/// A URL, or what was meant to be one, without what stands before an `@`.
fn without_userinfo(url: &str) -> String {
    let Some((before, after)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
    format!("{scheme}…@{after}")
}
