//! The grammar of the policy's file: which keys there are, their ranges, and what must fit together.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeTable;

use super::read::{Examined, Located, Problem, Section, nearest};
use super::schedule::{Window, begins, zone};
use super::{
    ANY_FLAVOUR, BeforeDelete, FailedDeletions, Flavour, Gate, Hook, MAX_POLICY_BYTES, OnFailure, Policy,
    Refill, Tenant,
};
use crate::{FlavourName, InvalidId, NamePrefix, TenantName, Timestamp};

/// The largest number of sandboxes that a policy may speak of.
const MAX_SANDBOXES: u32 = 1_000_000;
/// The most that may be asked for in a minute.
const MAX_RATE_PER_MINUTE: u32 = 60_000;
/// The longest window: a week.
const MAX_WINDOW_HOURS: u32 = 168;
/// The most flavours: each is a label of metrics.
const MAX_FLAVOURS: usize = 100;
/// The most windows of a flavour.
const MAX_WINDOWS: usize = 50;
/// The longest a hook may take, in seconds.
const MAX_TIMEOUT_S: u32 = 60;
/// The time of a hook that says none.
const TIMEOUT_S: u32 = 10;
/// The attempts of a gate that says none.
const GATE_ATTEMPTS: u32 = 5;

/// The policy in `text`, or its problems.
pub(super) fn policy(text: &str) -> Result<Policy, Vec<Problem>> {
    let examined = Examined::new(text);
    if text.len() > MAX_POLICY_BYTES {
        let message = format!("{} bytes, at most {MAX_POLICY_BYTES} are allowed", text.len());
        examined.wrong(&(0..0), "", message);
        return Err(examined.into_problems());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        examined.wrong(&error.span().unwrap_or(0..0), "", format!("not TOML: {}", error.message()));
    }
    // What is no TOML has no keys that could be judged.
    if !errors.is_empty() {
        return Err(examined.into_problems());
    }
    let policy = Grammar { examined: &examined }.policy(&Section::root(&examined, &table));
    let problems = examined.into_problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    // It is stored in its canonical form, which every process must be able to read.
    let stored = policy.to_toml().len();
    if stored > MAX_POLICY_BYTES {
        let examined = Examined::new(text);
        let message = format!("{stored} bytes as it is stored, at most {MAX_POLICY_BYTES} are allowed");
        examined.wrong(&(0..0), "", message);
        return Err(examined.into_problems());
    }
    Ok(policy)
}

struct Grammar<'e, 't> {
    examined: &'e Examined<'t>,
}

type Flavours = BTreeMap<FlavourName, Located<Flavour>>;

impl<'e, 't> Grammar<'e, 't> {
    fn wrong<T>(&self, at: &Located<T>, message: impl Into<String>) {
        self.examined.wrong(&at.span, &at.key, message);
    }

    fn valid<T>(&self, at: &Located<&str>, make: impl FnOnce(String) -> Result<T, InvalidId>) -> Option<T> {
        make(at.value.to_owned()).map_err(|error| self.wrong(at, error.to_string())).ok()
    }

    fn policy(&self, root: &Section<'e, 't>) -> Policy {
        root.only(&["default_flavour", "flavour", "tenant"]);
        // Names that are used are looked up among those that are written, whether or not their tables are right.
        let section = root.table("flavour");
        let names: Vec<&str> = section.iter().flat_map(Section::keys).map(|key| key.value).collect();
        let flavours = section.map(|section| self.flavours(&section)).unwrap_or_default();
        let default_flavour = root.text("default_flavour").and_then(|name| self.known_flavour(&name, &names));
        let tenants = root.table("tenant").map(|section| self.tenants(&section, &names)).unwrap_or_default();
        let flavours = flavours.into_iter().map(|(name, at)| (name, at.value)).collect();
        Policy { default_flavour, flavours, tenants }
    }

    fn flavours(&self, section: &Section<'e, 't>) -> Flavours {
        let mut flavours = Flavours::new();
        for name in section.keys() {
            let valid = self.valid(&name, FlavourName::new);
            if name.value == ANY_FLAVOUR {
                self.wrong(&name, "this name stands for what has no flavour; choose another one");
            }
            let Some(table) = section.table(name.value) else { continue };
            let Some(flavour) = self.flavour(&table) else { continue };
            let Some(valid) = valid else { continue };
            if flavours.len() == MAX_FLAVOURS {
                section.wrong(format!("at most {MAX_FLAVOURS} flavours are allowed"));
                break;
            }
            flavours.insert(valid, flavour);
        }
        self.apart(&flavours);
        flavours
    }

    /// Prefixes that contain each other would give a sandbox two flavours.
    fn apart(&self, flavours: &Flavours) {
        let mut by_prefix: Vec<_> =
            flavours.iter().map(|(name, at)| (at.value.prefix.as_str(), name, at)).collect();
        by_prefix.sort_by_key(|(prefix, name, _)| (*prefix, *name));
        for (place, (prefix, name, at)) in by_prefix.iter().enumerate() {
            let longer =
                by_prefix.iter().skip(place + 1).take_while(|(longer, ..)| longer.starts_with(prefix));
            let line = self.examined.line(&at.span);
            for (longer, _, at) in longer {
                let first = format!("\"{longer}\" overlaps \"{prefix}\" of flavour `{name}` (line {line})");
                self.wrong(at, format!("{first}: a sandbox would have two flavours"));
            }
        }
    }

    /// The flavour, at the place of its prefix.
    fn flavour(&self, table: &Section<'e, 't>) -> Option<Located<Flavour>> {
        table.only(&["prefix", "refill", "gate", "before_delete", "failed_deletions"]);
        let text = table.needed_text("prefix");
        let prefix = text.as_ref().and_then(|text| self.valid(text, NamePrefix::new));
        let refill = table.table("refill").map(|table| self.refill(&table));
        let gate = table.table("gate").map(|table| self.gate(&table));
        let before_delete = table.table("before_delete").map(|table| self.before_delete(&table));
        let failed_deletions = table.text("failed_deletions").and_then(|word| {
            let known = FailedDeletions::ALL.into_iter().find(|known| known.as_str() == word.value);
            if known.is_none() {
                self.wrong(&word, format!("\"{}\" is neither \"retry\" nor \"quarantine\"", word.value));
            }
            known
        });
        // A part that is there and wrong was noted; the flavour is kept, so that its prefix is judged as well.
        let (text, prefix) = text.zip(prefix)?;
        let (refill, gate, before_delete) = (refill.flatten(), gate.flatten(), before_delete.flatten());
        let failed_deletions = failed_deletions.unwrap_or_default();
        let value = Flavour { prefix, refill, gate, before_delete, failed_deletions };
        Some(Located { value, span: text.span, key: text.key })
    }

    fn refill(&self, table: &Section<'e, 't>) -> Option<Refill> {
        table.only(&["min", "max", "rate_per_minute", "url", "timeout_s", "schedule"]);
        let min = table.needed_number("min", 0..=MAX_SANDBOXES);
        let max = table.needed_number("max", 1..=MAX_SANDBOXES);
        let rate = table.needed_number("rate_per_minute", 1..=MAX_RATE_PER_MINUTE);
        let hook = self.hook(table, false);
        if let (Some(min), Some(max)) = (&min, &max)
            && min.value > max.value
        {
            self.wrong(min, format!("{} is more than max, {}", min.value, max.value));
        }
        let bounds = (min.as_ref().map(|min| min.value), max.as_ref().map(|max| max.value));
        let schedule = self.schedule(table, bounds);
        Some(Refill { min: min?.value, max: max?.value, rate_per_minute: rate?.value, hook, schedule })
    }

    fn schedule(&self, refill: &Section<'e, 't>, bounds: (Option<u32>, Option<u32>)) -> Vec<Window> {
        let mut windows: Vec<(usize, Window)> = Vec::new();
        for table in refill.tables("schedule") {
            let Some(window) = self.window(&table, bounds) else { continue };
            let same = |(_, other): &&(usize, Window)| {
                other.from() == window.from() && other.zone() == window.zone()
            };
            if let Some((line, _)) = windows.iter().find(same) {
                table.wrong(format!(
                    "clashes with the window of line {line}, which begins at the same times: keep one of them"
                ));
            }
            if windows.len() == MAX_WINDOWS {
                table.wrong(format!("at most {MAX_WINDOWS} windows are allowed"));
                break;
            }
            windows.push((self.examined.line(&table.span), window));
        }
        let mut windows: Vec<Window> = windows.into_iter().map(|(_, window)| window).collect();
        windows.sort_by(|a, b| (a.zone(), a.from()).cmp(&(b.zone(), b.from())));
        windows
    }

    fn window(&self, table: &Section<'e, 't>, (min, max): (Option<u32>, Option<u32>)) -> Option<Window> {
        table.only(&["from", "hours", "zone", "min"]);
        let from = table.needed_text("from");
        let cron =
            from.as_ref().and_then(|from| begins(from.value).map_err(|why| self.wrong(from, why)).ok());
        let hours = table.needed_number("hours", 1..=MAX_WINDOW_HOURS);
        let zone_name = table.needed_text("zone");
        let zone = zone_name.and_then(|name| zone(name.value).map_err(|why| self.wrong(&name, why)).ok());
        let lifted = table.needed_number("min", 1..=MAX_SANDBOXES);
        if let (Some(lifted), Some(max)) = (&lifted, max)
            && lifted.value > max
        {
            self.wrong(lifted, format!("{} is more than max, {max}", lifted.value));
        }
        if let (Some(lifted), Some(min)) = (&lifted, min)
            && lifted.value <= min
        {
            let message =
                format!("{} lifts nothing: the highest applies, and min is {min} already", lifted.value);
            self.wrong(lifted, message);
        }
        let window = Window::new(cron?, zone?, hours?.value, lifted?.value);
        if let Some(from) = from
            && window.next_begin(Timestamp::from_ms(0)).is_none()
        {
            self.wrong(&from, "no day has such a date: the window never begins");
        }
        Some(window)
    }

    fn gate(&self, table: &Section<'e, 't>) -> Option<Gate> {
        table.only(&["url", "timeout_s", "attempts"]);
        let attempts = table.number("attempts", 1..=20).map_or(GATE_ATTEMPTS, |attempts| attempts.value);
        Some(Gate { hook: self.hook(table, true)?, attempts })
    }

    fn before_delete(&self, table: &Section<'e, 't>) -> Option<BeforeDelete> {
        table.only(&["url", "timeout_s", "on_failure"]);
        let on_failure = table.text("on_failure").and_then(|word| {
            let known = OnFailure::ALL.into_iter().find(|known| known.as_str() == word.value);
            if known.is_none() {
                self.wrong(&word, format!("\"{}\" is neither \"block\" nor \"pass\"", word.value));
            }
            known
        });
        Some(BeforeDelete { hook: self.hook(table, true)?, on_failure: on_failure.unwrap_or_default() })
    }

    fn hook(&self, table: &Section<'e, 't>, needed: bool) -> Option<Hook> {
        let timeout = table.number("timeout_s", 1..=MAX_TIMEOUT_S);
        let url = if needed { table.needed_text("url") } else { table.text("url") };
        if url.is_none()
            && let (false, Some(timeout)) = (needed, &timeout)
        {
            self.wrong(timeout, "a time without a `url` is the time of nothing");
        }
        let url = url?;
        let valid = hook_url(url.value).map_err(|why| self.wrong(&url, why)).ok()?;
        let timeout_s = timeout.map_or(TIMEOUT_S, |timeout| timeout.value);
        Some(Hook { url: valid, timeout: Duration::from_secs(u64::from(timeout_s)) })
    }

    fn tenants(&self, section: &Section<'e, 't>, flavours: &[&str]) -> BTreeMap<TenantName, Tenant> {
        let mut tenants = BTreeMap::new();
        for name in section.keys() {
            let valid = self.valid(&name, TenantName::new);
            let Some(table) = section.table(name.value) else { continue };
            table.only(&["limits", "weight"]);
            let weight = table.number("weight", 1..=1_000).map_or(1, |weight| weight.value);
            let mut limits = BTreeMap::new();
            if let Some(section) = table.table("limits") {
                for key in section.keys() {
                    let flavour = self.known_flavour(&key, flavours);
                    let limit = section.number(key.value, 0..=MAX_SANDBOXES);
                    limits.extend(flavour.zip(limit.map(|limit| limit.value)));
                }
            }
            if let Some(valid) = valid {
                tenants.insert(valid, Tenant { limits, weight });
            }
        }
        tenants
    }

    fn known_flavour(&self, name: &Located<&str>, flavours: &[&str]) -> Option<FlavourName> {
        if flavours.contains(&name.value) {
            return FlavourName::new(name.value).ok();
        }
        let hint = nearest(name.value, flavours.iter().copied());
        let hint = hint.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        self.wrong(name, format!("there is no flavour `{}`{hint}", name.value));
        None
    }
}

fn hook_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("a hook is called over https or http, not {}", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user and no password in a URL: requests are signed".to_owned());
    }
    if url.fragment().is_some() {
        return Err("a fragment (#…) is never sent".to_owned());
    }
    Ok(url)
}
