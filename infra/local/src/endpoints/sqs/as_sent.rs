//! `AsSent`: what the sender was told of a message that waited in a line, kept in an attribute of its own.
//!
//! The library gives a message its id and its time when it enters the queue, which is later than it was sent. The attribute's
//! name begins with `AWS.`, which SQS keeps from users, and no receiver sees it.

use rustack_sqs_model::{
    error::SqsError,
    types::{Message, MessageAttributeValue},
};
use serde::{Deserialize, Serialize};

/// The name of the attribute.
pub(super) const ATTRIBUTE: &str = "AWS.AsSent";

const SENT: &str = "SentTimestamp";
const GROUP: &str = "MessageGroupId";

/// Id, time and group of a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AsSent {
    pub(super) message_id: String,
    pub(super) sent_ms: u64,
    pub(super) group: String,
}

impl AsSent {
    pub(super) fn to_attribute(&self) -> Result<MessageAttributeValue, SqsError> {
        let text =
            serde_json::to_string(self).map_err(|error| SqsError::internal_error(error.to_string()))?;
        Ok(MessageAttributeValue {
            data_type: "String".to_owned(),
            string_value: Some(text),
            binary_value: None,
        })
    }

    /// Gives a message back what its sender was told, with the group if `with_group` asks for it.
    pub(super) fn restore(message: &mut Message, with_group: bool) {
        let Some(attribute) = message.message_attributes.remove(ATTRIBUTE) else { return };
        let Ok(as_sent) = serde_json::from_str::<Self>(attribute.string_value.as_deref().unwrap_or_default())
        else {
            return;
        };
        message.message_id = Some(as_sent.message_id);
        if let Some(sent) = message.attributes.get_mut(SENT) {
            *sent = as_sent.sent_ms.to_string();
        }
        if with_group {
            message.attributes.insert(GROUP.to_owned(), as_sent.group);
        }
    }
}
