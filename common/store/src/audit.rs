//! The audit: what operators asked for, who they were and why.
//!
//! Invariant: the line is written before the act, so nothing an operator does is without one; a line alone may be of an
//! act that failed or came too late. What became of it stands in the item, the run, the log; and in the line only where
//! nothing else keeps it.

use serde::Serialize;
use uuid::Uuid;

use broker_domain::Timestamp;

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
    /// Send dead letters again; the target is what was chosen.
    Replay,
    /// Give dead letters up; the target is what was chosen.
    Discard,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 8] = [
        Self::RunJob,
        Self::PauseJob,
        Self::ResumeJob,
        Self::Release,
        Self::Extend,
        Self::RetryDelete,
        Self::Replay,
        Self::Discard,
    ];

    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunJob => "run_job",
            Self::PauseJob => "pause_job",
            Self::ResumeJob => "resume_job",
            Self::Release => "release",
            Self::Extend => "extend",
            Self::RetryDelete => "retry_delete",
            Self::Replay => "replay",
            Self::Discard => "discard",
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
    /// How it ended, as JSON, where the act is long; none while it lasts, and for ever if its process died over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}
