//! Violations that a verification of the table finds.

use serde::Serialize;

/// A violation.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The kind, as `Violation::kind` names it, `unreadable_item`, `unreadable_ticket`, `misplaced`, `arriving_too_long`,
    /// `parked_without_place`, `wait_overdue`, `line_not_listed`, `waits_beside_free`, `over_limit`,
    /// `reserved_for_nobody`, `reserved_too_long`, `reserved_wrongly` or `reserved_uncounted`.
    pub kind: &'static str,
    /// The items and the promise that they contradict.
    pub detail: String,
}

/// The kinds that keep no restored table closed: none of them gives a sandbox to two owners. In an open pool the sweep gives back
/// sandboxes that are put aside for no reservation, and a request without a place or a listed line ends at its deadline. An operator
/// may end such a request (`broker waiting cancel ID`) or such a reservation before. A ticket of refill names no sandbox and no owner.
const LEFT_TO_THE_OPEN_POOL: [&str; 5] = [
    "parked_without_place",
    "line_not_listed",
    "reserved_for_nobody",
    "reserved_uncounted",
    "unreadable_ticket",
];

impl Found {
    /// Whether a restored table stays closed because of it.
    pub(crate) fn keeps_closed(&self) -> bool {
        !LEFT_TO_THE_OPEN_POOL.contains(&self.kind)
    }
}
