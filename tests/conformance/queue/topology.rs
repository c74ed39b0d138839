//! Topology: queues are created once, corrected, listed, deleted; redrive; and a missing one.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use broker_queue::topology::{self, QueueChange};
use broker_queue::{
    Acknowledger, QueueError, QueueKind, QueueUrls, ReceiveEnd, ReplySenders, SendError, Sender,
};
use tokio::time::timeout;

use super::Receiving;
use crate::place::{Place, VISIBILITY};

#[tokio::test]
async fn queues_are_made_once_and_mended() {
    let place = Place::empty().await;
    let ensure = async |visibility| {
        let told = topology::ensure(&place.aws, &place.names, visibility).await.expect("made");
        told.into_iter().map(|(_, ensured)| ensured).collect::<Vec<_>>()
    };
    assert_eq!(ensure(VISIBILITY).await, [const { QueueChange::Created }; 4]);
    assert_eq!(ensure(VISIBILITY).await, [const { QueueChange::AsItWas }; 4]);
    let mended = QueueChange::Changed(vec!["VisibilityTimeout".to_owned()]);
    let expected = [QueueChange::AsItWas, mended.clone(), QueueChange::AsItWas, mended];
    assert_eq!(ensure(Duration::from_secs(45)).await, expected);

    let urls = QueueUrls::resolve(&place.aws, &place.names).await.expect("there");
    let asked = place.aws.sqs.get_queue_attributes().queue_url(urls.get(QueueKind::Requests).url());
    let told = asked.attribute_names(QueueAttributeName::All).send().await.expect("GetQueueAttributes");
    let told = told.attributes.expect("attributes");
    let expected = [
        (QueueAttributeName::MessageRetentionPeriod, "345600"),
        (QueueAttributeName::ReceiveMessageWaitTimeSeconds, "20"),
        (QueueAttributeName::VisibilityTimeout, "45"),
    ];
    for (name, value) in expected {
        assert_eq!(told.get(&name).map(String::as_str), Some(value), "{name:?}");
    }
}

#[tokio::test]
async fn several_may_make_them_at_once() {
    let place = Place::empty().await;
    let ensure = || topology::ensure(&place.aws, &place.names, VISIBILITY);
    let (one, two, three) = tokio::join!(ensure(), ensure(), ensure());
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?} {two:?} {three:?}");
}

#[tokio::test]
async fn missing_queues_are_told() {
    let place = Place::empty().await;
    let missing = QueueUrls::resolve(&place.aws, &place.names).await;
    assert!(matches!(missing, Err(QueueError::Missing { .. })), "{missing:?}");
}

#[tokio::test]
async fn what_is_received_too_often_moves_with_its_attributes_and_its_past() {
    let (place, urls) = Place::with_queues().await;
    let (queue, dead) = (urls.get(QueueKind::Requests), urls.get(QueueKind::RequestsDlq));
    Sender::new(place.aws.sqs.clone(), queue.clone(), 1).send("poison".to_owned()).await.expect("sent");
    let acks = Acknowledger::new(place.aws.sqs.clone(), queue.clone(), 1);
    let mut receiving = Receiving::start(&place, &queue, None);
    let mut first = None;
    for count in 1..=5 {
        let delivery = receiving.next().await;
        assert_eq!(delivery.receive_count, count);
        acks.make_visible_after(&delivery.receipt, Duration::ZERO).await.expect("given back");
        first = first.or(Some(delivery));
    }
    let first = first.expect("received");
    let letter = Receiving::start(&place, &dead, None).next().await;
    assert_eq!((&letter.body, &letter.message_id), (&first.body, &first.message_id));
    assert!(letter.receive_count >= 1);
    let source = letter.dead_letter_source.expect("where it came from");
    assert!(source.ends_with(&place.names.name(QueueKind::Requests)), "{source}");
    receiving.brought_nothing_more().await;
}

#[tokio::test]
async fn reply_queues_come_are_listed_and_go() {
    let (place, urls) = Place::with_queues().await;
    let mut names = Vec::new();
    for _ in 0..3 {
        // Making it twice is what a retried call does.
        let id = place.entropy.uuid();
        let (name, _) = topology::create_reply_queue(&place.aws, &urls, id, None).await.expect("made");
        assert_eq!(topology::create_reply_queue(&place.aws, &urls, id, None).await.expect("made").0, name);
        names.push(name);
    }
    names.sort();
    let listed = async || {
        let mut listed = topology::reply_queues(&place.aws, &place.names).await.expect("listed");
        listed.sort();
        listed
    };
    assert_eq!(listed().await, names);
    for _ in 0..2 {
        topology::delete_reply_queue(&place.aws, &urls, &names[0]).await.expect("gone, however often");
    }
    assert_eq!(listed().await, names[1..]);
}

#[tokio::test]
async fn a_queue_that_is_gone_is_told_to_sender_and_receiver() {
    let (place, urls) = Place::with_queues().await;
    let (name, queue) =
        topology::create_reply_queue(&place.aws, &urls, place.entropy.uuid(), None).await.expect("made");
    let senders = ReplySenders::new(place.aws.sqs.clone(), urls.clone(), 1, 8);
    senders.send(&name, "reply".to_owned()).await.expect("sent");
    let mut receiving = Receiving::start(&place, &queue, None);
    assert_eq!(receiving.next().await.body, "reply");
    topology::delete_reply_queue(&place.aws, &urls, &name).await.expect("deleted");
    let late = senders.send(&name, "late".to_owned()).await;
    assert!(matches!(late, Err(SendError::Gone { .. })), "{late:?}");
    let patience = broker_tests::wait::PATIENCE;
    let ended = timeout(patience, receiving.run).await.expect("it ends").expect("no panic");
    assert_eq!(ended, ReceiveEnd::QueueGone);
}
