//! URLs of the queues.
//!
//! The four are resolved once; every reply queue has the same base, so its URL is theirs with another last segment and
//! costs no call. Nothing is created here.

use std::sync::Arc;

use aws_sdk_sqs::error::ProvideErrorMetadata as _;

use super::error::is_missing_queue;
use super::{QueueError, QueueKind, QueueNames, ReplyQueueName};
use broker_runtime::aws::Aws;

/// One queue: its URL, and its label in metrics and errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    url: Arc<str>,
    label: Arc<str>,
}

impl Queue {
    /// A queue at `url`. `label` is its name, or, for a reply queue, the template of its name.
    pub fn new(url: impl Into<Arc<str>>, label: impl Into<Arc<str>>) -> Self {
        Self { url: url.into(), label: label.into() }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The label in metrics and errors; never a reply queue's name.
    pub const fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The label for the `metrics` crate.
    pub(super) fn metric_label(&self) -> metrics::SharedString {
        metrics::SharedString::from_shared(Arc::clone(&self.label))
    }
}

/// The queues under one prefix.
#[derive(Clone, Debug)]
pub struct QueueUrls {
    names: QueueNames,
    /// Everything before the name, with the slash.
    base: Arc<str>,
}

impl QueueUrls {
    /// Resolves the four queues. A missing one is [`QueueError::Missing`].
    pub async fn resolve(aws: &Aws, names: &QueueNames) -> Result<Self, QueueError> {
        let mut requests = None;
        for kind in QueueKind::ALL {
            let name = names.name(kind);
            let url = find(aws, &name).await?.ok_or(QueueError::Missing { queue: name })?;
            if kind == QueueKind::Requests {
                requests = Some(url);
            }
        }
        Ok(Self::beside(names, &requests.unwrap_or_default()))
    }

    /// The queues with the same base as `url`.
    pub(super) fn beside(names: &QueueNames, url: &str) -> Self {
        let base = url.rfind('/').map_or("", |slash| &url[..=slash]);
        Self { names: names.clone(), base: base.into() }
    }

    /// Their names.
    pub const fn names(&self) -> &QueueNames {
        &self.names
    }

    /// One of the four queues.
    pub fn get(&self, kind: QueueKind) -> Queue {
        let name = self.names.name(kind);
        Queue::new(format!("{}{name}", self.base), name)
    }

    /// A reply queue, which need not exist.
    pub fn reply(&self, name: &ReplyQueueName) -> Queue {
        Queue::new(format!("{}{name}", self.base), self.names.reply_template())
    }
}

/// The URL of the queue of this name, if it exists.
pub(super) async fn find(aws: &Aws, name: &str) -> Result<Option<String>, QueueError> {
    match aws.sqs.get_queue_url().queue_name(name).send().await {
        Ok(found) => Ok(found.queue_url),
        Err(error) if is_missing_queue(error.code().unwrap_or_default()) => Ok(None),
        Err(error) => {
            Err(QueueError::Failed { action: "find queue", queue: name.to_owned(), source: Arc::new(error) })
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn queues_lie_beside_the_requests_queue_and_replies_are_labelled_by_template() {
        let names = QueueNames::new("b").expect("a valid prefix");
        let urls = QueueUrls::beside(&names, "https://sqs.eu-west-1.amazonaws.com/123456789012/b-requests");
        let dlq = urls.get(QueueKind::MaintenanceDlq);
        assert_eq!(dlq.url(), "https://sqs.eu-west-1.amazonaws.com/123456789012/b-maintenance-dlq");
        assert_eq!(&**dlq.label(), "b-maintenance-dlq");
        let reply = urls.reply(&names.reply(Uuid::nil()));
        let expected = format!("https://sqs.eu-west-1.amazonaws.com/123456789012/b-replies-{}", Uuid::nil());
        assert_eq!(reply.url(), expected);
        assert_eq!(&**reply.label(), "b-replies-*");
    }
}
