//! Pages of reads, and the loop over them.

use std::collections::HashMap;
use std::future::Future;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::StoreError;

/// The partition key's attribute.
pub(crate) const PK: &str = "PK";
/// The sort key's attribute.
pub(crate) const SK: &str = "SK";

/// DynamoDB: the longest keys, in bytes. A cursor has two characters a byte.
const LONGEST_PK: usize = 2_048;
const LONGEST_SK: usize = 1_024;
const LONGEST_CURSOR: usize = 2 * (LONGEST_PK + LONGEST_SK + 1);

/// One page of a read.
#[derive(Clone, Debug, Default)]
pub struct Page<Items, Key = PageKey> {
    /// What was read.
    pub items: Items,
    /// The last key that was read, behind which the next page begins; none at the end.
    pub next: Option<Key>,
}

impl<Items, Key> Page<Items, Key> {
    /// The same page with its items as `convert` makes them.
    pub(crate) fn map<T>(self, convert: impl FnOnce(Items) -> T) -> Page<T, Key> {
        Page { items: convert(self.items), next: self.next }
    }
}

/// The pages of a read, one after the other.
#[derive(Debug)]
pub struct Pages<Read, Key> {
    read: Read,
    position: Position<Key>,
}

#[derive(Debug)]
enum Position<Key> {
    Start,
    Behind(Key),
    End,
}

impl<Read, Key> Pages<Read, Key> {
    /// The pages that `read` returns for the key behind which each begins.
    pub const fn new(read: Read) -> Self {
        Self { read, position: Position::Start }
    }

    /// The items of the next page; none after the last one, or after an error.
    pub async fn next<Items, Reading>(&mut self) -> Result<Option<Items>, StoreError>
    where
        Read: FnMut(Option<Key>) -> Reading,
        Reading: Future<Output = Result<Page<Items, Key>, StoreError>>,
    {
        let after = match std::mem::replace(&mut self.position, Position::End) {
            Position::Start => None,
            Position::Behind(key) => Some(key),
            Position::End => return Ok(None),
        };
        let page = (self.read)(after).await?;
        self.position = page.next.map_or(Position::End, Position::Behind);
        Ok(Some(page.items))
    }
}

/// The end of a page of the index or of the table. Opaque outside the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PageKey(pub(super) HashMap<String, AttributeValue>);

impl PageKey {
    /// As text, for clients; opaque to them. Keys of the table only.
    pub fn encode(&self) -> String {
        let part =
            |name: &str| self.0.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
        hex::encode(format!("{}\n{}", part(PK), part(SK)))
    }

    /// From the text of [`PageKey::encode`]; `None` for any other.
    pub fn parse(encoded: &str) -> Option<Self> {
        if encoded.len() > LONGEST_CURSOR {
            return None;
        }
        let text = String::from_utf8(hex::decode(encoded).ok()?).ok()?;
        let fits = |(pk, sk): &(&str, &str)| {
            (1..=LONGEST_PK).contains(&pk.len()) && (1..=LONGEST_SK).contains(&sk.len())
        };
        let (pk, sk) = text.split_once('\n').filter(fits)?;
        let attribute = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
        let key = Self([attribute(PK, pk), attribute(SK, sk)].into());
        // One key has one text: no sign before digits, no upper case.
        (key.encode() == encoded).then_some(key)
    }
}

/// The end of a page of a sweep. Opaque outside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepKey(pub(super) String);

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
