//! The queues, as the broker uses them. Nothing else knows SQS.
//!
//! - [`QueueNames`] tells every name, [`topology`] creates the queues, [`inspect`] looks at them, [`QueueUrls`] resolves them.
//! - [`Sender`] and [`ReplySenders`] send, [`Receiver`] receives, [`Settler`] ends or gives back what was received.
//! - [`Batcher`] is what sends and settlements (and the store's reads) share: full batches under load, no added
//!   latency without it.
//!
//! Invariants: delivery is at least once, so everything sent here may arrive twice; nothing received is dropped
//! unseen. What it does not do: know what is in a message.

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
mod settle;
pub mod topology;
mod urls;

pub use age::OldestAge;
pub use delivery::Delivery;
pub use error::{QueueError, SendError, SettleError};
pub use names::{InvalidPrefix, NotAReplyQueue, QueueKind, QueueNames, ReplyQueueName};
pub use receiver::{Ended, PollOptions, Receiver};
pub use reply_senders::ReplySenders;
pub use sender::{Outgoing, Sender};
pub use settle::{KeptHidden, Settler};
pub use urls::{Queue, QueueUrls};

#[cfg(test)]
mod sqs_tests;
