//! Names of the queues, all with one prefix.
//!
//! Invariant: a [`ReplyQueueName`] is `{prefix}-replies-{uuid}`, exactly; `reply_to` of a message is untrusted input, and
//! nothing is ever sent to a name that was not checked here. Whether a queue exists is not checked.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// SQS: queue names have 1 to 80 characters.
const LONGEST_NAME: usize = 80;
const REPLIES: &str = "-replies-";
/// The length of the longest suffix, that of a reply queue.
const LONGEST_SUFFIX: usize = REPLIES.len() + uuid::fmt::Hyphenated::LENGTH;

/// The permanent queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueKind {
    /// Requests of the API to the workers.
    Requests,
    /// Requests that could not be processed.
    RequestsDlq,
    /// Jobs and deletions.
    Maintenance,
    /// Jobs and deletions that could not be processed.
    MaintenanceDlq,
}

impl QueueKind {
    /// All of them, each dead-letter queue before its source: the order in which they are created.
    pub(crate) const ALL: [Self; 4] =
        [Self::RequestsDlq, Self::Requests, Self::MaintenanceDlq, Self::Maintenance];

    /// The name without the prefix and its hyphen.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::RequestsDlq => "requests-dlq",
            Self::Maintenance => "maintenance",
            Self::MaintenanceDlq => "maintenance-dlq",
        }
    }

    /// Its dead-letter queue; `None` for a dead-letter queue.
    pub const fn dlq(self) -> Option<Self> {
        match self {
            Self::Requests => Some(Self::RequestsDlq),
            Self::Maintenance => Some(Self::MaintenanceDlq),
            Self::RequestsDlq | Self::MaintenanceDlq => None,
        }
    }
}

/// The queue names of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNames {
    prefix: Arc<str>,
    template: Arc<str>,
}

/// A prefix that is invalid for queue names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "queue prefix {prefix:?} must have 1 to {} characters of [A-Za-z0-9_-]",
    LONGEST_NAME - LONGEST_SUFFIX
)]
pub struct InvalidPrefix {
    prefix: String,
}

/// A name that is not that of a reply queue with our prefix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a reply queue {template}")]
pub struct NotAReplyQueue {
    name: String,
    template: Arc<str>,
}

impl QueueNames {
    /// The names under `prefix`.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        let fits = (1..=LONGEST_NAME - LONGEST_SUFFIX).contains(&prefix.len());
        if !fits || !prefix.bytes().all(allowed) {
            return Err(InvalidPrefix { prefix: prefix.to_owned() });
        }
        Ok(Self { prefix: prefix.into(), template: format!("{prefix}{REPLIES}*").into() })
    }

    /// The name of one of the four queues.
    pub fn name(&self, kind: QueueKind) -> String {
        format!("{}-{}", self.prefix, kind.suffix())
    }

    /// The name of the reply queue with this id.
    pub fn reply(&self, id: Uuid) -> ReplyQueueName {
        ReplyQueueName(format!("{}{}", self.reply_prefix(), id.hyphenated()).into())
    }

    /// Parses a reply queue's name from outside: the prefix must be ours and the rest a UUID as [`reply`](Self::reply) writes
    /// it.
    pub fn parse_reply(&self, name: &str) -> Result<ReplyQueueName, NotAReplyQueue> {
        let parsed = name
            .strip_prefix(&self.reply_prefix())
            .and_then(|id| Uuid::try_parse(id).ok())
            .map(|id| self.reply(id))
            .filter(|canonical| canonical.as_str() == name);
        parsed.ok_or_else(|| NotAReplyQueue { name: name.to_owned(), template: Arc::clone(&self.template) })
    }

    /// The prefix of all reply queues' names.
    pub(crate) fn reply_prefix(&self) -> String {
        format!("{}{REPLIES}", self.prefix)
    }

    /// The label of all reply queues in metrics and spans: `{prefix}-replies-*`.
    pub(crate) fn reply_template(&self) -> Arc<str> {
        Arc::clone(&self.template)
    }
}

/// The name of a reply queue with our prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyQueueName(Arc<str>);

impl ReplyQueueName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplyQueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0192_f0c1_2345_7abc_8def_0123_4567_89ab);

    fn names() -> QueueNames {
        QueueNames::new("broker").expect("a valid prefix")
    }

    #[test]
    fn every_name_fits_sqs_under_the_longest_prefix() {
        let names = QueueNames::new(&"p".repeat(35)).expect("35 fit");
        assert_eq!(names.reply(ID).as_str().len(), LONGEST_NAME);
        assert!(QueueKind::ALL.iter().all(|kind| names.name(*kind).len() <= LONGEST_NAME));
        assert!(QueueNames::new(&"p".repeat(36)).is_err());
    }

    #[test]
    fn a_prefix_has_only_what_sqs_takes() {
        for bad in ["", "a b", "a.fifo", "ä", "a/b", "a*"] {
            assert!(QueueNames::new(bad).is_err(), "{bad:?}");
        }
        assert!(QueueNames::new("Team_1-broker").is_ok());
    }

    #[test]
    fn a_minted_reply_queue_is_read_back() {
        let minted = names().reply(ID);
        assert_eq!(minted.as_str(), "broker-replies-0192f0c1-2345-7abc-8def-0123456789ab");
        assert_eq!(names().parse_reply(minted.as_str()), Ok(minted));
    }

    #[test]
    fn no_other_name_is_a_reply_queue() {
        let id = ID.hyphenated();
        let bad = [
            String::new(),
            "broker-requests".to_owned(),
            "broker-replies-".to_owned(),
            "broker-replies-*".to_owned(),
            format!("other-replies-{id}"),
            format!("broker-replies-{id}x"),
            format!("broker-replies-{id}/../broker-requests"),
            format!(" broker-replies-{id}"),
            format!("broker-replies-{}", ID.simple()),
            format!("broker-replies-{}", ID.braced()),
            format!("broker-replies-{}", id.to_string().to_uppercase()),
            format!("https://sqs/1/broker-replies-{id}"),
        ];
        for name in bad {
            assert!(names().parse_reply(&name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn dead_letter_queues_are_created_before_their_sources() {
        for (index, kind) in QueueKind::ALL.iter().enumerate() {
            if let Some(dlq) = kind.dlq() {
                assert!(QueueKind::ALL[..index].contains(&dlq), "{kind:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_for_a_prefix_makes_names_that_sqs_takes(prefix in "\\PC{0,40}|[A-Za-z0-9_-]{0,40}", id in any::<u128>()) {
            if let Ok(names) = QueueNames::new(&prefix) {
                let reply = names.reply(Uuid::from_u128(id));
                let all = QueueKind::ALL.map(|kind| names.name(kind)).into_iter().chain([reply.to_string()]);
                for name in all {
                    prop_assert!((1..=LONGEST_NAME).contains(&name.len()), "{name}");
                    prop_assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)), "{name}");
                    prop_assert!(name.starts_with(&prefix));
                }
                prop_assert_eq!(names.parse_reply(reply.as_str()), Ok(reply));
            }
        }

        #[test]
        fn a_reply_queue_has_one_name_and_one_prefix(
            prefix in "[a-z-]{1,8}",
            other in "[a-z-]{1,8}",
            id in any::<u128>(),
            at in 0_usize..60,
            put in "[ -~\u{e4}]{0,2}",
        ) {
            let names = QueueNames::new(&prefix).unwrap();
            let minted = names.reply(Uuid::from_u128(id)).to_string();
            let (head, tail) = minted.split_at(at.min(minted.len()));
            let mut rest = tail.chars();
            rest.next();
            for near in [format!("{head}{put}{}", rest.as_str()), format!("{head}{put}{tail}")] {
                if let Ok(parsed) = names.parse_reply(&near) {
                    prop_assert_eq!(parsed.as_str(), near.as_str());
                    let id = near.strip_prefix(&names.reply_prefix()).and_then(|id| Uuid::try_parse(id).ok());
                    prop_assert_eq!(id.map(|id| names.reply(id)), Some(parsed));
                }
            }
            let of_other = QueueNames::new(&other).unwrap().parse_reply(&minted);
            prop_assert_eq!(of_other.is_ok(), prefix == other);
        }
    }
}
