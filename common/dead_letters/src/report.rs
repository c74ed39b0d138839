//! Report of a replay or a discard.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use broker_domain::{DeadLetter, DeadLetterId, Timestamp};

/// The counts of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReplayReport {
    /// Letters that were selected.
    pub found: u64,
    /// Of these, sent again or discarded; in a dry run, those that would be.
    pub done: u64,
    /// Of those, left `replaying` by a process that died.
    pub resumed: u64,
    /// Of those, past their deadline, which was not renewed: an allocation among them ends as `expired`.
    pub past_deadline: u64,
    /// Of those, with a deadline that was renewed.
    pub renewed: u64,
    /// Sent by this run and dead again; left to the next.
    pub died_again: u64,
    /// Skipped: done before, or another run was faster.
    pub skipped: u64,
    /// Failed, because AWS did not answer; the next run repeats them.
    pub failed: u64,
    /// Items that cannot be read as letters and were left alone: whether they match is not known.
    pub unreadable: u64,
    /// Ids without a letter.
    #[schemars(with = "Vec<String>")]
    pub missing: Vec<DeadLetterId>,
    /// What was done, by the kind of the message.
    pub by_kind: BTreeMap<String, u64>,
    /// What was done, by the code of the reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Whether it was stopped before the end, or the table could not be read to the end: the same call goes on.
    pub interrupted: bool,
    /// Whether its limit or its time ended it: there may be more.
    pub more: bool,
    /// Where it ended, if it was selected by filters: `cursor` of a call that goes on there. Without one the same call goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next_cursor: Option<DeadLetterId>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// How long it took.
    pub duration_ms: u64,
}

impl ReplayReport {
    /// Counts one more that is done.
    pub(super) fn did(&mut self, letter: &DeadLetter, renewed: bool, now: Timestamp) {
        self.done += 1;
        self.resumed += u64::from(letter.state == broker_domain::DeadLetterState::Replaying);
        self.renewed += u64::from(renewed);
        let past = letter.summary.deadline.is_some_and(|deadline| deadline < now);
        self.past_deadline += u64::from(past && !renewed);
        *self.by_kind.entry(letter.kind().to_owned()).or_default() += 1;
        *self.by_reason.entry(letter.reason.as_str().to_owned()).or_default() += 1;
    }
}
