//! Tests of the receiver: polls, permits and failures.

use rustack_sqs_model::error::SqsErrorCode;
use rustack_sqs_model::operations::SqsOperation::ReceiveMessage;
use tokio::sync::watch;
use uuid::Uuid;

use super::endpoint::requests;
use super::*;
use crate::{QueueUrls, Sender, topology};

async fn send(sqs: &Sqs, queue: &Queue, count: usize) {
    let sender = Sender::new(sqs.aws.sqs.clone(), queue.clone(), 1);
    let mut sends = tokio::task::JoinSet::new();
    for item in 0..count {
        let sender = sender.clone();
        sends.spawn(async move { sender.send(format!("{item:03}")).await });
    }
    sends.join_all().await.into_iter().for_each(|sent| sent.expect("sent"));
}

async fn polling(sqs: &Sqs) {
    until("a poll is under way", || async { sqs.under_way(ReceiveMessage) > 0 }).await;
}

#[tokio::test]
async fn no_more_is_received_than_there_are_permits() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = requests(&urls);
    send(&sqs, &queue, 12).await;
    let (receiver, permits) = with_permits(&sqs, queue.clone(), 3);
    let mut receiving = Receiving::start(receiver);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(receiving.next().await);
    }
    assert!(held.iter().all(|(_, permit)| permit.as_ref().is_some_and(|permit| permit.num_permits() == 1)));
    assert_eq!((permits.available_permits(), sqs.depth(&queue).await), (0, (9, 3)));
    assert!(receiving.handed_on.try_recv().is_err());
    held.pop();
    held.push(receiving.next().await);
    assert_eq!(sqs.depth(&queue).await, (8, 4));
    drop(held);
    assert_eq!(receiving.bodies(8).await.len(), 8);
    assert_eq!(receiving.stop().await, ReceiveEnd::Stopped);
    assert_eq!(permits.available_permits(), 3, "every permit came back");
}

#[tokio::test]
async fn one_poll_waits_while_the_queue_is_quiet_and_more_come_with_the_load() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = requests(&urls);
    let mut receiving = Receiving::start(receiver(&sqs, queue.clone()));
    polling(&sqs).await;
    assert_eq!(sqs.most_at_once(ReceiveMessage), 1);
    send(&sqs, &queue, 200).await;
    assert_eq!(receiving.bodies(200).await.len(), 200);
    until("several polls were under way", || async { sqs.most_at_once(ReceiveMessage) > 1 }).await;
    assert!(sqs.most_at_once(ReceiveMessage) <= options().max_polls);
    until("one poll is left", || async { sqs.under_way(ReceiveMessage) <= 1 }).await;
    assert_eq!(receiving.stop().await, ReceiveEnd::Stopped);
}

#[tokio::test]
async fn nothing_is_received_while_the_gate_is_closed() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = requests(&urls);
    send(&sqs, &queue, 1).await;
    let (open, gate) = watch::channel(false);
    let (receiver, permits) = with_permits(&sqs, queue.clone(), 5);
    let mut receiving = Receiving::start(receiver.with_gate(gate));
    // The depth takes several round trips, in which a poll would have been sent.
    assert_eq!(sqs.depth(&queue).await, (1, 0));
    assert_eq!((sqs.asked(ReceiveMessage), permits.available_permits()), (0, 5));
    open.send_replace(true);
    assert_eq!(receiving.bodies(1).await, ["000"]);
    open.send_replace(false);
    until("the last poll ended", || async { sqs.under_way(ReceiveMessage) == 0 }).await;
    assert_eq!(receiving.stop().await, ReceiveEnd::Stopped);
}

#[tokio::test]
async fn a_poll_under_way_when_told_to_stop_still_hands_on_what_it_brings() {
    let (sqs, urls) = Sqs::with_queues().await;
    let mut receiving = Receiving::start(receiver(&sqs, requests(&urls)));
    polling(&sqs).await;
    receiving.stop.cancel();
    let polls = sqs.asked(ReceiveMessage);
    assert_eq!(sqs.depth(&requests(&urls)).await, (0, 0));
    assert!(!receiving.run.is_finished(), "it waits for the poll");
    send(&sqs, &requests(&urls), 1).await;
    assert_eq!(receiving.bodies(1).await, ["000"]);
    assert_eq!(receiving.stop().await, ReceiveEnd::Stopped);
    assert_eq!(sqs.asked(ReceiveMessage), polls, "no poll was started after the stop");
}

#[tokio::test]
async fn a_poll_outlives_the_future_that_started_it() {
    let (sqs, urls) = Sqs::with_queues().await;
    let mut receiving = Receiving::start(receiver(&sqs, requests(&urls)));
    polling(&sqs).await;
    receiving.run.abort();
    until("the receiver is gone", || async { receiving.run.is_finished() }).await;
    send(&sqs, &requests(&urls), 1).await;
    assert_eq!(receiving.bodies(1).await, ["000"]);
}

#[tokio::test]
async fn failed_polls_are_repeated_without_spinning() {
    let (sqs, urls) = Sqs::with_queues().await;
    sqs.fail(ReceiveMessage, 2, SqsErrorCode::InternalError);
    let began = sqs.clock.instant();
    let mut receiving = Receiving::start(receiver(&sqs, requests(&urls)));
    send(&sqs, &requests(&urls), 1).await;
    assert_eq!(receiving.bodies(1).await, ["000"]);
    let took = sqs.clock.instant() - began;
    assert!(took >= Duration::from_millis(375), "two waits of at least 125 and 250 ms, not {took:?}");
    assert!(sqs.asked(ReceiveMessage) <= 4, "{} polls", sqs.asked(ReceiveMessage));
}

async fn reply_queue(sqs: &Sqs, urls: &QueueUrls) -> Queue {
    topology::create_reply_queue(&sqs.aws, urls, Uuid::from_u128(1), None).await.expect("created").1
}

#[tokio::test]
async fn the_owner_is_told_when_the_queue_is_gone() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = reply_queue(&sqs, &urls).await;
    send(&sqs, &queue, 1).await;
    let mut receiving = Receiving::start(receiver(&sqs, queue));
    assert_eq!(receiving.bodies(1).await, ["000"]);
    let name = sqs.names.reply(Uuid::from_u128(1));
    topology::delete_reply_queue(&sqs.aws, &urls, &name).await.expect("deleted");
    let ended = tokio::time::timeout(PATIENCE, receiving.run).await.expect("it ends").expect("no panic");
    assert_eq!(ended, ReceiveEnd::QueueGone);
}

#[tokio::test]
async fn the_owner_is_told_while_another_poll_of_the_lost_queue_still_waits() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = requests(&urls);
    // Two full polls make it two at a time: the third waits, and the fourth finds no queue.
    send(&sqs, &queue, 20).await;
    sqs.fail_after(ReceiveMessage, 3, SqsErrorCode::NonExistentQueue);
    let patient = PollOptions { wait: Duration::from_secs(20), ..options() };
    let (client, clock, entropy) = (sqs.aws.sqs_receive.clone(), sqs.clock.clone(), sqs.entropy.clone());
    let mut receiving = Receiving::start(Receiver::new(client, queue.clone(), clock, entropy, patient));
    assert_eq!(receiving.bodies(20).await.len(), 20);
    until("it is told", || async { receiving.run.is_finished() }).await;
    assert_eq!((sqs.asked(ReceiveMessage), sqs.under_way(ReceiveMessage)), (4, 1));
    send(&sqs, &queue, 1).await;
    assert_eq!(receiving.bodies(1).await, ["000"], "what the other poll brings is handed on");
    assert_eq!(receiving.run.await.expect("no panic"), ReceiveEnd::QueueGone);
}
