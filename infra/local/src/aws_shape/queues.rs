//! Queues as SQS knows them: deleted ones linger, new ones are listed late, receives are short.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::StatusCode;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::{Answer, hops, wire};

/// SQS: a deleted queue's name is free again after so long.
const NAME_IS_FREE_AFTER: Duration = Duration::from_secs(60);

/// A queue that was deleted.
#[derive(Debug)]
struct DeletedQueue {
    url: String,
    at: Instant,
    takes_messages_until: Instant,
    is_polled_until: Instant,
}

/// What is known of queues that were made or deleted of late, by name.
#[derive(Debug, Default)]
pub(super) struct Queues {
    deleted: HashMap<String, DeletedQueue>,
    listed_at: HashMap<String, Instant>,
}

fn name_of(request: &Value) -> Option<&str> {
    let url = request["QueueUrl"].as_str()?;
    Some(url.rsplit('/').next().unwrap_or(url))
}

impl Queues {
    /// Whether every queue is listed.
    pub(super) fn are_listed(&self, now: Instant) -> bool {
        self.listed_at.values().all(|at| *at <= now)
    }

    /// What SQS answers in place of the queue, if it does; the request as it is to be passed on.
    pub(super) fn before(
        &mut self,
        operation: &str,
        request: &mut Value,
        now: Instant,
        rng: &mut SmallRng,
    ) -> Option<Answer> {
        self.deleted.retain(|_, deleted| now < deleted.at + NAME_IS_FREE_AFTER);
        self.listed_at.retain(|_, at| *at > now);
        match operation {
            "CreateQueue" => {
                let name = request["QueueName"].as_str()?;
                self.deleted.contains_key(name).then(|| wire::sqs_error("QueueDeletedRecently"))
            }
            "SendMessage" | "SendMessageBatch" => {
                let deleted = self.deleted.get(name_of(request)?)?;
                (now < deleted.takes_messages_until).then(|| lost(operation, request))
            }
            "ReceiveMessage" => {
                if let Some(deleted) = self.deleted.get(name_of(request)?) {
                    let polled = now < deleted.is_polled_until;
                    return polled.then(|| wire::json(StatusCode::OK, &json!({})));
                }
                // SQS asks some of its servers, and those may have fewer.
                if let Some(asked) = request["MaxNumberOfMessages"].as_u64().filter(|asked| *asked > 1)
                    && rng.random_bool(0.5)
                {
                    request["MaxNumberOfMessages"] = rng.random_range(1..=asked).into();
                }
                None
            }
            _ => None,
        }
    }

    /// The answer as SQS gives it.
    pub(super) fn after(
        &mut self,
        operation: &str,
        request: &Value,
        answer: Answer,
        now: Instant,
        rng: &mut SmallRng,
    ) -> Answer {
        if !answer.status().is_success() {
            return answer;
        }
        match operation {
            "CreateQueue" => {
                if let Some(name) = request["QueueName"].as_str() {
                    self.listed_at.insert(name.to_owned(), now + hops::new_queue_is_listed_after(rng));
                }
                answer
            }
            "DeleteQueue" => {
                let name = name_of(request).map(str::to_owned);
                if let (Some(name), Some(url)) = (name, request["QueueUrl"].as_str()) {
                    let deleted = DeletedQueue {
                        url: url.to_owned(),
                        at: now,
                        takes_messages_until: now + hops::deleted_queue_lingers(rng),
                        is_polled_until: now + hops::deleted_queue_is_polled(rng),
                    };
                    self.deleted.insert(name, deleted);
                }
                answer
            }
            "ListQueues" => self.listed(request, answer, now),
            _ => answer,
        }
    }

    fn listed(&self, request: &Value, answer: Answer, now: Instant) -> Answer {
        let prefix = request["QueueNamePrefix"].as_str().unwrap_or_default();
        let lingering = self
            .deleted
            .iter()
            .filter(|(name, deleted)| name.starts_with(prefix) && now < deleted.takes_messages_until);
        let lingering: Vec<_> = lingering.map(|(_, deleted)| json!(deleted.url)).collect();
        wire::edited(answer, |page| {
            let mut urls = page["QueueUrls"].as_array().cloned().unwrap_or_default();
            let is_known = |url: &Value| {
                let name = url.as_str().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
                !self.listed_at.contains_key(name)
            };
            urls.retain(is_known);
            urls.extend(lingering);
            page["QueueUrls"] = urls.into();
        })
    }
}

/// SQS says that it has what is lost with its queue.
fn lost(operation: &str, request: &Value) -> Answer {
    const ID: &str = "00000000-0000-4000-8000-000000000000";
    const DIGEST: &str = "d41d8cd98f00b204e9800998ecf8427e";
    let taken = || json!({ "MessageId": ID, "MD5OfMessageBody": DIGEST });
    if operation == "SendMessage" {
        return wire::json(StatusCode::OK, &taken());
    }
    let entries = request["Entries"].as_array().into_iter().flatten();
    let successful: Vec<_> = entries
        .map(|entry| {
            let mut taken = taken();
            taken["Id"] = entry["Id"].clone();
            taken
        })
        .collect();
    wire::json(StatusCode::OK, &json!({ "Successful": successful, "Failed": [] }))
}
