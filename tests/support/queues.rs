//! Queues of the broker, through the AWS SDK: for checks beside the broker's own code, and for faults.

use std::collections::HashMap;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{Message, MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry};

use crate::endpoint::{REGION, Urls};
use crate::wait::wait_for_condition;

/// How many messages a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Those that a receive would get.
    pub visible: u64,
    /// Those that were received and not acknowledged.
    pub in_flight: u64,
    /// Those that are not yet due.
    pub delayed: u64,
}

impl Depth {
    /// All of them.
    pub const fn total(self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

/// The queues under one prefix.
#[derive(Clone, Debug)]
pub struct Queues {
    client: Client,
    prefix: String,
}

impl Queues {
    /// The queues whose names begin with `prefix`.
    pub fn new(urls: &Urls, prefix: &str) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(&urls.sqs_url)
            .build();
        Self { client: Client::from_conf(config), prefix: prefix.to_owned() }
    }

    /// The full name of the queue that the broker calls `short`, such as `requests-dlq`.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    /// The full names of all queues under the prefix.
    pub async fn names(&self) -> Vec<String> {
        let listed = self.client.list_queues().queue_name_prefix(format!("{}-", self.prefix)).send().await;
        let urls = listed.expect("ListQueues").queue_urls.unwrap_or_default();
        let mut names: Vec<_> =
            urls.iter().filter_map(|url| url.rsplit('/').next()).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The full names of the reply queues.
    pub async fn reply_queues(&self) -> Vec<String> {
        let prefix = self.name("replies-");
        self.names().await.into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    /// How many messages are in `queue` (full name).
    pub async fn depth(&self, queue: &str) -> Depth {
        let url = self.url(queue).await;
        let asked =
            self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let attributes = asked.send().await.expect("GetQueueAttributes").attributes.unwrap_or_default();
        let count = |name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default();
        Depth {
            visible: count(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
        }
    }

    /// How many messages are in the requests queue.
    pub async fn requests(&self) -> Depth {
        self.depth(&self.name("requests")).await
    }

    /// How many messages are in the maintenance queue.
    pub async fn maintenance(&self) -> Depth {
        self.depth(&self.name("maintenance")).await
    }

    /// Waits until the requests queue holds `count` messages, in whatever state.
    pub async fn holds_requests(&self, count: u64) {
        wait_for_condition(&format!("{count} messages in the requests queue"), async || {
            let depth = self.requests().await;
            if depth.total() == count { Ok(()) } else { Err(depth) }
        })
        .await;
    }

    /// Waits until no queue under the prefix holds a message.
    pub async fn are_empty(&self) {
        wait_for_condition("all queues to be empty", async || {
            let mut filled = Vec::new();
            for name in self.names().await {
                let depth = self.depth(&name).await;
                if depth.total() > 0 {
                    filled.push((name, depth));
                }
            }
            if filled.is_empty() { Ok(()) } else { Err(filled) }
        })
        .await;
    }

    /// Up to ten messages of `queue`, which stay visible to others.
    pub async fn peek(&self, queue: &str) -> Vec<Message> {
        self.receive(queue, 0).await
    }

    /// Takes messages out of `queue` until it has given `count`.
    pub async fn take(&self, queue: &str, count: usize) -> Vec<Message> {
        let url = self.url(queue).await;
        let mut taken = Vec::new();
        wait_for_condition(&format!("{count} messages in {queue}"), async || {
            for message in self.receive(queue, 60).await {
                let receipt = message.receipt_handle().expect("a received message has one");
                let delete = self.client.delete_message().queue_url(&url).receipt_handle(receipt);
                delete.send().await.expect("DeleteMessage");
                taken.push(message);
            }
            if taken.len() >= count { Ok(()) } else { Err(format!("{} of them", taken.len())) }
        })
        .await;
        taken
    }

    async fn receive(&self, queue: &str, visibility_s: i32) -> Vec<Message> {
        let url = self.url(queue).await;
        let receive = self.client.receive_message().queue_url(url).max_number_of_messages(10);
        let receive = receive.visibility_timeout(visibility_s).message_attribute_names("All");
        receive.send().await.expect("ReceiveMessage").messages.unwrap_or_default()
    }

    /// Gives `queue` this redrive policy, as an operator in the console would.
    pub async fn set_redrive(&self, queue: &str, policy: &str) {
        self.set_attribute(queue, "RedrivePolicy", policy).await;
    }

    /// Gives `queue` another attribute, as an operator at the console would.
    pub async fn set_attribute(&self, queue: &str, name: &str, value: &str) {
        let set = self.client.set_queue_attributes().queue_url(self.url(queue).await);
        let set = set.attributes(QueueAttributeName::from(name), value);
        set.send().await.expect("SetQueueAttributes");
    }

    /// An attribute of `queue`, if it has it.
    pub async fn attribute(&self, queue: &str, name: &str) -> Option<String> {
        let name = QueueAttributeName::from(name);
        let asked = self.client.get_queue_attributes().queue_url(self.url(queue).await);
        let answer = asked.attribute_names(name.clone()).send().await.expect("GetQueueAttributes");
        answer.attributes.and_then(|mut found| found.remove(&name))
    }

    /// The ARN of `queue`.
    pub async fn arn(&self, queue: &str) -> String {
        let asked = self.client.get_queue_attributes().queue_url(self.url(queue).await);
        let answer = asked.attribute_names(QueueAttributeName::QueueArn).send().await.expect("its ARN");
        answer.attributes.and_then(|mut found| found.remove(&QueueAttributeName::QueueArn)).expect("an ARN")
    }

    /// Deletes `queue` with all its messages, as an operator's mistake would.
    pub async fn remove(&self, queue: &str) {
        self.client.delete_queue().queue_url(self.url(queue).await).send().await.expect("DeleteQueue");
    }

    /// Puts a message with this body into `queue`.
    pub async fn send(&self, queue: &str, body: &str) {
        self.send_with(queue, body, HashMap::new()).await;
    }

    /// Puts messages with these bodies into `queue`, in full batches.
    pub async fn send_all(&self, queue: &str, bodies: &[String]) {
        let url = self.url(queue).await;
        for batch in bodies.chunks(10) {
            let entry = |(position, body): (usize, &String)| {
                let entry =
                    SendMessageBatchRequestEntry::builder().id(position.to_string()).message_body(body);
                entry.build().expect("an entry")
            };
            let entries = batch.iter().enumerate().map(entry).collect();
            let sent =
                self.client.send_message_batch().queue_url(&url).set_entries(Some(entries)).send().await;
            assert!(sent.expect("SendMessageBatch").failed().is_empty());
        }
    }

    /// Puts a copy of `message` into `queue`: the same body, the same attributes.
    pub async fn send_copy(&self, queue: &str, message: &Message) {
        let body = message.body().expect("a message has a body");
        self.send_with(queue, body, message.message_attributes.clone().unwrap_or_default()).await;
    }

    /// Puts a message with this body and this text attribute into `queue`.
    pub async fn send_marked(&self, queue: &str, body: &str, name: &str, value: &str) {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value);
        let value = value.build().expect("an attribute");
        self.send_with(queue, body, HashMap::from([(name.to_owned(), value)])).await;
    }

    async fn send_with(&self, queue: &str, body: &str, attributes: HashMap<String, MessageAttributeValue>) {
        let send = self.client.send_message().queue_url(self.url(queue).await).message_body(body);
        send.set_message_attributes(Some(attributes)).send().await.expect("SendMessage");
    }

    /// Deletes a queue, as the sweep does with the reply queue of a process that is gone; it may have been faster.
    pub async fn delete(&self, queue: &str) {
        if self.names().await.iter().any(|name| name == queue) {
            let delete = self.client.delete_queue().queue_url(self.url(queue).await);
            delete.send().await.expect("DeleteQueue");
        }
    }

    async fn url(&self, queue: &str) -> String {
        let found = self.client.get_queue_url().queue_name(queue).send().await;
        found.unwrap_or_else(|error| panic!("{queue}: {error:?}")).queue_url.expect("a queue has a URL")
    }
}
