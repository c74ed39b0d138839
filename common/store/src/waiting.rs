//! What is listed of a line.

use broker_domain::Timestamp;
use broker_domain::waiting::{Line, Marks};

/// A line, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedLine {
    /// The line.
    pub line: Line,
    /// Until when it is listed: later than any deadline in it.
    pub until: Timestamp,
    /// What the last walk found.
    pub marks: Marks,
    /// When that was, if there was one.
    pub as_of: Option<Timestamp>,
}
