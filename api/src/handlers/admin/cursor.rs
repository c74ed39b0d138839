//! Cursor of a list: where a page ended, bound to its list.
//!
//! Invariant: a list accepts only its own cursors: the same list of the same table, the same filters, unchanged; a digest at the end of the
//! text proves it. Any other cursor would continue somewhere, with wrong or missing rows, and look right. A cursor is no
//! secret and grants nothing: an operator who may list may know keys.

use broker_store::PageKey;
use sha2::{Digest as _, Sha256};

use crate::request::query::Query;

/// The length of the digest.
const DIGEST: usize = 16;

/// The cursors of one list.
pub(crate) struct Cursors {
    list: String,
}

impl Cursors {
    /// For the list `name` that `query` selects of `table`.
    pub(crate) fn of(name: &str, table: &str, query: &Query) -> Self {
        Self { list: format!("{name:?} {table:?} {}", query.but(&["cursor", "limit"])) }
    }

    /// The cursor of the page behind `key`.
    pub(crate) fn encode(&self, key: &PageKey) -> String {
        self.seal(key.encode())
    }

    /// The place in a cursor of [`Cursors::encode`]; `None` for any other text.
    pub(crate) fn parse(&self, text: &str) -> Option<PageKey> {
        PageKey::parse(self.unseal(text)?)
    }

    /// For a list with places of its own: the cursor of the page behind `place`.
    pub(crate) fn encode_text(&self, place: &str) -> String {
        self.seal(hex::encode(place))
    }

    /// The place in a cursor of [`Cursors::encode_text`]; `None` for any other text.
    pub(crate) fn parse_text(&self, text: &str) -> Option<String> {
        String::from_utf8(hex::decode(self.unseal(text)?).ok()?).ok()
    }

    fn seal(&self, place: String) -> String {
        let digest = self.digest(&place);
        place + &digest
    }

    fn unseal<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (place, digest) = text.split_at_checked(text.len().checked_sub(DIGEST)?)?;
        (self.digest(place) == digest).then_some(place)
    }

    fn digest(&self, place: &str) -> String {
        hex::encode(&Sha256::digest(format!("{} {place}", self.list))[..DIGEST / 2])
    }
}
