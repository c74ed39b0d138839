//! Dead letters as operators see them. The bodies are those that `broker dead-letters --json` prints; here stands what they
//! promise.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A page of dead letters.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Letters {
    /// The letters, the oldest first.
    dead_letters: Vec<ShownLetter>,
    /// Where the next page begins, if there may be one.
    next_cursor: Option<String>,
}

/// A dead letter.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub(crate) struct ShownLetter {
    /// Its id.
    id: String,
    /// Where it stands.
    state: String,
    /// The queue that it died in.
    queue: String,
    /// What its message is.
    kind: String,
    /// Why it died, as a code.
    reason: String,
    /// Why it died, in words.
    reason_text: Option<String>,
    /// How often it was received.
    receives: Option<u64>,
    /// When it was first sent, in seconds since the epoch.
    first_at: u64,
    /// When it died, likewise.
    last_at: u64,
    /// Until when it mattered, likewise.
    deadline: Option<u64>,
    /// Who asked, if it can be read.
    track: Option<String>,
    /// The request, likewise.
    request_id: Option<String>,
    /// How large its text is.
    bytes: u64,
    /// When somebody last replayed or discarded it.
    touched_at: Option<u64>,
    /// Who did.
    touched_by: Option<String>,
    /// Why it was discarded.
    discarded_because: Option<String>,
}

/// A dead letter with its text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WholeLetter {
    #[serde(flatten)]
    letter: ShownLetter,
    /// Its attributes.
    attributes: BTreeMap<String, String>,
    /// Its text, byte for byte.
    body: String,
    /// What that says, if it is JSON.
    message: Value,
}

/// What a replay or discard did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LettersSettled {
    /// Letters that were selected.
    found: u64,
    /// Of these, sent again or discarded; in a dry run, those that would be.
    done: u64,
    /// Left alone: done with before, or somebody else was faster.
    skipped: u64,
    /// Not done, because AWS did not answer.
    failed: u64,
    /// Ids of which no letter is kept.
    missing: Vec<String>,
    /// Whether there may be more.
    more: bool,
}
