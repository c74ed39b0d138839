//! A policy as text: one form for each meaning, its digest, and what differs between two.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{BeforeDelete, FailedDeletions, Gate, Hook, Policy, Refill, Tenant, Window};

/// The digest of a policy's canonical form: what an ETag is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDigest(String);

impl PolicyDigest {
    /// Its text, 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What differs between two policies under one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key, such as `flavour.small.refill.min`.
    pub key: String,
    /// What stood there, if something did.
    pub before: Option<String>,
    /// What stands there now, if something does.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {} = {before} -> {after}", self.key),
            (None, Some(after)) => write!(f, "+ {} = {after}", self.key),
            (Some(before), None) => write!(f, "- {} = {before}", self.key),
            (None, None) => write!(f, "  {}", self.key),
        }
    }
}

/// A table of the text with its keys, in the order in which people read them.
struct TomlTable {
    name: String,
    rows: Vec<(String, String)>,
}

impl Policy {
    /// The canonical text: parsing it gives this policy again.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for table in self.tables() {
            if !table.name.is_empty() {
                let separator = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{separator}[{}]", table.name);
            }
            for (key, value) in table.rows {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// The digest of the canonical text: equal for equal policies.
    pub fn digest(&self) -> PolicyDigest {
        let digest = Sha256::digest(self.to_toml());
        PolicyDigest(digest.iter().take(16).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// What differs from `self` to `after`, by key.
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let (before, after) = (self.entries(), after.entries());
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let change = |key: &String| Change {
            key: key.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        };
        keys.into_iter().map(change).filter(|change| change.before != change.after).collect()
    }

    fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = BTreeMap::new();
        for TomlTable { name, rows } in self.tables() {
            let above = if name.is_empty() { String::new() } else { format!("{name}.") };
            entries.extend(rows.into_iter().map(|(key, value)| (format!("{above}{key}"), value)));
        }
        entries
    }

    fn tables(&self) -> Vec<TomlTable> {
        let default = self.default_flavour.iter().map(|name| row("default_flavour", quoted(name.as_str())));
        let mut tables = vec![TomlTable { name: String::new(), rows: default.collect() }];
        for (name, flavour) in &self.flavours {
            let name = format!("flavour.{}", key(name.as_str()));
            let mut rows = vec![row("prefix", quoted(flavour.prefix.as_str()))];
            if flavour.failed_deletions != FailedDeletions::default() {
                rows.push(row("failed_deletions", quoted(flavour.failed_deletions.as_str())));
            }
            tables.push(TomlTable { name: name.clone(), rows });
            let parts = [
                flavour.refill.as_ref().map(|refill| ("refill", refill_rows(refill))),
                flavour.gate.as_ref().map(|gate| ("gate", gate_rows(gate))),
                flavour.before_delete.as_ref().map(|hook| ("before_delete", before_delete_rows(hook))),
            ];
            let parts = parts.into_iter().flatten();
            tables.extend(parts.map(|(part, rows)| TomlTable { name: format!("{name}.{part}"), rows }));
        }
        tables.extend(self.tenants.iter().flat_map(|(name, tenant)| tenant_tables(name.as_str(), tenant)));
        tables
    }
}

fn row(key: &str, value: String) -> (String, String) {
    (key.to_owned(), value)
}

fn refill_rows(refill: &Refill) -> Vec<(String, String)> {
    let mut rows = vec![
        row("min", refill.min.to_string()),
        row("max", refill.max.to_string()),
        row("rate_per_minute", refill.rate_per_minute.to_string()),
    ];
    rows.extend(refill.hook.iter().flat_map(hook_rows));
    if !refill.schedule.is_empty() {
        let windows: Vec<String> = refill.schedule.iter().map(window).collect();
        rows.push(row("schedule", format!("[{}]", windows.join(", "))));
    }
    rows
}

fn window(window: &Window) -> String {
    format!(
        "{{ from = {}, hours = {}, zone = {}, min = {} }}",
        quoted(window.from()),
        window.hours(),
        quoted(window.zone()),
        window.min()
    )
}

fn hook_rows(hook: &Hook) -> Vec<(String, String)> {
    vec![row("url", quoted(hook.url.as_str())), row("timeout_s", hook.timeout.as_secs().to_string())]
}

fn gate_rows(gate: &Gate) -> Vec<(String, String)> {
    let mut rows = hook_rows(&gate.hook);
    rows.push(row("attempts", gate.attempts.to_string()));
    rows
}

fn before_delete_rows(before: &BeforeDelete) -> Vec<(String, String)> {
    let mut rows = hook_rows(&before.hook);
    rows.push(row("on_failure", quoted(before.on_failure.as_str())));
    rows
}

fn tenant_tables(name: &str, tenant: &Tenant) -> Vec<TomlTable> {
    let name = format!("tenant.{}", key(name));
    let weight = vec![row("weight", tenant.weight.to_string())];
    let mut tables = vec![TomlTable { name: name.clone(), rows: weight }];
    if !tenant.limits.is_empty() {
        let limit =
            |(flavour, limit): (&crate::FlavourName, &u32)| (key(flavour.as_str()), limit.to_string());
        let rows = tenant.limits.iter().map(limit).collect();
        tables.push(TomlTable { name: format!("{name}.limits"), rows });
    }
    tables
}

/// A key of TOML: bare where that is allowed.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML. The texts of a policy have no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
