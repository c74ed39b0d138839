//! Topology of the queues: creates, measures and lists them.
//!
//! Invariant: [`ensure`] may be repeated at any time, by several processes at once, and leaves matching queues alone. Only
//! reply queues are ever deleted, by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use uuid::Uuid;

use super::error::{Cause, is_missing_queue};
use super::urls::find;
use super::{Queue, QueueError, QueueKind, QueueNames, QueueUrls, ReplyQueueName};
use broker_domain::Backlog;
use broker_runtime::aws::Aws;

const DAY_S: u32 = 24 * 60 * 60;
/// Retention of dead-letter queues, longer than the sources': SQS counts it from the first enqueue.
const DLQ_RETENTION_S: u32 = 14 * DAY_S;
const SOURCE_RETENTION_S: u32 = 4 * DAY_S;
const REPLY_RETENTION_S: u32 = 300;
/// SQS: the longest wait of a poll.
const POLL_WAIT_S: u32 = 20;
/// The largest message of a source. Ours are smaller. A larger one of another program is refused to its sender: as a dead letter
/// it would find no place in an item of the table (400 KB). A dead-letter queue may take more: its messages have a reason besides.
const MESSAGE_BYTES: u32 = 256 * 1_024;
/// SQS: queues of one ListQueues page.
const PAGE: i32 = 1_000;

type Attributes = HashMap<Attribute, String>;

/// What [`ensure`] did with a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueChange {
    /// It was created.
    Created,
    /// It existed, and these attributes were changed.
    Changed(Vec<String>),
    /// It existed and matched.
    AsItWas,
}

/// An attribute of a queue that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub(super) attribute: Attribute,
    pub(super) found: String,
    pub(super) wanted: String,
}

impl Difference {
    /// Its name.
    pub fn attribute(&self) -> &str {
        self.attribute.as_str()
    }

    /// What stands there; `none` if it is not set.
    pub fn found(&self) -> &str {
        or_none(&self.found)
    }

    /// What should.
    pub fn wanted(&self) -> &str {
        or_none(&self.wanted)
    }
}

const fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// For people: `VisibilityTimeout 60, wanted 30`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, wanted {}", self.attribute(), self.found(), self.wanted())
    }
}

/// The depth of a queue. SQS calls all three numbers approximate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Its name.
    pub queue: String,
    /// Waiting to be received.
    pub visible: u64,
    /// Received, neither deleted nor visible again.
    pub in_flight: u64,
    /// Sent with a delay that has not passed.
    pub delayed: u64,
}

impl Depth {
    /// What scaling follows.
    pub const fn backlog(&self) -> Backlog {
        Backlog { visible: self.visible, in_flight: self.in_flight }
    }
}

/// Creates the four queues, or corrects the attributes of existing ones, dead-letter queues first. `visibility` is the
/// visibility timeout of the sources.
pub async fn ensure(
    aws: &Aws,
    names: &QueueNames,
    visibility: Duration,
) -> Result<Vec<(String, QueueChange)>, QueueError> {
    let mut report = Vec::new();
    let mut dlq_url: Option<String> = None;
    for kind in QueueKind::ALL {
        let name = names.name(kind);
        // Each dead-letter queue comes before its source. Its URL is the one from its creation: a new queue may not be known by
        // name yet.
        let dlq_arn = match (kind.dlq(), dlq_url.take()) {
            (Some(dlq), Some(url)) => Some(arn(aws, &names.name(dlq), &url).await?),
            (Some(_) | None, _) => None,
        };
        let (ensured, url) =
            ensure_one(aws, names, kind, wanted(kind, visibility, dlq_arn.as_deref())).await?;
        dlq_url = Some(url);
        report.push((name, ensured));
    }
    Ok(report)
}

/// The number of receives before redrive moves a message of this queue; `None` for dead-letter queues.
pub(crate) const fn max_receives(kind: QueueKind) -> Option<u32> {
    match kind {
        QueueKind::Requests => Some(5),
        QueueKind::Maintenance => Some(10),
        QueueKind::RequestsDlq | QueueKind::MaintenanceDlq => None,
    }
}

/// Creates a reply queue, encrypted with this KMS key, else with the requests queue's.
pub async fn create_reply_queue(
    aws: &Aws,
    urls: &QueueUrls,
    id: Uuid,
    kms_key: Option<&str>,
) -> Result<(ReplyQueueName, Queue), QueueError> {
    let name = urls.names().reply(id);
    // Replies are as secret as requests: under the same key, if there is one and no other is configured.
    let (requests, key) = (urls.get(QueueKind::Requests), [Attribute::KmsMasterKeyId]);
    let mut with = attributes(aws, requests.label(), requests.url(), &key).await?;
    with.retain(|name, value| key.contains(name) && !value.is_empty());
    with.extend(kms_key.map(|key| (Attribute::KmsMasterKeyId, key.to_owned())));
    with.extend([
        (Attribute::MessageRetentionPeriod, REPLY_RETENTION_S.to_string()),
        (Attribute::ReceiveMessageWaitTimeSeconds, POLL_WAIT_S.to_string()),
    ]);
    let created = aws.sqs.create_queue().queue_name(name.as_str()).set_attributes(Some(with)).send().await;
    created.map_err(|error| failed("create", name.as_str(), error))?;
    let queue = urls.reply(&name);
    Ok((name, queue))
}

/// Deletes a reply queue with its messages. A missing one counts as deleted.
pub async fn delete_reply_queue(
    aws: &Aws,
    urls: &QueueUrls,
    name: &ReplyQueueName,
) -> Result<(), QueueError> {
    match aws.sqs.delete_queue().queue_url(urls.reply(name).url()).send().await {
        Ok(_) => Ok(()),
        Err(error) if is_missing_queue(error.code().unwrap_or_default()) => Ok(()),
        Err(error) => Err(failed("delete", name.as_str(), error)),
    }
}

/// All reply queues with our prefix, of any process. SQS lists a new or deleted one up to a minute late.
pub async fn reply_queues(aws: &Aws, names: &QueueNames) -> Result<Vec<ReplyQueueName>, QueueError> {
    let prefix = names.reply_prefix();
    let mut found = Vec::new();
    let mut pages =
        aws.sqs.list_queues().queue_name_prefix(&prefix).max_results(PAGE).into_paginator().items().send();
    while let Some(url) = pages.next().await {
        let url = url.map_err(|error| failed("list queues", &prefix, error))?;
        let name = url.rsplit('/').next().unwrap_or_default();
        // Another deployment's prefix may begin with ours.
        found.extend(names.parse_reply(name).ok());
    }
    Ok(found)
}

/// The depths of the four queues, sources first.
pub async fn depths(aws: &Aws, urls: &QueueUrls) -> Result<Vec<Depth>, QueueError> {
    use QueueKind::{Maintenance, MaintenanceDlq, Requests, RequestsDlq};
    let mut depths = Vec::new();
    for kind in [Requests, Maintenance, RequestsDlq, MaintenanceDlq] {
        depths.push(depth(aws, &urls.get(kind), urls.names().name(kind)).await?);
    }
    Ok(depths)
}

/// The depth of `queue`, which is called `name`.
pub async fn depth(aws: &Aws, queue: &Queue, name: String) -> Result<Depth, QueueError> {
    let visible = Attribute::ApproximateNumberOfMessages;
    let in_flight = Attribute::ApproximateNumberOfMessagesNotVisible;
    let delayed = Attribute::ApproximateNumberOfMessagesDelayed;
    let asked = [visible.clone(), in_flight.clone(), delayed.clone()];
    let attributes = attributes(aws, &name, queue.url(), &asked).await?;
    let count = |attribute| attributes.get(&attribute).and_then(|count| count.parse().ok()).unwrap_or(0);
    Ok(Depth { visible: count(visible), in_flight: count(in_flight), delayed: count(delayed), queue: name })
}

/// What a new queue is created with.
pub(super) fn wanted(kind: QueueKind, visibility: Duration, dlq_arn: Option<&str>) -> Attributes {
    let mut wanted = HashMap::from([
        (Attribute::ReceiveMessageWaitTimeSeconds, POLL_WAIT_S.to_string()),
        (Attribute::DelaySeconds, "0".to_owned()),
    ]);
    let retention = match (max_receives(kind), dlq_arn) {
        (Some(receives), Some(arn)) => {
            let redrive = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": receives });
            wanted.insert(Attribute::RedrivePolicy, redrive.to_string());
            wanted.insert(Attribute::VisibilityTimeout, visibility.as_secs().to_string());
            wanted.insert(Attribute::MaximumMessageSize, MESSAGE_BYTES.to_string());
            SOURCE_RETENTION_S
        }
        (None | Some(_), None | Some(_)) => DLQ_RETENTION_S,
    };
    wanted.insert(Attribute::MessageRetentionPeriod, retention.to_string());
    wanted
}

/// What one that stands there is compared with besides: what SQS gives a new queue by itself. Everything else, such as its
/// access policy and its encryption, is its operator's.
fn compared(kind: QueueKind, names: &QueueNames, own_arn: &str) -> Attributes {
    let Some(source) = QueueKind::ALL.into_iter().find(|source| source.dlq() == Some(kind)) else {
        return Attributes::new();
    };
    let here = own_arn.rsplit_once(':').map_or(own_arn, |(here, _)| here);
    let source = format!("{here}:{}", names.name(source));
    let allow = serde_json::json!({ "redrivePermission": "byQueue", "sourceQueueArns": [source] });
    HashMap::from([
        (Attribute::MaximumMessageSize, MESSAGE_BYTES.to_string()),
        (Attribute::RedriveAllowPolicy, allow.to_string()),
        // What fails in there stays there.
        (Attribute::RedrivePolicy, String::new()),
    ])
}

/// What was done, and the queue's URL.
async fn ensure_one(
    aws: &Aws,
    names: &QueueNames,
    kind: QueueKind,
    wanted: Attributes,
) -> Result<(QueueChange, String), QueueError> {
    let name = &names.name(kind);
    if let Some(url) = find(aws, name).await? {
        return Ok((adjust(aws, names, kind, &url, wanted).await?, url));
    }
    let created = aws.sqs.create_queue().queue_name(name).set_attributes(Some(wanted.clone())).send().await;
    match created {
        Ok(created) => Ok((QueueChange::Created, created.queue_url.unwrap_or_default())),
        // Another process created it first, with other attributes.
        Err(error) if error.as_service_error().is_some_and(|error| error.is_queue_name_exists()) => {
            let url = find(aws, name).await?.ok_or_else(|| failed("create", name, error))?;
            Ok((adjust(aws, names, kind, &url, wanted).await?, url))
        }
        Err(error) => Err(failed("create", name, error)),
    }
}

/// Sets what differs.
async fn adjust(
    aws: &Aws,
    names: &QueueNames,
    kind: QueueKind,
    url: &str,
    wanted: Attributes,
) -> Result<QueueChange, QueueError> {
    let differ = differences(aws, names, kind, url, wanted).await?;
    if differ.is_empty() {
        return Ok(QueueChange::AsItWas);
    }
    let changed = differ.iter().map(|one| one.attribute.as_str().to_owned()).collect();
    let differ = differ.into_iter().map(|one| (one.attribute, one.wanted)).collect();
    let set = aws.sqs.set_queue_attributes().queue_url(url).set_attributes(Some(differ)).send().await;
    set.map_err(|error| failed("set the attributes of", &names.name(kind), error))?;
    Ok(QueueChange::Changed(changed))
}

/// What of `wanted`, and of what is compared besides, is not so; by name.
pub(super) async fn differences(
    aws: &Aws,
    names: &QueueNames,
    kind: QueueKind,
    url: &str,
    wanted: Attributes,
) -> Result<Vec<Difference>, QueueError> {
    let name = names.name(kind);
    let mut wanted = wanted;
    wanted.extend(compared(kind, names, &arn(aws, &name, url).await?));
    let asked: Vec<_> = wanted.keys().cloned().collect();
    let found = attributes(aws, &name, url, &asked).await?;
    let compared = wanted.into_iter().map(|(attribute, wanted)| {
        let found = found.get(&attribute).cloned().unwrap_or_default();
        Difference { attribute, found, wanted }
    });
    let mut differ: Vec<_> =
        compared.filter(|one| !fits(kind, &one.attribute, &one.found, &one.wanted)).collect();
    differ.sort_by(|one, other| one.attribute.as_str().cmp(other.attribute.as_str()));
    Ok(differ)
}

/// Whether an attribute as it was found, empty if it is not set, does what the wanted one does. SQS may write a policy's JSON
/// in another way than it was given.
fn fits(kind: QueueKind, attribute: &Attribute, found: &str, wanted: &str) -> bool {
    if *attribute == Attribute::RedrivePolicy {
        redrive(found) == redrive(wanted)
    } else if *attribute == Attribute::RedriveAllowPolicy {
        allows(found, wanted)
    } else if *attribute == Attribute::MaximumMessageSize && max_receives(kind).is_none() {
        let bytes = |text: &str| text.parse::<u64>().ok();
        bytes(found) >= bytes(wanted)
    } else {
        found == wanted
    }
}

/// Where a redrive policy moves messages, and after how many receives; `None` without one.
fn redrive(text: &str) -> Option<(String, u64)> {
    let policy: serde_json::Value = serde_json::from_str(text).ok()?;
    let count = policy.get("maxReceiveCount")?;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((policy.get("deadLetterTargetArn")?.as_str()?.to_owned(), count))
}

/// Whether a policy of who may redrive here lets in whom `wanted` names. Without one everybody may.
fn allows(found: &str, wanted: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let (found_policy, wanted) = (read(found), read(wanted));
    let sources =
        |policy: &serde_json::Value| policy["sourceQueueArns"].as_array().cloned().unwrap_or_default();
    match found_policy["redrivePermission"].as_str() {
        None => found.is_empty(),
        Some("allowAll") => true,
        Some("byQueue") => sources(&wanted).iter().all(|source| sources(&found_policy).contains(source)),
        Some(_) => false,
    }
}

pub(super) async fn arn(aws: &Aws, name: &str, url: &str) -> Result<String, QueueError> {
    let mut found = attributes(aws, name, url, &[Attribute::QueueArn]).await?;
    found.remove(&Attribute::QueueArn).ok_or_else(|| QueueError::Missing { queue: name.to_owned() })
}

async fn attributes(aws: &Aws, name: &str, url: &str, asked: &[Attribute]) -> Result<Attributes, QueueError> {
    let call = aws.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(asked.to_vec()));
    match call.send().await {
        Ok(found) => Ok(found.attributes.unwrap_or_default()),
        Err(error) if is_missing_queue(error.code().unwrap_or_default()) => {
            Err(QueueError::Missing { queue: name.to_owned() })
        }
        Err(error) => Err(failed("read the attributes of", name, error)),
    }
}

fn failed(
    action: &'static str,
    queue: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> QueueError {
    let source: Cause = Arc::new(error);
    QueueError::Failed { action, queue: queue.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_is_compared_by_meaning() {
        let ours = r#"{"deadLetterTargetArn":"arn:x","maxReceiveCount":5}"#;
        let theirs = r#"{ "maxReceiveCount" : "5", "deadLetterTargetArn" : "arn:x" }"#;
        let fits = |found| fits(QueueKind::Requests, &Attribute::RedrivePolicy, found, ours);
        assert!(fits(theirs));
        assert!(!fits(r#"{"deadLetterTargetArn":"arn:x","maxReceiveCount":6}"#));
        assert!(!fits(""));
        assert!(
            !super::fits(QueueKind::RequestsDlq, &Attribute::RedrivePolicy, ours, ""),
            "a dead-letter queue that moves on what it keeps"
        );
    }

    #[test]
    fn whoever_lets_our_source_redrive_may_let_in_others_too() {
        let ours = r#"{"redrivePermission":"byQueue","sourceQueueArns":["arn:x"]}"#;
        let fits = |found| fits(QueueKind::RequestsDlq, &Attribute::RedriveAllowPolicy, found, ours);
        for fine in [
            "",
            r#"{"redrivePermission":"allowAll"}"#,
            ours,
            r#"{"redrivePermission":"byQueue","sourceQueueArns":["arn:y","arn:x"]}"#,
        ] {
            assert!(fits(fine), "{fine}");
        }
        for wrong in [
            "nonsense",
            r#"{"redrivePermission":"denyAll"}"#,
            r#"{"redrivePermission":"byQueue","sourceQueueArns":["arn:y"]}"#,
        ] {
            assert!(!fits(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_a_dead_letter_queue_may_take_larger_messages_than_an_item_holds() {
        let fits = |kind, found| fits(kind, &Attribute::MaximumMessageSize, found, "262144");
        for (source, dlq) in
            QueueKind::ALL.into_iter().filter_map(|source| source.dlq().map(|dlq| (source, dlq)))
        {
            assert!(fits(source, "262144") && !fits(source, "1048576"), "{source:?}");
            assert!(fits(dlq, "262144") && fits(dlq, "1048576"), "{dlq:?}");
            assert!(["1024", ""].into_iter().all(|small| !fits(source, small) && !fits(dlq, small)));
        }
        assert!(!super::fits(QueueKind::Requests, &Attribute::DelaySeconds, "90", "0"));
    }

    #[test]
    fn dead_letters_are_kept_longer_than_their_source_keeps_anything() {
        let source = wanted(QueueKind::Requests, Duration::from_secs(30), Some("arn:x"));
        let dlq = wanted(QueueKind::RequestsDlq, Duration::from_secs(30), None);
        assert_eq!(source[&Attribute::MessageRetentionPeriod], "345600");
        assert_eq!(
            (&*source[&Attribute::VisibilityTimeout], &*source[&Attribute::MaximumMessageSize]),
            ("30", "262144")
        );
        assert!(source[&Attribute::RedrivePolicy].contains(r#""maxReceiveCount":5"#));
        assert_eq!(dlq[&Attribute::MessageRetentionPeriod], "1209600");
        assert!(!dlq.contains_key(&Attribute::RedrivePolicy));
    }
}
