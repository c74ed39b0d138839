//! The cursor of a list: where a page ended, and of which list that was.
//!
//! Invariant: taken is only what the same list gave: the same table, the same filters, not a character changed; a digest at
//! the end of the text says so. Anything else would go on somewhere, with other rows or without some, and look right. It
//! is no secret and gives no right: whoever may list may know keys. What it does not do: say how long a page is.

use std::fmt::Write as _;

use broker_store::PageKey;
use sha2::{Digest as _, Sha256};

use super::Query;

/// Characters of the digest.
const DIGEST: usize = 16;

/// Cursors of one list.
pub(crate) struct Cursors {
    list: String,
}

impl Cursors {
    /// Of the list that `query` asks of `table`.
    pub(crate) fn of(table: &str, query: &Query) -> Self {
        Self { list: format!("{table:?} {}", query.but(&["cursor", "limit"])) }
    }

    /// The cursor of the page behind `key`.
    pub(crate) fn encode(&self, key: &PageKey) -> String {
        let place = key.encode();
        let digest = self.digest(&place);
        place + &digest
    }

    /// The place that [`Cursors::encode`] wrote; `None` for anything else.
    pub(crate) fn parse(&self, text: &str) -> Option<PageKey> {
        let (place, digest) = text.split_at_checked(text.len().checked_sub(DIGEST)?)?;
        PageKey::parse(place).filter(|_| self.digest(place) == digest)
    }

    fn digest(&self, place: &str) -> String {
        let digest = Sha256::digest(format!("{} {place}", self.list));
        digest.iter().take(DIGEST / 2).fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
