//! Queue operations, with the behaviour of SQS.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use rustack_sqs_core::{
    provider::RustackSqs,
    queue::{QueueAttributes, extract_queue_name},
};
use rustack_sqs_model::{
    error::SqsError,
    input::{
        CreateQueueInput, DeleteQueueInput, GetQueueAttributesInput, GetQueueUrlInput,
        ListDeadLetterSourceQueuesInput, ListQueuesInput, SetQueueAttributesInput,
    },
    output::{
        CreateQueueOutput, DeleteQueueOutput, GetQueueAttributesOutput, ListQueuesOutput,
        SetQueueAttributesOutput,
    },
    types::{QueueAttributeName, RedrivePolicy},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    fair::{FairQueues, VISIBLE},
    missing::{exists, no_such_queue},
};

const REDRIVE_POLICY: &str = "RedrivePolicy";

/// The range of `maxReceiveCount`.
const RECEIVE_LIMITS: RangeInclusive<i32> = 1..=1000;

/// Creates, changes, lists and deletes queues.
pub(super) struct SqsQueues {
    provider: Arc<RustackSqs>,
    fair: Arc<FairQueues>,
    /// Locked by creations and deletions: the library looks a name up and takes it in two steps.
    changing: Mutex<()>,
}

/// `CreateQueue` with the tags where the SDK puts them: alone among the parameters they are in lower case.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateQueue {
    queue_name: String,
    #[serde(default)]
    attributes: HashMap<String, String>,
    #[serde(default, rename = "tags")]
    tags: HashMap<String, String>,
}

/// `ListDeadLetterSourceQueues` with the name in lower case that the SDK reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceQueues {
    queue_urls: Vec<String>,
}

impl SqsQueues {
    pub(super) fn new(provider: Arc<RustackSqs>, fair: Arc<FairQueues>) -> Self {
        Self { provider, fair, changing: Mutex::new(()) }
    }

    /// Creates a queue, or returns the one with this name and these attributes.
    pub(super) async fn create(&self, request: CreateQueue) -> Result<CreateQueueOutput, SqsError> {
        let CreateQueue { queue_name, mut attributes, tags } = request;
        if attributes.get(REDRIVE_POLICY).is_some_and(String::is_empty) {
            attributes.remove(REDRIVE_POLICY);
        }
        self.mend_redrive_policy(&mut attributes).await?;
        let _one_at_a_time = self.changing.lock().await;
        self.refuse_if_it_lacks(&queue_name, &attributes).await?;
        self.provider.create_queue(CreateQueueInput { queue_name, attributes, tags }).await
    }

    /// The library compares only attributes that the existing queue has; a missing one differs too.
    async fn refuse_if_it_lacks(
        &self,
        queue_name: &str,
        attributes: &HashMap<String, String>,
    ) -> Result<(), SqsError> {
        let Some(queue_url) = self.url_of(queue_name).await else { return Ok(()) };
        let all = GetQueueAttributesInput { queue_url, attribute_names: vec!["All".to_owned()] };
        let existing = self.provider.get_queue_attributes(all).await?.attributes;
        let lacking =
            attributes.iter().find(|(name, value)| !value.is_empty() && !existing.contains_key(*name));
        lacking.map_or(Ok(()), |(name, _)| {
            Err(SqsError::queue_already_exists(format!(
                "A queue already exists with the same name and a different value for attribute {name}"
            )))
        })
    }

    /// Deletes a queue with its messages.
    pub(super) async fn delete(&self, request: DeleteQueueInput) -> Result<DeleteQueueOutput, SqsError> {
        let _one_at_a_time = self.changing.lock().await;
        if !exists(&self.provider, &request.queue_url).await {
            return Err(no_such_queue());
        }
        let queue_url = request.queue_url.clone();
        let output = self.provider.delete_queue(request).await?;
        self.fair.forget(&queue_url);
        Ok(output)
    }

    /// A page of queue URLs; a token only when more follow, and, as in SQS, when a page size was requested.
    pub(super) async fn list(&self, request: ListQueuesInput) -> Result<ListQueuesOutput, SqsError> {
        within("MaxResults", request.max_results, 1..=1000)?;
        let mut page = self.provider.list_queues(request.clone()).await?;
        if request.max_results.is_none() {
            page.next_token = None;
        } else if page.next_token.is_some() {
            let next = ListQueuesInput { next_token: page.next_token.clone(), ..request };
            if self.provider.list_queues(next).await?.queue_urls.is_empty() {
                page.next_token = None;
            }
        }
        Ok(page)
    }

    /// The requested attributes.
    pub(super) async fn attributes(
        &self,
        mut request: GetQueueAttributesInput,
    ) -> Result<GetQueueAttributesOutput, SqsError> {
        let unknown = |name: &&String| QueueAttributeName::from_str_name(name).is_none();
        if let Some(name) = request.attribute_names.iter().find(unknown) {
            return Err(SqsError::invalid_attribute_name(format!("Unknown Attribute {name}.")));
        }
        let none = request.attribute_names.is_empty();
        if none {
            // The library takes none for all; it is asked for one, to learn whether the queue exists.
            request.attribute_names.push("QueueArn".to_owned());
        }
        let in_lines = self.fair.waiting(&request.queue_url).await;
        let mut output = self.provider.get_queue_attributes(request).await?;
        if let Some(visible) = output.attributes.get_mut(VISIBLE) {
            *visible = visible.parse().map_or(in_lines, |here: usize| here + in_lines).to_string();
        }
        if none {
            output.attributes.clear();
        }
        Ok(output)
    }

    /// Sets all the attributes, or none when one is invalid.
    pub(super) async fn set_attributes(
        &self,
        mut request: SetQueueAttributesInput,
    ) -> Result<SetQueueAttributesOutput, SqsError> {
        self.mend_redrive_policy(&mut request.attributes).await?;
        let mut values = request.attributes.clone();
        values.retain(|_, value| !value.is_empty()); // an empty value takes the attribute away
        let is_fifo = extract_queue_name(&request.queue_url).is_some_and(|name| name.ends_with(".fifo"));
        QueueAttributes::from_map(&values, is_fifo)?;
        self.provider.set_queue_attributes(request).await
    }

    /// The queues that move their dead messages to this one, all on one page.
    pub(super) async fn sources(
        &self,
        request: ListDeadLetterSourceQueuesInput,
    ) -> Result<SourceQueues, SqsError> {
        let found = self.provider.list_dead_letter_source_queues(request).await?;
        Ok(SourceQueues { queue_urls: found.queue_urls })
    }

    /// Writes the policy as the library does, so that the library can read and compare it.
    async fn mend_redrive_policy(&self, attributes: &mut HashMap<String, String>) -> Result<(), SqsError> {
        let Some(policy) = attributes.get_mut(REDRIVE_POLICY).filter(|policy| !policy.is_empty()) else {
            return Ok(());
        };
        let refuse = |reason: &str| {
            SqsError::invalid_parameter_value(format!(
                "Value {policy} for parameter {REDRIVE_POLICY} is invalid. Reason: {reason}"
            ))
        };
        let read = parse_redrive_policy(policy).map_err(refuse)?;
        let name = read.dead_letter_target_arn.rsplit(':').next().unwrap_or_default();
        let is_ours = self.provider.queue_url_for_arn(&read.dead_letter_target_arn).is_ok();
        if !is_ours || self.url_of(name).await.is_none() {
            return Err(refuse("Dead letter target does not exist."));
        }
        *policy =
            serde_json::to_string(&read).map_err(|error| SqsError::internal_error(error.to_string()))?;
        Ok(())
    }

    async fn url_of(&self, queue_name: &str) -> Option<String> {
        let asked = GetQueueUrlInput { queue_name: queue_name.to_owned(), queue_owner_aws_account_id: None };
        self.provider.get_queue_url(asked).await.ok()?.queue_url
    }
}

/// Reads a redrive policy whose count is a number or, as many tools write it, a string.
fn parse_redrive_policy(policy: &str) -> Result<RedrivePolicy, &'static str> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(i32),
        Text(String),
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        dead_letter_target_arn: String,
        max_receive_count: Count,
    }
    let written: Written = serde_json::from_str(policy)
        .map_err(|_| "It must be a JSON object with deadLetterTargetArn and maxReceiveCount.")?;
    let count = match written.max_receive_count {
        Count::Number(count) => Some(count),
        Count::Text(text) => text.parse().ok(),
    };
    let max_receive_count = count
        .filter(|count| RECEIVE_LIMITS.contains(count))
        .ok_or("maxReceiveCount must be an integer between 1 and 1000.")?;
    Ok(RedrivePolicy { dead_letter_target_arn: written.dead_letter_target_arn, max_receive_count })
}

/// Refuses a value that is out of range.
pub(super) fn within(name: &str, value: Option<i32>, range: RangeInclusive<i32>) -> Result<(), SqsError> {
    if let Some(value) = value
        && !range.contains(&value)
    {
        return Err(SqsError::invalid_parameter_value(format!(
            "Value {value} for parameter {name} is invalid. Reason: Must be between {} and {}, if provided.",
            range.start(),
            range.end()
        )));
    }
    Ok(())
}
