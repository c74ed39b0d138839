//! Tests of queues and their attributes.

use std::collections::HashMap;

use aws_sdk_sqs::{
    error::ProvideErrorMetadata,
    operation::{create_queue::CreateQueueError, start_message_move_task::StartMessageMoveTaskError},
    types::QueueAttributeName as Name,
};
use tokio::{task::JoinSet, time::timeout};

use super::{Local, SOON};

async fn attribute(local: &Local, queue_url: &str, name: Name) -> Option<String> {
    let asked = local.sqs.get_queue_attributes().queue_url(queue_url).attribute_names(name.clone());
    asked.send().await.unwrap().attributes?.remove(&name)
}

#[tokio::test]
async fn queue_urls_lead_to_the_endpoint() {
    let local = Local::start().await;
    let url = local.queue("requests").await;
    assert_eq!(url, format!("{}/000000000000/requests", local.endpoints.sqs_url));
    let found = local.sqs.get_queue_url().queue_name("requests").send().await.unwrap();
    assert_eq!(found.queue_url(), Some(url.as_str()));
}

#[tokio::test]
async fn tags_given_at_creation_are_kept() {
    let local = Local::start().await;
    let created =
        local.sqs.create_queue().queue_name("replies").tags("instance", "api-1").send().await.unwrap();
    let tags = local.sqs.list_queue_tags().queue_url(created.queue_url.unwrap()).send().await.unwrap();
    assert_eq!(tags.tags, Some(HashMap::from([("instance".to_owned(), "api-1".to_owned())])));
}

#[tokio::test]
async fn a_receive_limit_may_be_written_as_a_string() {
    let local = Local::start().await;
    let dead = local.queue("dead").await;
    let arn = attribute(&local, &dead, Name::QueueArn).await.unwrap();
    let policy = format!(r#"{{ "maxReceiveCount": "5", "deadLetterTargetArn": "{arn}" }}"#);

    let created = local
        .sqs
        .create_queue()
        .queue_name("at-creation")
        .attributes(Name::RedrivePolicy, &policy)
        .send()
        .await;
    let at_creation = created.unwrap().queue_url.unwrap();
    let later = local.queue("later").await;
    let set = local.sqs.set_queue_attributes().queue_url(&later).attributes(Name::RedrivePolicy, &policy);
    set.send().await.unwrap();

    for queue in [&at_creation, &later] {
        let stored = attribute(&local, queue, Name::RedrivePolicy).await.unwrap();
        assert_eq!(stored, format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":5}}"#));
    }
    let sources = local.sqs.list_dead_letter_source_queues().queue_url(&dead).send().await.unwrap();
    let mut sources = sources.queue_urls;
    sources.sort();
    assert_eq!(sources, [at_creation, later]);
}

#[tokio::test]
async fn a_redrive_policy_must_make_sense() {
    let local = Local::start().await;
    let arn = attribute(&local, &local.queue("dead").await, Name::QueueArn).await.unwrap();
    for policy in [
        format!(r#"{{"deadLetterTargetArn":"{arn}-not","maxReceiveCount":5}}"#),
        format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":0}}"#),
        format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"many"}}"#),
        "{}".to_owned(),
    ] {
        let create = local.sqs.create_queue().queue_name("requests").attributes(Name::RedrivePolicy, &policy);
        let refused = create.send().await.expect_err(&policy);
        assert_eq!(refused.code(), Some("InvalidParameterValue"), "{policy}");
    }
}

#[tokio::test]
async fn creating_a_queue_again_finds_it_unless_attributes_differ() {
    let local = Local::start().await;
    let arn = attribute(&local, &local.queue("dead").await, Name::QueueArn).await.unwrap();
    let create = |visibility: &str, policy: Option<String>| {
        let create = local.sqs.create_queue().queue_name("requests");
        let create = create.attributes(Name::VisibilityTimeout, visibility);
        policy.map_or(create.clone(), |policy| create.attributes(Name::RedrivePolicy, policy)).send()
    };
    let written =
        |count: &str| Some(format!(r#"{{"maxReceiveCount": {count}, "deadLetterTargetArn": "{arn}"}}"#));

    let first = create("60", None).await.unwrap();
    assert_eq!(create("60", None).await.unwrap().queue_url, first.queue_url);
    for differs in [create("61", None).await, create("60", written("5")).await] {
        let refused = differs.unwrap_err().into_service_error();
        assert!(matches!(refused, CreateQueueError::QueueNameExists(_)), "{refused:?}");
    }

    let set = local.sqs.set_queue_attributes().queue_url(first.queue_url().unwrap());
    set.attributes(Name::RedrivePolicy, written("5").unwrap()).send().await.unwrap();
    assert_eq!(create("60", written("\"5\"")).await.unwrap().queue_url, first.queue_url);
    create("60", written("6")).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creating_one_queue_many_times_at_once_loses_no_message() {
    let local = Local::start().await;
    for round in 0..20 {
        let name = format!("requests-{round}");
        let mut creators = JoinSet::new();
        for body in 0..16 {
            let create = local.sqs.create_queue().queue_name(&name);
            let send = local.sqs.send_message().message_body(body.to_string());
            creators.spawn(async move {
                let url = create.send().await.unwrap().queue_url.unwrap();
                send.queue_url(url).send().await.unwrap();
            });
        }
        creators.join_all().await;
        let url = local.queue(&name).await;
        let messages = attribute(&local, &url, Name::ApproximateNumberOfMessages).await;
        assert_eq!(messages.as_deref(), Some("16"), "{name}");
    }
}

#[tokio::test]
async fn the_sdk_recognises_that_a_queue_is_missing() {
    let local = Local::start().await;
    let url = local.queue("short-lived").await;
    local.sqs.delete_queue().queue_url(&url).send().await.unwrap();

    let found = local.sqs.get_queue_url().queue_name("short-lived").send().await.unwrap_err();
    assert!(found.into_service_error().is_queue_does_not_exist());
    let sent = local.sqs.send_message().queue_url(&url).message_body("late").send().await.unwrap_err();
    assert!(sent.into_service_error().is_queue_does_not_exist());
    let received = local.sqs.receive_message().queue_url(&url).send().await.unwrap_err();
    assert!(received.into_service_error().is_queue_does_not_exist());
    let deleted = local.sqs.delete_queue().queue_url(&url).send().await.unwrap_err();
    assert!(deleted.into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn a_long_poll_ends_when_its_queue_is_deleted() {
    let local = Local::start().await;
    let url = local.queue("short-lived").await;
    let poll = local.long_poll(&url).await;
    local.sqs.delete_queue().queue_url(&url).send().await.unwrap();
    let ended = timeout(SOON, poll).await.expect("the poll ends").unwrap().unwrap_err();
    assert!(ended.into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn attributes_are_all_set_or_none() {
    let local = Local::start().await;
    let url = local.queue("requests").await;
    let set = local.sqs.set_queue_attributes().queue_url(&url).attributes(Name::VisibilityTimeout, "99");
    let refused = set.attributes(Name::DelaySeconds, "-1").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidParameterValue"));
    assert_eq!(attribute(&local, &url, Name::VisibilityTimeout).await.as_deref(), Some("30"));

    let none = local.sqs.get_queue_attributes().queue_url(&url).send().await.unwrap();
    assert_eq!(none.attributes.unwrap_or_default(), HashMap::new(), "none asked for, none given");
    let unknown = local.sqs.get_queue_attributes().queue_url(&url).attribute_names("Colour".into());
    assert!(unknown.send().await.unwrap_err().into_service_error().is_invalid_attribute_name());
}

#[tokio::test]
async fn pages_of_queues_end() {
    let local = Local::start().await;
    for name in ["a-1", "a-2", "a-3", "b-1", "b-2"] {
        local.queue(name).await;
    }
    let list = local.sqs.list_queues().queue_name_prefix("a-").max_results(2);
    let first = list.clone().send().await.unwrap();
    assert_eq!(first.queue_urls().len(), 2);
    let last = list.set_next_token(first.next_token).send().await.unwrap();
    assert_eq!((last.queue_urls().len(), last.next_token), (1, None));
}

#[tokio::test]
async fn a_move_task_is_an_unsupported_operation() {
    let local = Local::start().await;
    let arn = attribute(&local, &local.queue("dead").await, Name::QueueArn).await.unwrap();
    let refused =
        local.sqs.start_message_move_task().source_arn(arn).send().await.unwrap_err().into_service_error();
    assert!(matches!(refused, StartMessageMoveTaskError::UnsupportedOperation(_)), "{refused:?}");
}
