//! Parser of one page of the provider's list, row by row: no more than one row is parsed at a time.
//!
//! `results` must be a list and may hold anything; `next` may be absent, null or empty at the end; `count` is how many
//! rows there are, if it is a number or a text that is one. Other members are ignored.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::row::kind;
use super::tally::{Rows, Tally};

/// A list that is being read.
#[derive(Debug)]
pub(super) struct PageIntake<R> {
    pub(super) tally: Tally,
    pub(super) rows: R,
}

/// Adds the rows of a page to `intake`; what it names as the next page. `Err` says why it is no page.
pub(super) fn read<R: Rows>(body: &[u8], intake: &mut PageIntake<R>) -> Result<Option<String>, String> {
    // A character that is none spoils its row, not the page.
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !text.starts_with('{') {
        let begin: String = text.chars().take(40).collect();
        return Err(format!("it is no JSON object, it begins with {begin:?}"));
    }
    intake.tally.begin_page();
    let mut json = serde_json::Deserializer::from_str(text);
    let tail = json.deserialize_map(PageVisitor(intake)).and_then(|tail| json.end().map(|()| tail));
    let tail = tail.map_err(|error| error.to_string())?;
    intake.tally.end_page(tail.count);
    Ok(tail.next)
}

/// Whether a body is a web page.
pub(super) fn is_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

#[derive(Default)]
struct Tail {
    next: Option<String>,
    count: Option<String>,
}

struct PageVisitor<'a, R>(&'a mut PageIntake<R>);

impl<'de, R: Rows> Visitor<'de> for PageVisitor<'_, R> {
    type Value = Tail;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tail, A::Error> {
        let Self(intake) = self;
        let (mut tail, mut has_rows, mut has_next) = (Tail::default(), false, false);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "results" if has_rows => return Err(A::Error::custom("it has results twice")),
                "results" => {
                    has_rows = true;
                    map.next_value_seed(RowsVisitor(intake))?;
                }
                "next" if has_next => return Err(A::Error::custom("it has next twice")),
                "next" => {
                    has_next = true;
                    tail.next = next(map.next_value::<&RawValue>()?.get()).map_err(A::Error::custom)?;
                }
                "count" => tail.count = count(map.next_value::<&RawValue>()?.get()),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if has_rows { Ok(tail) } else { Err(A::Error::custom("it has no results")) }
    }
}

fn next(raw: &str) -> Result<Option<String>, String> {
    match serde_json::from_str::<Option<String>>(raw) {
        Ok(next) => Ok(next.map(|next| next.trim().to_owned()).filter(|next| !next.is_empty())),
        Err(_) => Err(format!("its next is {}, not a URL", kind(raw))),
    }
}

/// A number as digits, however it is written. What no list has (`-1`, `20.5`) stays as it is: it contradicts every list.
fn count(raw: &str) -> Option<String> {
    let number = raw.trim().trim_matches('"').trim();
    if !number.parse::<f64>().is_ok_and(f64::is_finite) {
        return None;
    }
    let is_zero = |rest: &str| rest.bytes().all(|digit| digit == b'0');
    let whole = number.split_once('.').filter(|(_, rest)| is_zero(rest));
    Some(whole.map_or(number, |(whole, _)| whole).to_owned())
}

struct RowsVisitor<'a, R>(&'a mut PageIntake<R>);

impl<'de, R: Rows> DeserializeSeed<'de> for RowsVisitor<'_, R> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, R: Rows> Visitor<'de> for RowsVisitor<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("results that are a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some(row) = rows.next_element::<&RawValue>()? {
            let row = self.0.tally.row(row.get()).map_err(A::Error::custom)?;
            self.0.rows.take(row).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
