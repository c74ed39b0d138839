//! Messages: batches and their failures, attributes, delays, visibility, long polls.

use std::time::Duration;

use broker_queue::{AcknowledgeError, Acknowledger, Outgoing, Queue, QueueKind, SendError, Sender, topology};
use broker_tests::together;

use super::Receiving;
use crate::place::{Place, VISIBILITY};

fn sender(place: &Place, queue: &Queue) -> Sender {
    Sender::new(place.aws.sqs.clone(), queue.clone(), 1)
}

fn acks(place: &Place, queue: &Queue) -> Acknowledger {
    Acknowledger::new(place.aws.sqs.clone(), queue.clone(), 1)
}

/// Visible, in flight, delayed.
async fn depth(place: &Place, queue: &Queue) -> (u64, u64, u64) {
    let depth = topology::depth(&place.aws, queue, queue.label().to_string()).await.expect("measured");
    (depth.visible, depth.in_flight, depth.delayed)
}

#[tokio::test]
async fn what_is_sent_in_batches_comes_once_to_several_receivers() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    let sender = sender(&place, &queue);
    let sends = (0..45).map(|n| {
        let sender = sender.clone();
        async move { sender.send(format!("{n:02}")).await }
    });
    for sent in together(sends.collect::<Vec<_>>()).await {
        sent.expect("sent");
    }
    let (mut one, mut two) = (Receiving::start(&place, &queue, None), Receiving::start(&place, &queue, None));
    let mut bodies = Vec::new();
    while bodies.len() < 45 {
        tokio::select! {
            delivery = one.next() => bodies.push(delivery.body),
            delivery = two.next() => bodies.push(delivery.body),
        }
    }
    bodies.sort();
    assert_eq!(bodies, (0..45).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    assert_eq!(depth(&place, &queue).await, (0, 45, 0));
    one.brought_nothing_more().await;
    two.brought_nothing_more().await;
}

#[tokio::test]
async fn a_message_brings_its_attributes_and_its_history() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::RequestsDlq);
    let before = place.clock.now();
    let text = "reason: ünïcode, \"quotes\", {\"json\": 1}";
    let message = Outgoing::from(text.to_owned())
        .with_attribute("reason_code", "poison")
        .with_attribute("reason", text);
    sender(&place, &queue).send(message).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, None);
    let first = receiving.next().await;
    assert_eq!((first.body.as_str(), first.receive_count), (text, 1));
    assert_eq!(first.attributes["reason_code"], "poison");
    assert_eq!(first.attributes["reason"], text);
    assert_eq!(first.dead_letter_source, None);
    let minute = Duration::from_secs(60);
    assert!(first.sent_at >= before.minus(minute) && first.first_received_at >= first.sent_at.minus(minute));

    acks(&place, &queue).make_visible_after(&first.receipt, Duration::ZERO).await.expect("given back");
    let again = receiving.next().await;
    assert_eq!((again.receive_count, &again.message_id), (2, &first.message_id));
    assert_eq!((again.sent_at, again.first_received_at), (first.sent_at, first.first_received_at));
    assert_ne!(again.receipt, first.receipt);
}

/// A message that SQS refuses takes no other of its batch with it.
#[tokio::test]
async fn a_refused_entry_fails_alone() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    let sender = sender(&place, &queue);
    // Not a character of XML 1.0.
    let (good, bad, also_good) = tokio::join!(
        sender.send("good".to_owned()),
        sender.send("bad \u{0} body".to_owned()),
        sender.send("also good".to_owned()),
    );
    good.and(also_good).expect("sent");
    // DIFFERENCE: the embedded endpoint takes any character; ministack refuses this one, as AWS does.
    assert_eq!(matches!(bad, Err(SendError::Refused { .. })), place.differs(false, true), "{bad:?}");
    let sent = place.differs(3, 2);
    assert_eq!(depth(&place, &queue).await, (sent, 0, 0));
}

#[tokio::test]
async fn a_message_of_the_largest_size_that_the_broker_sends_is_taken_and_a_larger_one_fails_alone() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    let sender = sender(&place, &queue);
    sender.send("x".repeat(256 * 1024)).await.expect("sent");
    let (larger, beside) =
        tokio::join!(sender.send("x".repeat(2 * 1024 * 1024)), sender.send("1".to_owned()));
    assert!(matches!(larger, Err(SendError::Refused { .. })), "{larger:?}");
    beside.expect("sent");
    // A source takes no more. DIFFERENCE: another queue takes 256 KiB of the embedded endpoint, 1 MiB of AWS and ministack.
    let dlq = urls.get(QueueKind::RequestsDlq);
    let between = self::sender(&place, &dlq).send("x".repeat(300 * 1024)).await;
    assert_eq!(between.is_ok(), place.differs(false, true), "{between:?}");
}

#[tokio::test]
async fn a_delayed_message_waits() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Maintenance);
    let later = Outgoing::from("later".to_owned()).with_delay(Duration::from_secs(2));
    let sender = sender(&place, &queue);
    sender.send(later).await.expect("sent");
    sender.send("now".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, None);
    assert_eq!(receiving.next().await.body, "now", "though it was sent after it");
    let later = receiving.next().await;
    assert_eq!(later.body, "later");
    assert!(place.clock.now().since(later.sent_at) >= Duration::from_secs(1), "it waited");
}

#[tokio::test]
async fn a_deleted_message_is_gone_and_deleting_it_twice_harms_nobody() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    sender(&place, &queue).send("once".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, None);
    let delivery = receiving.next().await;
    let acks = acks(&place, &queue);
    acks.delete(&delivery.receipt).await.expect("deleted");
    assert_eq!(depth(&place, &queue).await, (0, 0, 0));
    // DIFFERENCE: both refuse it; AWS takes the receipt of a message that is gone (DeleteMessage, "may succeed").
    let again = acks.delete(&delivery.receipt).await;
    assert!(matches!(again, Ok(()) | Err(AcknowledgeError::Lapsed { .. })), "{again:?}");
    let given_back = acks.make_visible_after(&delivery.receipt, Duration::ZERO).await;
    assert!(matches!(given_back, Err(AcknowledgeError::Lapsed { .. })), "{given_back:?}");
    receiving.brought_nothing_more().await;
}

#[tokio::test]
async fn what_nobody_settles_comes_back() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    sender(&place, &queue).send("again".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, Some(Duration::from_secs(1)));
    let first = receiving.next().await;
    let second = receiving.next().await;
    assert_eq!((first.receive_count, second.receive_count), (1, 2));
}

#[tokio::test]
async fn what_is_kept_hidden_does_not_come_back() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    sender(&place, &queue).send("mine".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, Some(Duration::from_secs(2)));
    let delivery = receiving.next().await;
    acks(&place, &queue).make_visible_after(&delivery.receipt, VISIBILITY).await.expect("hidden for longer");
    // What is sent when its first visibility timeout is over comes, it does not.
    let marker = Outgoing::from("marker".to_owned()).with_delay(Duration::from_secs(3));
    sender(&place, &queue).send(marker).await.expect("sent");
    assert_eq!(receiving.next().await.body, "marker");
    assert_eq!(depth(&place, &queue).await, (0, 2, 0));
}

#[tokio::test]
async fn a_poll_that_waits_is_woken_by_what_is_sent() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    let mut receiving = Receiving::start(&place, &queue, None);
    for body in ["1", "2", "3"] {
        sender(&place, &queue).send(body.to_owned()).await.expect("sent");
        assert_eq!(receiving.next().await.body, body);
    }
    receiving.brought_nothing_more().await;
}

#[tokio::test]
async fn a_queue_tells_how_full_it_is() {
    let (place, urls) = Place::with_queues().await;
    let queue = urls.get(QueueKind::Requests);
    let sender = sender(&place, &queue);
    sender.send("1".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, None);
    receiving.next().await;
    receiving.brought_nothing_more().await;
    for body in ["2", "3"] {
        sender.send(body.to_owned()).await.expect("sent");
    }
    sender.send(Outgoing::from("4".to_owned()).with_delay(VISIBILITY)).await.expect("sent");
    assert_eq!(depth(&place, &queue).await, (2, 1, 1));
}
