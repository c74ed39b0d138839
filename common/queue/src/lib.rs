//! The SQS queues of the broker. No other crate knows SQS.
//!
//! - [`QueueNames`] holds every name, [`topology`] creates the queues, [`inspect`] compares them, [`QueueUrls`] resolves them.
//! - [`Sender`] and [`ReplySenders`] send, [`Receiver`] receives, [`Acknowledger`] deletes received messages or makes them
//!   visible again.
//! - Sends and acknowledgements go through the [`Batcher`](broker_runtime::aws::Batcher).
//!
//! Invariants: delivery is at least once, so everything sent here may arrive twice; no received message is dropped. The
//! contents of messages are unknown here.

mod acknowledgement;
mod age;
mod delivery;
mod error;
pub mod inspect;
mod names;
mod poll_concurrency;
mod receiver;
mod reply_senders;
mod room;
mod sender;
pub mod topology;
mod urls;

pub use acknowledgement::{Acknowledger, KeptHidden};
pub use age::OldestAge;
pub use delivery::Delivery;
pub use error::{AcknowledgeError, QueueError, SendError};
pub use names::{InvalidPrefix, NotAReplyQueue, QueueKind, QueueNames, ReplyQueueName};
pub use receiver::{PollOptions, ReceiveEnd, Receiver};
pub use reply_senders::ReplySenders;
pub use sender::{Outgoing, Sender};
pub use urls::{Queue, QueueUrls};

#[cfg(test)]
mod sqs_tests;
