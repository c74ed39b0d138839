//! The audit: what operators asked for, who they were and why.
//!
//! Invariant: the line is written before the act, so nothing an operator does is without one; a line alone may be of an
//! act that failed or came too late. What it does not do: tell what became of it (the item, the run, the log do).

use serde::Serialize;
use uuid::Uuid;

use crate::domain::Timestamp;

/// What an operator can do to the broker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Run a job now; the target is the job.
    RunJob,
    /// Keep a job from being started by its schedule.
    PauseJob,
    /// Let a paused job be started again.
    ResumeJob,
    /// End a lease; the target is the sandbox.
    Release,
    /// Let an owner keep a sandbox longer; by so many hours.
    Extend,
    /// Make a deletion due now.
    RetryDelete,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 6] =
        [Self::RunJob, Self::PauseJob, Self::ResumeJob, Self::Release, Self::Extend, Self::RetryDelete];

    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunJob => "run_job",
            Self::PauseJob => "pause_job",
            Self::ResumeJob => "resume_job",
            Self::Release => "release",
            Self::Extend => "extend",
            Self::RetryDelete => "retry_delete",
        }
    }

    /// From what is stored.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.as_str() == text)
    }
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// When, in milliseconds since the epoch.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
    /// Tells two acts of one millisecond apart.
    pub id: Uuid,
    /// Who: the name of the token, or `cli` for the command, whose caller AWS knows.
    pub who: String,
    /// What.
    pub act: Act,
    /// To what: a job, a sandbox.
    pub target: String,
    /// Why, if it was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many, or how much, if that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}
