//! Tests of messages: send, receive, visibility, redrive, batches.

use aws_sdk_sqs::{
    error::ProvideErrorMetadata,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageAttributeValue, MessageSystemAttributeName as System, QueueAttributeName as Name,
        SendMessageBatchRequestEntry,
    },
};
use tokio::time::timeout;

use super::{Local, SOON};

async fn receive(local: &Local, queue_url: &str) -> Vec<Message> {
    let request = local.sqs.receive_message().queue_url(queue_url).max_number_of_messages(10);
    let request = request.message_system_attribute_names(System::All).message_attribute_names("All");
    request.send().await.unwrap().messages.unwrap_or_default()
}

async fn give_back(local: &Local, queue_url: &str, message: &Message) {
    let request = local.sqs.change_message_visibility().queue_url(queue_url).visibility_timeout(0);
    request.set_receipt_handle(message.receipt_handle.clone()).send().await.unwrap();
}

fn system(message: &Message, name: System) -> Option<&str> {
    message.attributes.as_ref()?.get(&name).map(String::as_str)
}

fn entry(id: &str, body: &str, delay_s: i32) -> SendMessageBatchRequestEntry {
    let entry = SendMessageBatchRequestEntry::builder().id(id).message_body(body).delay_seconds(delay_s);
    entry.build().unwrap()
}

async fn counts(local: &Local, queue_url: &str) -> [String; 3] {
    let names = [
        Name::ApproximateNumberOfMessages,
        Name::ApproximateNumberOfMessagesNotVisible,
        Name::ApproximateNumberOfMessagesDelayed,
    ];
    let request = local.sqs.get_queue_attributes().queue_url(queue_url);
    let answer = request.set_attribute_names(Some(names.to_vec())).send().await.unwrap();
    names.map(|name| answer.attributes().unwrap()[&name].clone())
}

#[tokio::test]
async fn a_message_comes_with_what_was_asked_for() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    let text = |value: &str| {
        MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
    };
    let send = local.sqs.send_message().queue_url(&queue).message_body("hello");
    send.message_attributes("kind", text("allocate"))
        .message_attributes("trace", text("00-1"))
        .send()
        .await
        .unwrap();

    let plain = local.sqs.receive_message().queue_url(&queue).visibility_timeout(0).send().await.unwrap();
    let plain = &plain.messages()[0];
    assert_eq!((plain.body(), &plain.attributes, &plain.message_attributes), (Some("hello"), &None, &None));
    assert_eq!(plain.md5_of_message_attributes, None, "no attributes, no digest of them");

    let full = receive(&local, &queue).await.remove(0);
    assert_eq!(full.message_attributes.as_ref().unwrap()["kind"].string_value(), Some("allocate"));
    assert!(full.md5_of_message_attributes.is_some());
    assert_eq!(system(&full, System::ApproximateReceiveCount), Some("2"));
    let sent_ms: u64 = system(&full, System::SentTimestamp).unwrap().parse().unwrap();
    assert!(sent_ms > 1_700_000_000_000, "milliseconds: {sent_ms}");
}

#[tokio::test]
async fn a_message_given_back_is_there_at_once() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    local.send(&queue, "once more").await;
    let first = receive(&local, &queue).await.remove(0);
    assert!(receive(&local, &queue).await.is_empty(), "in flight");
    give_back(&local, &queue, &first).await;
    let second = receive(&local, &queue).await.remove(0);
    assert_eq!(first.message_id, second.message_id);

    let again = local.sqs.change_message_visibility().queue_url(&queue).visibility_timeout(0);
    let void = again.set_receipt_handle(first.receipt_handle).send().await.unwrap_err();
    assert!(void.into_service_error().is_message_not_inflight());
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_message_is_sent_or_given_back() {
    let local = Local::start().await;
    let queue = local.queue("replies").await;
    let waiting = local.long_poll(&queue).await;
    local.send(&queue, "the answer").await;
    let woken = timeout(SOON, waiting).await.expect("woken before its wait is over").unwrap().unwrap();

    let waiting = local.long_poll(&queue).await;
    give_back(&local, &queue, &woken.messages()[0]).await;
    let again = timeout(SOON, waiting).await.expect("woken").unwrap().unwrap();
    assert_eq!(again.messages()[0].message_id, woken.messages()[0].message_id);
}

#[tokio::test]
async fn a_caller_who_left_takes_no_message_along() {
    let local = Local::start().await;
    let queue = local.queue("replies").await;
    local.long_poll(&queue).await.abort();
    local.some_calls().await;
    local.send(&queue, "for whoever is there").await;
    assert_eq!(receive(&local, &queue).await.len(), 1);
}

#[tokio::test]
async fn a_poison_message_moves_after_its_last_receive_and_keeps_its_count() {
    let local = Local::start().await;
    let dead = local.queue("requests-dlq").await;
    let policy =
        r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:requests-dlq","maxReceiveCount":"2"}"#;
    let create = local.sqs.create_queue().queue_name("requests").attributes(Name::RedrivePolicy, policy);
    let queue = create.send().await.unwrap().queue_url.unwrap();
    local.send(&queue, "poison").await;
    for received in ["1", "2"] {
        let message = receive(&local, &queue).await.remove(0);
        assert_eq!(system(&message, System::ApproximateReceiveCount), Some(received));
        give_back(&local, &queue, &message).await;
    }
    assert!(receive(&local, &queue).await.is_empty());

    let poll = local.sqs.receive_message().queue_url(&dead).wait_time_seconds(5);
    let poll = poll.message_system_attribute_names(System::ApproximateReceiveCount);
    let moved = timeout(SOON, poll.send()).await.expect("it moves").unwrap();
    let moved = &moved.messages()[0];
    assert_eq!(moved.body(), Some("poison"));
    assert_eq!(system(moved, System::ApproximateReceiveCount), Some("3"), "counted across queues");
    assert_eq!(system(moved, System::DeadLetterQueueSourceArn), None, "not asked for");
    give_back(&local, &dead, moved).await;
    let again = receive(&local, &dead).await.remove(0);
    let source = system(&again, System::DeadLetterQueueSourceArn);
    assert_eq!(source, Some("arn:aws:sqs:us-east-1:000000000000:requests"));
}

#[tokio::test]
async fn queues_are_counted_by_what_is_visible_in_flight_and_delayed() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    let batch = local.sqs.send_message_batch().queue_url(&queue);
    let batch = batch.entries(entry("a", "1", 0)).entries(entry("b", "2", 0)).entries(entry("c", "3", 0));
    assert_eq!(batch.entries(entry("d", "4", 900)).send().await.unwrap().successful().len(), 4);
    let received = local.sqs.receive_message().queue_url(&queue).send().await.unwrap();
    assert_eq!(counts(&local, &queue).await, ["2", "1", "1"]);

    let delete = local.sqs.delete_message().queue_url(&queue);
    delete.set_receipt_handle(received.messages()[0].receipt_handle.clone()).send().await.unwrap();
    assert_eq!(counts(&local, &queue).await, ["2", "0", "1"]);
}

#[tokio::test]
async fn a_batch_does_what_it_can_and_reports_the_rest() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    let batch = local.sqs.send_message_batch().queue_url(&queue);
    let batch = batch.entries(entry("good", "1", 0)).entries(entry("late", "2", 901)).entries(entry(
        "big",
        &"x".repeat(300_000),
        0,
    ));
    let sent = batch.send().await.unwrap();
    assert_eq!(sent.successful()[0].id(), "good");
    let mut failed: Vec<_> = sent.failed().iter().map(|entry| (entry.id(), entry.code())).collect();
    failed.sort_unstable();
    assert_eq!(failed, [("big", "InvalidParameterValue"), ("late", "InvalidParameterValue")]);

    let receipt = receive(&local, &queue).await.remove(0).receipt_handle.unwrap();
    let visibility = |id: &str, receipt: &str, visibility_s| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(receipt);
        entry.visibility_timeout(visibility_s).build().unwrap()
    };
    let changed = local.sqs.change_message_visibility_batch().queue_url(&queue);
    let changed =
        changed.entries(visibility("good", &receipt, 40)).entries(visibility("negative", &receipt, -1));
    let changed = changed.send().await.unwrap();
    assert_eq!((changed.successful()[0].id(), changed.failed()[0].id()), ("good", "negative"));

    let delete = |id: &str, receipt: &str| {
        DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(receipt).build().unwrap()
    };
    let deleted = local.sqs.delete_message_batch().queue_url(&queue);
    let deleted =
        deleted.entries(delete("good", &receipt)).entries(delete("bad", "no receipt")).send().await.unwrap();
    assert_eq!(deleted.successful()[0].id(), "good");
    assert_eq!((deleted.failed()[0].id(), deleted.failed()[0].code()), ("bad", "ReceiptHandleIsInvalid"));
}

#[tokio::test]
async fn a_batch_is_refused_as_a_whole_for_its_ids_and_size() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    let send = |entries: Vec<SendMessageBatchRequestEntry>| {
        local.sqs.send_message_batch().queue_url(&queue).set_entries(Some(entries)).send()
    };
    let eleven = (0..11).map(|id| entry(&id.to_string(), "x", 0)).collect();
    assert!(send(eleven).await.unwrap_err().into_service_error().is_too_many_entries_in_batch_request());
    assert!(send(vec![]).await.unwrap_err().into_service_error().is_empty_batch_request());
    let twins = vec![entry("a", "x", 0), entry("a", "y", 0)];
    assert!(send(twins).await.unwrap_err().into_service_error().is_batch_entry_ids_not_distinct());
    assert!(
        send(vec![entry("a b", "x", 0)]).await.unwrap_err().into_service_error().is_invalid_batch_entry_id()
    );
    let heavy = (0..5).map(|id| entry(&id.to_string(), &"x".repeat(250_000), 0)).collect();
    assert!(send(heavy).await.unwrap_err().into_service_error().is_batch_request_too_long());
    assert_eq!(counts(&local, &queue).await, ["0", "0", "0"]);
}

#[tokio::test]
async fn values_out_of_range_are_refused_and_harm_nobody() {
    let local = Local::start().await;
    let queue = local.queue("requests").await;
    let receive = || local.sqs.receive_message().queue_url(&queue);
    for wrong in [
        receive().visibility_timeout(-1),
        receive().wait_time_seconds(21),
        receive().max_number_of_messages(11),
        receive().max_number_of_messages(0),
    ] {
        assert_eq!(wrong.send().await.unwrap_err().code(), Some("InvalidParameterValue"));
    }
    let send = local.sqs.send_message().queue_url(&queue).message_body("x").delay_seconds(-1);
    assert_eq!(send.send().await.unwrap_err().code(), Some("InvalidParameterValue"));
    let delete = local.sqs.delete_message().queue_url(&queue).receipt_handle("x").send().await.unwrap_err();
    assert!(delete.into_service_error().is_receipt_handle_is_invalid());
    local.send(&queue, "still here").await;
    assert_eq!(counts(&local, &queue).await, ["1", "0", "0"]);
}
