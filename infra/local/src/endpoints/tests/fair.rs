//! Tests of fair queues: what a group of thousands costs the next message of another.

use aws_sdk_sqs::types::{
    Message, MessageSystemAttributeName as System, QueueAttributeName as Name, SendMessageBatchRequestEntry,
};
use tokio::time::timeout;

use super::{Local, SOON};

/// Sends a batch of `group`; the ids that were told.
async fn send(
    local: &Local,
    queue_url: &str,
    group: &str,
    bodies: impl Iterator<Item = usize>,
) -> Vec<String> {
    let mut told = Vec::new();
    let entries: Vec<_> = bodies
        .map(|n| {
            let entry = SendMessageBatchRequestEntry::builder().id(n.to_string());
            entry.message_body(format!("{group}-{n}")).message_group_id(group).build().unwrap()
        })
        .collect();
    for batch in entries.chunks(10) {
        let request = local.sqs.send_message_batch().queue_url(queue_url);
        let output = request.set_entries(Some(batch.to_vec())).send().await.unwrap();
        assert!(output.failed().is_empty(), "{output:?}");
        told.extend(output.successful().iter().map(|sent| sent.message_id().to_owned()));
    }
    told
}

async fn receive(local: &Local, queue_url: &str) -> Vec<Message> {
    let request = local.sqs.receive_message().queue_url(queue_url).max_number_of_messages(10);
    let request = request.message_system_attribute_names(System::All).message_attribute_names("All");
    request.send().await.unwrap().messages.unwrap_or_default()
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::body).collect()
}

async fn visible(local: &Local, queue_url: &str) -> String {
    let request = local.sqs.get_queue_attributes().queue_url(queue_url);
    let answer = request.attribute_names(Name::ApproximateNumberOfMessages).send().await.unwrap();
    answer.attributes().unwrap()[&Name::ApproximateNumberOfMessages].clone()
}

#[tokio::test]
async fn a_quiet_group_takes_turns_with_one_of_thousands() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    send(&local, &queue, "greedy", 0..2_000).await;
    let told = send(&local, &queue, "quiet", 0..3).await;
    assert_eq!(visible(&local, &queue).await, "2003");

    let first = receive(&local, &queue).await;
    assert_eq!(
        bodies(&first),
        [
            "greedy-0", "quiet-0", "greedy-1", "quiet-1", "greedy-2", "quiet-2", "greedy-3", "greedy-4",
            "greedy-5", "greedy-6"
        ]
    );
    let quiet = &first[1];
    assert_eq!(quiet.message_id(), Some(told[0].as_str()));
    assert_eq!(quiet.attributes().unwrap()[&System::MessageGroupId], "quiet");
    assert_eq!(quiet.attributes().unwrap()[&System::ApproximateReceiveCount], "1");
    assert_eq!(quiet.message_attributes(), None);
    assert_eq!(visible(&local, &queue).await, "1993");

    let mut rest = Vec::new();
    while let messages = receive(&local, &queue).await
        && !messages.is_empty()
    {
        rest.extend(messages);
    }
    assert_eq!(rest.len(), 1_993, "each once");
    assert_eq!(bodies(&rest)[1_992], "greedy-1999", "in the group's order");
}

#[tokio::test]
async fn a_receive_that_waits_gets_a_message_of_a_group_at_once() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    for round in 0..3 {
        let poll = local.long_poll(&queue).await;
        send(&local, &queue, "one", round..round + 1).await;
        let received = timeout(SOON, poll).await.expect("it is told at once").unwrap().unwrap();
        assert_eq!(bodies(received.messages()), [format!("one-{round}")]);
    }
}

#[tokio::test]
async fn a_dead_message_hides_no_line_and_keeps_its_id() {
    let local = Local::start().await;
    let dead = local.queue("requests-dlq").await;
    let arn = "arn:aws:sqs:us-east-1:000000000000:requests-dlq";
    let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":1}}"#);
    let request = local.sqs.create_queue().queue_name("requests").attributes(Name::RedrivePolicy, policy);
    let queue = request.send().await.unwrap().queue_url.unwrap();
    let told = send(&local, &queue, "a", 0..1).await;
    let message = receive(&local, &queue).await.remove(0);
    send(&local, &queue, "a", 1..2).await;
    let back = local.sqs.change_message_visibility().queue_url(&queue).visibility_timeout(0);
    back.set_receipt_handle(message.receipt_handle).send().await.unwrap();

    let one = local.sqs.receive_message().queue_url(&queue).send().await.unwrap();
    assert_eq!(bodies(one.messages()), ["a-1"]);
    let waits = local.sqs.receive_message().queue_url(&dead).wait_time_seconds(5).send().await.unwrap();
    assert_eq!(waits.messages()[0].message_id(), Some(told[0].as_str()));
}

#[tokio::test]
async fn what_is_purged_or_deleted_is_gone_from_the_lines_too() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    send(&local, &queue, "a", 0..20).await;
    local.sqs.purge_queue().queue_url(&queue).send().await.unwrap();
    assert_eq!(visible(&local, &queue).await, "0");
    assert!(receive(&local, &queue).await.is_empty());

    send(&local, &queue, "a", 0..20).await;
    local.sqs.delete_queue().queue_url(&queue).send().await.unwrap();
    let sent =
        local.sqs.send_message().queue_url(&queue).message_body("x").message_group_id("a").send().await;
    assert!(sent.unwrap_err().into_service_error().is_queue_does_not_exist());
    let again = local.queue("requests").await;
    assert_eq!(visible(&local, &again).await, "0");
    assert!(receive(&local, &again).await.is_empty());
}
