//! A reader of the policy's TOML that keeps the place of everything and goes on after an error.
//!
//! Invariant: nothing is passed over in silence. A key that was not asked for, a value of another type and a number out of
//! its range are each a [`Problem`] with line and column; the caller applies nothing if there is one.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// One thing that is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The character of the line, counted from 1.
    pub column: usize,
    /// The key it is about, such as `flavour.small.refill.min`; empty if it is the file as a whole.
    pub key: String,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A text under examination, with the problems that were found so far.
pub(super) struct Examined<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

/// A value with its place and its key.
pub(super) struct Located<T> {
    /// The value.
    pub(super) value: T,
    /// Its bytes in the text.
    pub(super) span: Range<usize>,
    /// Its key, from the root.
    pub(super) key: String,
}

impl<'t> Examined<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    /// The problems, in the order of the text.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        problems.dedup();
        problems
    }

    /// Notes that what stands at `span` is wrong.
    pub(super) fn wrong(&self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.problems.borrow_mut().push(Problem {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// The line of what stands at `span`.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.text.get(..span.start).unwrap_or(self.text).matches('\n').count() + 1
    }
}

/// A table of the text.
pub(super) struct Section<'e, 't> {
    examined: &'e Examined<'t>,
    table: &'e DeTable<'t>,
    /// Where it begins.
    pub(super) span: Range<usize>,
    /// Its key, from the root.
    pub(super) key: String,
}

impl<'e, 't> Section<'e, 't> {
    pub(super) fn root(examined: &'e Examined<'t>, table: &'e Spanned<DeTable<'t>>) -> Self {
        Self { examined, table: table.get_ref(), span: 0..0, key: String::new() }
    }

    fn path(&self, key: &str) -> String {
        match self.key.as_str() {
            "" => key.to_owned(),
            above => format!("{above}.{key}"),
        }
    }

    /// Notes every key that is none of `known`.
    pub(super) fn only(&self, known: &[&str]) {
        for key in self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            let message = match nearest(name, known.iter().copied()) {
                Some(nearest) => format!("unknown key; did you mean `{nearest}`?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            };
            self.examined.wrong(&key.span(), &self.path(name), message);
        }
    }

    fn value(&self, key: &str) -> Option<Located<&'e DeValue<'t>>> {
        let value = self.table.get(key)?;
        Some(Located { value: value.get_ref(), span: value.span(), key: self.path(key) })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'e DeValue<'t>) -> Option<T>,
    ) -> Option<Located<T>> {
        let Located { value, span, key } = self.value(key)?;
        let Some(typed) = read(value) else {
            let found = format!("expected {expected}, found {}", value.type_str());
            self.examined.wrong(&span, &key, found);
            return None;
        };
        Some(Located { value: typed, span, key })
    }

    /// The text under `key`, if there is one.
    pub(super) fn text(&self, key: &str) -> Option<Located<&'e str>> {
        self.typed(key, "a text", DeValue::as_str)
    }

    /// The text under `key`, which must be there.
    pub(super) fn needed_text(&self, key: &str) -> Option<Located<&'e str>> {
        self.need(key).then(|| self.text(key)).flatten()
    }

    /// The whole number under `key`, if there is one within `range`.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Option<Located<u32>> {
        let integer = self.typed(key, "a whole number", DeValue::as_integer)?;
        let number = u32::from_str_radix(integer.value.as_str(), integer.value.radix());
        match number.ok().filter(|number| range.contains(number)) {
            Some(value) => Some(Located { value, span: integer.span, key: integer.key }),
            None => {
                let message = format!("{} is not within {} to {}", integer.value, range.start(), range.end());
                self.examined.wrong(&integer.span, &integer.key, message);
                None
            }
        }
    }

    /// The whole number under `key`, which must be there.
    pub(super) fn needed_number(&self, key: &str, range: RangeInclusive<u32>) -> Option<Located<u32>> {
        self.need(key).then(|| self.number(key, range)).flatten()
    }

    /// The table under `key`, if there is one.
    pub(super) fn table(&self, key: &str) -> Option<Section<'e, 't>> {
        let Located { value, span, key } = self.typed(key, "a table", DeValue::as_table)?;
        Some(Section { examined: self.examined, table: value, span, key })
    }

    /// The tables of the list under `key`.
    pub(super) fn tables(&self, key: &str) -> Vec<Section<'e, 't>> {
        let Some(list) = self.typed(key, "a list of tables", DeValue::as_array) else { return Vec::new() };
        let list: Located<&'e DeArray<'t>> = list;
        let sections = list.value.iter().enumerate().filter_map(|(place, item)| {
            let key = format!("{}[{place}]", list.key);
            let Some(table) = item.get_ref().as_table() else {
                let found = format!("expected a table, found {}", item.get_ref().type_str());
                self.examined.wrong(&item.span(), &key, found);
                return None;
            };
            Some(Section { examined: self.examined, table, span: item.span(), key })
        });
        sections.collect()
    }

    /// Every key of this table, with its place.
    pub(super) fn keys(&self) -> impl Iterator<Item = Located<&'e str>> + use<'e, 't, '_> {
        self.table.keys().map(|key| Located {
            value: key.get_ref().as_ref(),
            span: key.span(),
            key: self.path(key.get_ref()),
        })
    }

    fn need(&self, key: &str) -> bool {
        let there = self.table.contains_key(key);
        if !there {
            self.wrong(format!("`{key}` is missing"));
        }
        there
    }

    /// Notes that this table is wrong as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.examined.wrong(&self.span, &self.key, message);
    }
}

/// The one of `known` that `name` was probably meant to be.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    known.filter(|known| likeness(known) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}
