//! Views of a dead letter: what `broker dead-letters --json` and `/v1/admin/dead-letters` print. Times are seconds since
//! the epoch.

use std::collections::BTreeMap;

use broker_domain::{
    DeadLetter, DeadLetterId, DeadLetterState, Reason, RequestId, Source, Timestamp, TrackId,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A dead letter in a list: all but its text and its attributes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub struct View {
    /// Its id.
    #[schemars(with = "String")]
    id: DeadLetterId,
    /// `dead`, `replaying`, `replayed` or `discarded`.
    #[schemars(with = "String")]
    state: DeadLetterState,
    /// The queue that the message died in.
    #[schemars(with = "String")]
    queue: Source,
    /// The kind of the message.
    kind: String,
    /// Why it died, as a code.
    #[schemars(with = "String")]
    reason: Reason,
    /// Why it died, in words.
    reason_text: String,
    /// How often it was received.
    receives: u32,
    /// When it was first sent.
    first_at: u64,
    /// When it died.
    last_at: u64,
    /// The deadline of the request, if it can be read.
    deadline: Option<u64>,
    /// The track that asked, if it can be read.
    #[schemars(with = "Option<String>")]
    track: Option<TrackId>,
    /// The request, if it can be read.
    #[schemars(with = "Option<String>")]
    request_id: Option<RequestId>,
    /// Whether the request is asynchronous; false if it cannot be read.
    r#async: bool,
    /// The trace that the message belongs to (W3C Trace Context).
    traceparent: Option<String>,
    /// The message id that SQS gave it.
    message_id: String,
    /// The dead letter whose replay died again as this one.
    #[schemars(with = "Option<String>")]
    replay_of: Option<DeadLetterId>,
    /// The size of its text.
    bytes: usize,
    /// When it was last replayed or discarded.
    touched_at: Option<u64>,
    /// The operator who replayed or discarded it.
    touched_by: Option<String>,
    /// Why it was discarded.
    discarded_because: Option<String>,
}

impl From<&DeadLetter> for View {
    fn from(letter: &DeadLetter) -> Self {
        let summary = &letter.summary;
        let touched = letter.touched.as_ref();
        Self {
            id: letter.id.clone(),
            state: letter.state,
            queue: letter.source,
            kind: letter.kind().to_owned(),
            reason: letter.reason,
            reason_text: letter.reason_text.clone(),
            receives: letter.receives,
            first_at: letter.first_at.as_secs(),
            last_at: letter.last_at.as_secs(),
            deadline: summary.deadline.map(Timestamp::as_secs),
            track: summary.track.clone(),
            request_id: summary.request_id,
            r#async: summary.asynchronous,
            traceparent: summary.trace.clone(),
            message_id: letter.message_id.clone(),
            replay_of: letter.replay_of.clone(),
            bytes: letter.body.len(),
            touched_at: touched.map(|touched| touched.at.as_secs()),
            touched_by: touched.map(|touched| touched.by.clone()),
            discarded_because: touched.and_then(|touched| touched.why.clone()),
        }
    }
}

/// A dead letter with its text and its attributes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WholeDeadLetter")]
pub struct WholeView {
    #[serde(flatten)]
    letter: View,
    /// The attributes of the message.
    attributes: BTreeMap<String, String>,
    /// Its text, byte for byte.
    body: String,
    /// The text parsed, if it is JSON; else null.
    message: Value,
}

impl From<&DeadLetter> for WholeView {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            letter: letter.into(),
            attributes: letter.attributes.clone(),
            body: letter.body.clone(),
            message: serde_json::from_str(&letter.body).unwrap_or(Value::Null),
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetters")]
pub struct PageView {
    /// The dead letters, the oldest first.
    pub dead_letters: Vec<View>,
    /// Where the next page begins, if there may be one.
    #[schemars(with = "Option<String>")]
    pub next_cursor: Option<DeadLetterId>,
}
