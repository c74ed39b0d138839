//! Tests of the topology: queues created, corrected, measured and deleted.

use aws_sdk_sqs::types::QueueAttributeName;
use metrics_exporter_prometheus::PrometheusBuilder;
use uuid::Uuid;

use super::endpoint::requests;
use super::*;
use crate::topology::{self, QueueChange};
use crate::{QueueKind, QueueNames, QueueUrls, Sender};

const VISIBILITY: Duration = Duration::from_secs(30);

#[tokio::test]
async fn queues_are_made_once_and_left_alone_after_that() {
    let sqs = Sqs::empty().await;
    let first = topology::ensure(&sqs.aws, &sqs.names, VISIBILITY).await.expect("made");
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["test-requests-dlq", "test-requests", "test-maintenance-dlq", "test-maintenance"]);
    assert!(first.iter().all(|(_, ensured)| *ensured == QueueChange::Created), "{first:?}");
    let again = topology::ensure(&sqs.aws, &sqs.names, VISIBILITY).await.expect("found");
    assert!(again.iter().all(|(_, ensured)| *ensured == QueueChange::AsItWas), "{again:?}");
}

#[tokio::test]
async fn attributes_that_drifted_are_put_right() {
    let (sqs, urls) = Sqs::with_queues().await;
    let queue = requests(&urls);
    let drift = sqs.aws.sqs.set_queue_attributes().queue_url(queue.url());
    let drift = drift.attributes(QueueAttributeName::MessageRetentionPeriod, "60");
    drift.send().await.expect("set");
    let ensured = topology::ensure(&sqs.aws, &sqs.names, Duration::from_secs(45)).await.expect("put right");
    let changed =
        |attributes: &[&str]| QueueChange::Changed(attributes.iter().map(ToString::to_string).collect());
    let ensured: Vec<_> = ensured.into_iter().map(|(_, ensured)| ensured).collect();
    let expected = [
        QueueChange::AsItWas,
        changed(&["MessageRetentionPeriod", "VisibilityTimeout"]),
        QueueChange::AsItWas,
        changed(&["VisibilityTimeout"]),
    ];
    assert_eq!(ensured, expected);
}

#[tokio::test]
async fn several_may_make_the_queues_at_once() {
    let sqs = Sqs::empty().await;
    let ensure = || topology::ensure(&sqs.aws, &sqs.names, VISIBILITY);
    let (one, two, three) = tokio::join!(ensure(), ensure(), ensure());
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?} {two:?} {three:?}");
    QueueUrls::resolve(&sqs.aws, &sqs.names).await.expect("all are there");
}

#[tokio::test]
async fn a_missing_queue_says_what_to_do() {
    let sqs = Sqs::empty().await;
    let missing = QueueUrls::resolve(&sqs.aws, &sqs.names).await.expect_err("nothing is there");
    assert_eq!(missing.to_string(), "queue test-requests-dlq does not exist: run `broker init`");
}

#[tokio::test]
async fn derived_urls_are_those_that_sqs_tells() {
    let (sqs, urls) = Sqs::with_queues().await;
    for kind in QueueKind::ALL {
        let told = sqs.aws.sqs.get_queue_url().queue_name(sqs.names.name(kind)).send().await.expect("there");
        assert_eq!(told.queue_url(), Some(urls.get(kind).url()));
    }
}

#[tokio::test]
async fn a_reply_queue_is_encrypted_with_the_key_that_is_configured() {
    let (sqs, urls) = Sqs::with_queues().await;
    for (id, key) in [(1, Some("alias/replies")), (2, None)] {
        let (_, queue) =
            topology::create_reply_queue(&sqs.aws, &urls, Uuid::from_u128(id), key).await.expect("created");
        let asked = sqs.aws.sqs.get_queue_attributes().queue_url(queue.url());
        let found = asked.attribute_names(QueueAttributeName::KmsMasterKeyId).send().await.expect("there");
        let found = found.attributes().and_then(|all| all.get(&QueueAttributeName::KmsMasterKeyId));
        assert_eq!(found.map(String::as_str), key);
    }
}

#[tokio::test]
async fn our_reply_queues_are_listed_and_no_others() {
    let (sqs, urls) = Sqs::with_queues().await;
    let mut created = Vec::new();
    for id in 1..=3 {
        let (name, _) =
            topology::create_reply_queue(&sqs.aws, &urls, Uuid::from_u128(id), None).await.expect("created");
        created.push(name);
    }
    for foreign in ["test-replies-by-hand", "test2-replies-00000000-0000-0000-0000-000000000009"] {
        sqs.aws.sqs.create_queue().queue_name(foreign).send().await.expect("created");
    }
    let listed = || async {
        let mut names = topology::reply_queues(&sqs.aws, &sqs.names).await.expect("listed");
        names.sort();
        names
    };
    assert_eq!(listed().await, created);
    for _ in 0..2 {
        topology::delete_reply_queue(&sqs.aws, &urls, &created[0]).await.expect("deleting twice is fine");
    }
    assert_eq!(listed().await, created[1..]);
}

#[tokio::test]
async fn depths_tell_visible_and_in_flight_by_queue() {
    let (sqs, urls) = Sqs::with_queues().await;
    let sender = Sender::new(sqs.aws.sqs.clone(), requests(&urls), 1);
    for body in ["1", "2", "3"] {
        sender.send(body.to_owned()).await.expect("sent");
    }
    let (receiver, _permits) = with_permits(&sqs, requests(&urls), 1);
    let mut receiving = Receiving::start(receiver);
    let _held = receiving.next().await;
    let depths = topology::depths(&sqs.aws, &urls).await.expect("measured");
    let depths: Vec<_> =
        depths.iter().map(|depth| (depth.queue.as_str(), depth.visible, depth.in_flight)).collect();
    let expected = [
        ("test-requests", 2, 1),
        ("test-maintenance", 0, 0),
        ("test-requests-dlq", 0, 0),
        ("test-maintenance-dlq", 0, 0),
    ];
    assert_eq!(depths, expected);
}

#[tokio::test]
async fn every_call_is_counted_by_outcome_and_sets_the_clock() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (sqs, urls) = Sqs::with_queues().await;
    assert!(sqs.clock.is_trusted(), "the Date of the answers was compared");
    let receive = sqs.aws.sqs_receive.receive_message().queue_url(requests(&urls).url());
    receive.wait_time_seconds(0).send().await.expect("nothing came");
    let missing = QueueNames::new("none").expect("a valid prefix");
    QueueUrls::resolve(&sqs.aws, &missing).await.expect_err("not there");
    let rendered = recorder.handle().render();
    for line in [
        r#"broker_aws_calls_total{service="sqs",operation="CreateQueue",outcome="ok"} 4"#,
        r#"broker_aws_calls_total{service="sqs",operation="ReceiveMessage",outcome="empty"} 1"#,
        // Two for each source and its dead-letter queue when they were made, one now.
        r#"broker_aws_calls_total{service="sqs",operation="GetQueueUrl",outcome="not_found"} 5"#,
    ] {
        assert!(rendered.contains(line), "{line} is not in\n{rendered}");
    }
    assert!(rendered.contains("broker_aws_call_seconds"), "{rendered}");
}
