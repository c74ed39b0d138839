//! A letter as an operator sees it, over HTTP and in the command.

use serde_json::{Value, json};

use crate::domain::{Letter, Timestamp};

impl Letter {
    /// In a list: everything but its text. Times are epoch seconds.
    pub fn shown(&self) -> Value {
        let glance = &self.glance;
        let touched = self.touched.as_ref();
        json!({
            "id": self.id,
            "state": self.state,
            "queue": self.source,
            "kind": self.kind(),
            "reason": self.reason,
            "reason_text": self.reason_text,
            "receives": self.receives,
            "first_at": self.first_at.as_secs(),
            "last_at": self.last_at.as_secs(),
            "deadline": glance.deadline.map(Timestamp::as_secs),
            "track": glance.track,
            "request_id": glance.request_id,
            "async": glance.asynchronous,
            "traceparent": glance.trace,
            "message_id": self.message_id,
            "replay_of": self.replay_of,
            "bytes": self.body.len(),
            "touched_at": touched.map(|touched| touched.at.as_secs()),
            "touched_by": touched.map(|touched| touched.by.as_str()),
            "discarded_because": touched.and_then(|touched| touched.why.as_deref()),
        })
    }

    /// Alone: with its text, byte for byte, its attributes and, if it is JSON, what it says.
    pub fn shown_whole(&self) -> Value {
        let mut shown = self.shown();
        shown["attributes"] = json!(self.attributes);
        shown["body"] = self.body.as_str().into();
        shown["message"] = serde_json::from_str(&self.body).unwrap_or(Value::Null);
        shown
    }
}
