//! Dead letters for workers, the CLI and the admin API: intake, listing, replay and discard.
//!
//! - [`dead_letter_message`] is the copy that a worker sends to a dead-letter queue, with its reason; [`read`] parses what is
//!   received there; [`keep`] stores it. [`of_place`] is the letter of a request that waited in a line.
//! - [`DeadLetterListing`] reads letters in the order of their time, filtered; [`DeadLetters`] replays and discards them.
//!
//! Invariants: a dead message is in its dead-letter queue or in the table, at every instant; a letter goes `dead → replaying
//! → replayed`, its text and enqueue time unchanged, and one left `replaying` by a process that died is finished by the next
//! run. A replay sends at least once: a request that did its work changes nothing more (`domain::judge`).

mod action;
mod intake;
mod listing;
mod operator;
mod report;
mod run;
mod selection;
mod view;

pub use action::{Action, ActionOptions, DeadLetters};
pub use intake::{PUT_BACK_SINCE, dead_letter_message, keep, of_place, read};
pub use listing::{DeadLetterListing, count_open};
pub use report::ReplayReport;
pub use selection::Selection;
pub use view::{PageView, View, WholeView};
