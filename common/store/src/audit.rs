//! Audit records: each operation of an operator, with the operator's name and reason.
//!
//! Invariant: the line is written before the operation, so no operation is without one. The result of the line says if the operation was
//! refused, had nothing to change or failed ([`NotDone`]), and has the counts of a long one; a line without a result belongs to an
//! operation that succeeded, or whose process died during it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use broker_domain::Timestamp;

/// An operation of an operator.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Run a job now; the target is the job.
    RunJob,
    /// Pause a job; its schedule does not start it.
    PauseJob,
    /// Resume a paused job.
    ResumeJob,
    /// End a lease; the target is the sandbox.
    Release,
    /// Extend a lease by some hours.
    Extend,
    /// Make a deletion due now.
    RetryDelete,
    /// Replay dead letters; the target is the selection.
    Replay,
    /// Discard dead letters; the target is the selection.
    Discard,
    /// Pause the pool; the target is the table, as of all that follow.
    PausePool,
    /// Resume the pool.
    ResumePool,
    /// Take over the table of another tool.
    Adopt,
    /// Reconcile a restored table; the count is of the lines.
    Reconcile,
    /// Give the index another number of shards, which is the count.
    Reshard,
    /// Replace the policy; the target is the digest of the new one.
    ApplyPolicy,
    /// Ask for no more sandboxes of a flavour; the target is the flavour.
    PauseRefill,
    /// Ask again.
    ResumeRefill,
    /// Take a sandbox out of the pool; the target is the sandbox, as of the two that follow.
    Quarantine,
    /// Let a sandbox in quarantine go.
    LiftQuarantine,
    /// Have a sandbox in quarantine deleted.
    Retire,
    /// Cancel requests that wait; the target is the selection.
    CancelWaiting,
    /// Reserve sandboxes for a tenant; the target is the reservation, as of the two that follow. The count is of the sandboxes.
    Reserve,
    /// Change a reservation.
    ChangeReservation,
    /// End a reservation.
    DeleteReservation,
    /// Put test sandboxes into the pool, whose number is the count, or remove the unused ones; the target says which.
    Seed,
    /// An operation of a newer program.
    Unknown,
}

impl Act {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub(crate) fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// The time, in milliseconds since the epoch.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
    /// Distinguishes two operations of one millisecond.
    pub id: Uuid,
    /// The operator: the name of the token; for the command what `--by` says, or `cli`: its caller AWS knows.
    pub who: String,
    /// The operation.
    pub act: Act,
    /// The target: a job, a sandbox.
    pub target: String,
    /// The reason, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A count or an amount, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The result, as JSON, of a long operation, and of one that was not done; none while it runs, and never if its process
    /// died.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl AuditLine {
    /// The line of an operation that begins.
    pub fn new(at: Timestamp, id: Uuid, who: &str, act: Act, target: impl Into<String>) -> Self {
        Self { at, id, who: who.to_owned(), act, target: target.into(), why: None, count: None, ended: None }
    }

    /// Why it was not done, if it was not.
    pub fn not_done(&self) -> Option<NotDone> {
        serde_json::from_str(self.ended.as_deref()?).ok()
    }

    /// The result in words: why it was not done, or the counts of a long one; `None` if there is nothing to say.
    pub fn result(&self) -> Option<String> {
        if let Some(not_done) = self.not_done() {
            return Some(not_done.to_string());
        }
        let ended: Value = serde_json::from_str(self.ended.as_deref()?).ok()?;
        let counts = ended.as_object()?.iter().filter_map(|(name, value)| match value {
            Value::Number(count) if count.as_u64() != Some(0) => {
                Some(format!("{} {count}", name.replace('_', " ")))
            }
            Value::String(text) => Some(format!("{}: {text}", name.replace('_', " "))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        });
        Some(counts.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    }
}

/// Why an operation was not done, as JSON the result of its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NotDone {
    /// What it is about is not as it must be for it.
    Refused(String),
    /// It was so already.
    Unchanged(String),
    /// An error: whether it was done is not known.
    Failed(String),
}

/// For people: `refused: it is available`.
impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unchanged(why) => write!(f, "changed nothing: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_its_result_in_words() {
        let line = |ended: &str| AuditLine {
            ended: Some(ended.to_owned()),
            ..AuditLine::new(Timestamp::from_ms(1), Uuid::nil(), "ops", Act::Release, "a")
        };
        assert_eq!(line(r#"{"refused":"it is deleted"}"#).result().unwrap(), "refused: it is deleted");
        assert_eq!(line(r#"{"unchanged":"so already"}"#).result().unwrap(), "changed nothing: so already");
        assert_eq!(line(r#"{"replayed":3,"skipped":0,"dry_run":false}"#).result().unwrap(), "replayed 3");
        assert_eq!(line(r#"{"error":"no table"}"#).result().unwrap(), "error: no table");
        assert_eq!(line("{}").result(), None);
        assert_eq!(line("not JSON").result(), None);
        for how in ["why", "\"quoted\""].map(|why| NotDone::Refused(why.to_owned())) {
            assert_eq!(line(&serde_json::to_string(&how).unwrap()).not_done(), Some(how));
        }
    }
}
