//! Tests of the senders: batches, refused entries and failures.

use std::error::Error as _;

use rustack_sqs_model::error::SqsErrorCode;
use rustack_sqs_model::operations::SqsOperation::{SendMessage, SendMessageBatch};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::endpoint::{aws_at, requests};
use super::*;
use crate::{Outgoing, QueueKind, ReplySenders, SendError, Sender, topology};
use broker_runtime::clock::Clock;

fn sender(sqs: &Sqs, queue: Queue) -> Sender {
    Sender::new(sqs.aws.sqs.clone(), queue, Sender::MAX_IN_FLIGHT)
}

#[tokio::test]
async fn a_message_arrives_with_its_attributes_and_times() {
    let (sqs, urls) = Sqs::with_queues().await;
    let before = sqs.clock.now();
    let message = Outgoing::from("hello".to_owned())
        .with_attribute("reason_code", "malformed")
        .with_attribute("empty", "");
    sender(&sqs, requests(&urls)).send(message).await.expect("sent");
    let (delivery, permit) = Receiving::start(receiver(&sqs, requests(&urls))).next().await;
    assert_eq!((delivery.body.as_str(), delivery.receive_count), ("hello", 1));
    assert!(delivery.sent_at >= before.floor_to_second() && delivery.first_received_at >= delivery.sent_at);
    assert_eq!(
        delivery.attributes.into_iter().collect::<Vec<_>>(),
        [("reason_code".to_owned(), "malformed".to_owned())]
    );
    assert!(permit.is_none() && !delivery.receipt.is_empty() && !delivery.message_id.is_empty());
}

#[tokio::test]
async fn a_hundred_at_once_go_in_few_batches_and_all_arrive() {
    let (sqs, urls) = Sqs::with_queues().await;
    let sender = sender(&sqs, requests(&urls));
    let mut sends = JoinSet::new();
    for item in 0..100 {
        let sender = sender.clone();
        sends.spawn(async move { sender.send(format!("{item:03}")).await });
    }
    sends.join_all().await.into_iter().for_each(|sent| sent.expect("sent"));
    let calls = sqs.asked(SendMessageBatch);
    assert!((10..=13).contains(&calls), "{calls} calls for 100 messages");
    assert_eq!(sqs.asked(SendMessage), 0);
    let mut receiving = Receiving::start(receiver(&sqs, requests(&urls)));
    let expected: Vec<_> = (0..100).map(|item| format!("{item:03}")).collect();
    assert_eq!(receiving.bodies(100).await, expected);
}

#[tokio::test]
async fn a_delayed_message_is_not_visible_yet() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = urls.get(QueueKind::Maintenance);
    let message = Outgoing::from("later".to_owned()).with_delay(Duration::from_secs(86_400));
    sender(&sqs, queue.clone()).send(message).await.expect("the delay is clamped to what SQS takes");
    let depth = topology::depth(&sqs.aws, &queue, "maintenance".to_owned()).await.expect("measured");
    assert_eq!((depth.visible, depth.delayed), (0, 1));
}

#[tokio::test]
async fn a_message_that_sqs_refuses_takes_no_other_with_it() {
    let (sqs, urls) = Sqs::with_queues().await;
    let sender = sender(&sqs, requests(&urls));
    let (good, bad, also_good) = tokio::join!(
        sender.send("good".to_owned()),
        sender.send("x".repeat(300 * 1024)),
        sender.send("also good".to_owned()),
    );
    assert!(matches!(&bad, Err(error @ SendError::Refused { .. }) if !error.is_retryable()), "{bad:?}");
    good.and(also_good).expect("sent");
    assert_eq!(sqs.depth(&requests(&urls)).await, (2, 0));
}

#[tokio::test]
async fn a_batch_refused_as_a_whole_is_sent_one_by_one() {
    let (sqs, urls) = Sqs::with_queues().await;
    let sender = sender(&sqs, requests(&urls));
    sqs.fail(SendMessageBatch, 2, SqsErrorCode::InvalidParameterValue);
    let (one, two, three) =
        tokio::join!(sender.send("1".to_owned()), sender.send("2".to_owned()), sender.send("3".to_owned()));
    assert!(matches!(one, Err(SendError::Refused { .. })), "the second refusal was for it alone: {one:?}");
    two.and(three).expect("sent");
    assert_eq!((sqs.asked(SendMessageBatch), sqs.depth(&requests(&urls)).await), (4, (2, 0)));
}

#[tokio::test]
async fn a_failing_endpoint_is_tried_three_times() {
    let (sqs, urls) = Sqs::with_queues().await;
    let sender = sender(&sqs, requests(&urls));
    sqs.fail(SendMessageBatch, 2, SqsErrorCode::InternalError);
    sender.send("third time lucky".to_owned()).await.expect("sent");
    sqs.fail(SendMessageBatch, 3, SqsErrorCode::InternalError);
    let failed = sender.send("no luck".to_owned()).await;
    assert!(
        matches!(&failed, Err(error @ SendError::Unavailable { .. }) if error.is_retryable()),
        "{failed:?}"
    );
    assert_eq!(sqs.asked(SendMessageBatch), 6);
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_unavailable_with_its_cause() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let aws = aws_at(&url, &Clock::system());
    let sender = Sender::new(aws.sqs, Queue::new(format!("{url}/0/q"), "q"), 1);
    let error = sender.send("a message".to_owned()).await.expect_err("no endpoint");
    assert!(error.is_retryable() && error.source().is_some(), "{error:?}");
}

#[tokio::test]
async fn a_reply_to_a_process_that_ended_finds_its_queue_gone() {
    let (sqs, urls) = Sqs::with_queues().await;
    let (name, queue) =
        topology::create_reply_queue(&sqs.aws, &urls, Uuid::from_u128(1), None).await.expect("created");
    let replies = ReplySenders::new(sqs.aws.sqs.clone(), urls.clone(), 4, 8);
    replies.send(&name, "reply".to_owned()).await.expect("sent");
    assert_eq!((sqs.depth(&queue).await, replies.kept()), ((1, 0), 1));
    topology::delete_reply_queue(&sqs.aws, &urls, &name).await.expect("deleted");
    let late = replies.send(&name, "late".to_owned()).await;
    assert!(matches!(&late, Err(error @ SendError::Gone { .. }) if !error.is_retryable()), "{late:?}");
    assert_eq!(replies.kept(), 0, "a queue that is gone is forgotten");
}

#[tokio::test]
async fn the_reply_sender_least_recently_used_makes_room() {
    let (sqs, urls) = Sqs::with_queues().await;
    let replies = ReplySenders::new(sqs.aws.sqs.clone(), urls.clone(), 1, 2);
    let mut names = Vec::new();
    for id in 1..=3 {
        let (name, _) =
            topology::create_reply_queue(&sqs.aws, &urls, Uuid::from_u128(id), None).await.expect("created");
        names.push(name);
    }
    for index in [0, 1, 0, 2] {
        replies.send(&names[index], "reply".to_owned()).await.expect("sent");
    }
    let kept: Vec<_> = names.iter().map(|name| replies.keeps(name)).collect();
    assert_eq!(kept, [true, false, true]);
}
