//! Violations that a verification of the table finds.

use serde::Serialize;

/// A violation.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The kind, as `Violation::kind` names it, `unreadable_item`, `misplaced`, `arriving_too_long`,
    /// `parked_without_place`, `wait_overdue`, `line_not_listed`, `waits_beside_free`, `over_limit`,
    /// `reserved_for_nobody`, `reserved_too_long`, `reserved_wrongly` or `reserved_uncounted`.
    pub kind: &'static str,
    /// The items and the promise that they contradict.
    pub detail: String,
}
