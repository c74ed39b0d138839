//! Dead letters, for the worker that keeps them and for the operator who looks at them: the one code behind `broker
//! dead-letters` and `/v1/admin/dead-letters`.
//!
//! - [`dead_letter_message`] is the copy that a worker sends to a dead-letter queue, with its reason; [`read`] is what a drainer makes
//!   of whatever lies there; [`keep`] keeps it.
//! - [`Listing`] reads letters in the order of their time, filtered; [`DeadLetters`] replays and discards them.
//!
//! Invariants: a message that is dead is in its dead-letter queue or in the table, at every instant; a letter goes `dead →
//! replaying → replayed`, its text and the moment it was enqueued unchanged, and one left `replaying` by whoever died over
//! it is finished by the next run. Sending again is at least once: that a request which did its work does nothing more is
//! the claim's affair (`domain::judge`). What it does not do: process messages.

mod action;
mod intake;
mod listing;
mod report;
mod run;
mod view;

pub use action::{Action, DeadLetters, Options};
pub use intake::{dead_letter_message, keep, read};
pub use listing::{Listing, Selection, count_open};
pub use report::ReplayReport;
pub use view::{PageView, View, WholeView};
