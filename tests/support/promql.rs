//! Reader of PromQL and of Prometheus' text format, sufficient to check that a query's metrics exist.
//!
//! It does not parse. It finds our metrics in an expression, the labels that they are matched by and the labels that results
//! are grouped by.

use std::collections::{BTreeMap, BTreeSet};

/// Labels that Prometheus itself adds.
const OF_PROMETHEUS: [&str; 3] = ["instance", "job", "prefix"];

/// A matcher of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// Its value, if it must be equal.
    pub equal: Option<String>,
}

/// The metrics and labels of one expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Each metric of ours, with its matchers.
    pub metrics: Vec<(String, Vec<Matcher>)>,
    /// The labels of all `by (…)`.
    pub by: BTreeSet<String>,
}

/// The metrics and labels of `expression`.
///
/// # Panics
///
/// When a selector does not end.
pub fn asked(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = expression;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let word = &rest[begin..];
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if name.starts_with("broker_") {
            let (matchers, after) = after.strip_prefix('{').map_or((Vec::new(), after), selector);
            asked.metrics.push((name.to_owned(), matchers));
            rest = after;
        } else if let Some(list) = after.trim_start().strip_prefix('(').filter(|_| name == "by") {
            let (list, after) = list.split_once(')').expect("a list ends");
            asked.by.extend(list.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            rest = selector(after).1;
        }
    }
    asked
}

/// The matchers up to the closing brace, and what follows it. No value of ours holds a brace or a comma.
fn selector(text: &str) -> (Vec<Matcher>, &str) {
    let (inside, after) = text.split_once('}').expect("a selector ends");
    let matchers = inside.split(',').filter(|part| !part.trim().is_empty()).map(|part| {
        let at = part.find(['=', '!']).unwrap_or_else(|| panic!("{part:?} is no matcher"));
        let (label, test) = part.split_at(at);
        let equal = test.strip_prefix("=\"").and_then(|value| value.strip_suffix('"'));
        Matcher { label: label.trim().to_owned(), equal: equal.map(str::to_owned) }
    });
    (matchers.collect(), after)
}

/// The exposed metrics: for each series name the values of each of its labels.
#[derive(Clone, Debug, Default)]
pub struct Exposed(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exposed {
    /// Adds what `/metrics` of one process said.
    pub fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let series = line.rsplit_once(' ').expect("a sample has a value").0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let known = self.0.entry(name.to_owned()).or_default();
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").expect("a label has a value");
                known.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
    }

    /// The part of `expression` that no process exposes; empty if all of it exists.
    pub fn missing(&self, expression: &str) -> Vec<String> {
        let Asked { metrics, by } = asked(expression);
        let mut missing = Vec::new();
        for (name, matchers) in &metrics {
            let Some(labels) = self.0.get(name) else {
                missing.push(format!("no metric {name}"));
                continue;
            };
            for Matcher { label, equal } in matchers {
                match (labels.get(label), equal) {
                    (None, _) if !OF_PROMETHEUS.contains(&label.as_str()) => {
                        missing.push(format!("no label {label} of {name}"));
                    }
                    (Some(values), Some(value)) if !values.contains(value) => {
                        missing.push(format!("{name} has {label} {values:?}, never {value:?}"));
                    }
                    (Some(_) | None, Some(_) | None) => {}
                }
            }
        }
        // A group may be of one side of a division only.
        let has = |label: &str| {
            metrics.iter().any(|(name, _)| self.0.get(name).is_some_and(|of| of.contains_key(label)))
        };
        let unknown = |label: &&String| !has(label.as_str()) && !OF_PROMETHEUS.contains(&label.as_str());
        missing.extend(by.iter().filter(unknown).map(|label| format!("no metric has the label {label}")));
        missing
    }

    /// The value of every name that is exposed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The expressions of a file of alert rules, by alert: each is a block under `expr: |`.
///
/// # Panics
///
/// When the file has another form.
pub fn expressions(rules: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            found.push((alert.to_owned(), String::new()));
        } else if let Some(rest) = line.trim().strip_prefix("expr:") {
            assert_eq!(rest.trim(), "|", "an expression is a block: {line}");
            let indent = |line: &str| line.len() - line.trim_start().len();
            let expression = &mut found.last_mut().expect("an expression is of an alert").1;
            while let Some(part) = lines.next_if(|next| indent(next) > indent(line)) {
                expression.push_str(part.trim());
                expression.push(' ');
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# TYPE broker_a_total counter\nbroker_a_total{outcome=\"ok\",kind=\"x\"} 1\nbroker_b 2\n";

    fn missing(expression: &str) -> Vec<String> {
        let mut exposed = Exposed::default();
        exposed.add(TEXT);
        exposed.missing(expression)
    }

    #[test]
    fn what_exists_is_found() {
        for fine in [
            "sum by (kind) (rate(broker_a_total{outcome=\"ok\"}[5m])) / sum(broker_b)",
            "max by (instance) (broker_b{job=\"x\"}) > 2",
            "broker_a_total{outcome=~\"a|b\"}",
            "absent(up{job=~\".*broker-api\"})",
        ] {
            assert_eq!(missing(fine), Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn a_wrong_name_label_value_or_group_is_told() {
        for wrong in [
            "rate(broker_a_totl[5m])",
            "broker_a_total{outcom=\"ok\"}",
            "broker_a_total{outcome=\"none\"}",
            "sum by (kind) (broker_b)",
            "broker_b{kind=~\"x\"}",
        ] {
            assert_eq!(missing(wrong).len(), 1, "{wrong}: {:?}", missing(wrong));
        }
    }

    #[test]
    fn expressions_of_rules_are_found_by_their_alert() {
        let rules = "rules:\n  - alert: A\n    expr: |\n      sum(broker_a)\n        > 1\n    for: 3m\n  - alert: B\n    expr: |\n      broker_b\n";
        let of = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(expressions(rules), [of("A", "sum(broker_a) > 1 "), of("B", "broker_b ")]);
    }
}
