//! Tests of acknowledgement: deletions, visibility, and their failures.

use rustack_sqs_model::error::SqsErrorCode;
use rustack_sqs_model::operations::SqsOperation::{ChangeMessageVisibilityBatch, DeleteMessageBatch};

use super::endpoint::requests;
use super::*;
use crate::{AcknowledgeError, Acknowledger, QueueKind, QueueUrls, Sender};

/// Two received messages, and what is needed to acknowledge them.
async fn two_received(sqs: &Sqs, urls: &QueueUrls) -> (Receiving, Acknowledger, [Delivery; 2]) {
    let queue = requests(urls);
    let sender = Sender::new(sqs.aws.sqs.clone(), queue.clone(), 1);
    let (one, two) = tokio::join!(sender.send("1".to_owned()), sender.send("2".to_owned()));
    one.and(two).expect("sent");
    let mut receiving = Receiving::start(receiver(sqs, queue.clone()));
    let deliveries = [receiving.next().await.0, receiving.next().await.0];
    (receiving, Acknowledger::new(sqs.aws.sqs.clone(), queue, 2), deliveries)
}

#[tokio::test]
async fn deleted_messages_are_gone_and_share_a_call() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (_receiving, acks, [one, two]) = two_received(&sqs, &urls).await;
    let (first, second) = tokio::join!(acks.delete(&one.receipt), acks.delete(&two.receipt));
    first.and(second).expect("deleted");
    assert_eq!((sqs.depth(&requests(&urls)).await, sqs.asked(DeleteMessageBatch)), ((0, 0), 1));
}

#[tokio::test]
async fn a_message_given_back_is_received_again_at_once_and_counted() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (mut receiving, acks, [one, _]) = two_received(&sqs, &urls).await;
    acks.make_visible_after(&one.receipt, Duration::ZERO).await.expect("given back");
    let (again, _) = receiving.next().await;
    assert_eq!((again.body, again.message_id, again.receive_count), (one.body, one.message_id, 2));
}

#[tokio::test]
async fn a_receipt_that_lapsed_is_an_outcome_of_its_own_caller() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (_receiving, acks, [one, two]) = two_received(&sqs, &urls).await;
    acks.delete(&one.receipt).await.expect("deleted");
    let year = Duration::from_secs(365 * 86_400);
    let (lapsed, kept) = tokio::join!(
        acks.make_visible_after(&one.receipt, year),
        acks.make_visible_after(&two.receipt, year)
    );
    assert!(matches!(lapsed, Err(AcknowledgeError::Lapsed { .. })), "{lapsed:?}");
    kept.expect("clamped to 12 hours");
    assert_eq!(sqs.asked(ChangeMessageVisibilityBatch), 1);
}

#[tokio::test]
async fn an_endpoint_that_fails_leaves_the_message_for_later() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (_receiving, acks, [one, _]) = two_received(&sqs, &urls).await;
    sqs.fail(DeleteMessageBatch, 3, SqsErrorCode::InternalError);
    let failed = acks.delete(&one.receipt).await;
    assert!(matches!(failed, Err(AcknowledgeError::Unavailable { .. })), "{failed:?}");
    acks.delete(&one.receipt).await.expect("deleted now");
}

#[tokio::test]
async fn a_message_stays_hidden_while_it_is_kept_and_comes_back_when_it_is_not() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (mut receiving, acks, [one, two]) = two_received(&sqs, &urls).await;
    let second = Duration::from_secs(1);
    acks.delete(&two.receipt).await.expect("deleted");
    acks.make_visible_after(&one.receipt, second).await.expect("hidden for a second");
    let kept = acks.keep_hidden(&one.receipt, second);
    // Three extensions, half a second apart: without them the message would have come back by then.
    until("extended", || async { sqs.asked(ChangeMessageVisibilityBatch) >= 4 }).await;
    assert!(receiving.handed_on.try_recv().is_err(), "it was hidden all the time");
    assert!(!kept.has_lapsed());
    drop(kept);
    assert_eq!(receiving.next().await.0.receive_count, 2);
}

#[tokio::test]
async fn keeping_a_message_ends_when_it_is_no_longer_ours() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (_receiving, acks, [one, _]) = two_received(&sqs, &urls).await;
    let kept = acks.keep_hidden(&one.receipt, Duration::from_millis(20));
    acks.delete(&one.receipt).await.expect("deleted");
    until("it gave up", || async { kept.has_lapsed() }).await;
}

#[tokio::test]
async fn what_is_given_back_too_often_ends_in_the_dead_letter_queue() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (mut receiving, acks, deliveries) = two_received(&sqs, &urls).await;
    for delivery in deliveries {
        acks.make_visible_after(&delivery.receipt, Duration::ZERO).await.expect("given back");
    }
    for _ in 0..8 {
        let (delivery, _) = receiving.next().await;
        assert!(delivery.receive_count <= 5);
        acks.make_visible_after(&delivery.receipt, Duration::ZERO).await.expect("given back");
    }
    let mut dead = Receiving::start(receiver(&sqs, urls.get(QueueKind::RequestsDlq)));
    assert_eq!(dead.bodies(2).await, ["1", "2"]);
}
