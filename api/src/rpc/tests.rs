//! Tests of request and reply without AWS. Replies, and how a 202 ends, are covered by `tests/e2e` against real queues.

use std::sync::Arc;
use std::time::Duration;

use broker_domain::{
    AllocateRequest, Fingerprint, IdempotencyKey, LabDuration, LeaseKey, RequestState, ReturnRequest,
    SandboxId, Subject, TenantName, Timestamp, TrackId,
};
use broker_messages::{Request, RequestMessage};
use broker_queue::{Queue, QueueNames, ReplyQueueName, Sender};
use broker_runtime::aws;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_store::Store;
use tokio_util::task::TaskTracker;

use crate::response::codes::Code;
use crate::rpc::backlog::RequestBacklog;
use crate::rpc::reply_queue::{Channel, Link};
use crate::rpc::reply_router::ReplyRouter;
use crate::rpc::{PendingRequest, RequestReply, pending};

/// An address without a listener.
const NOWHERE: &str = "http://127.0.0.1:1";
const NOW: Timestamp = Timestamp::from_secs(1_000);

fn reply_to() -> ReplyQueueName {
    QueueNames::new("p").unwrap().reply(Entropy::seeded(1).uuid())
}

fn tenant() -> TenantName {
    TenantName::new("platform").unwrap()
}

/// A `RequestReply` whose AWS is down; `linked` if it was up before.
async fn away(most_pending: usize, linked: bool) -> RequestReply {
    let clock = Clock::manual(NOW);
    let aws = aws::connect_locally(NOWHERE, NOWHERE, &clock, Duration::ZERO);
    let sender = |name: &str| Sender::new(aws.sqs.clone(), Queue::new(format!("{NOWHERE}/{name}"), name), 1);
    let (requests, maintenance) = (sender("p-requests"), sender("p-maintenance"));
    RequestReply {
        link: Link::fixed(linked.then(|| Channel {
            requests,
            maintenance,
            reply_to: reply_to(),
            table_is_written: Arc::default(),
        })),
        replies: ReplyRouter::new(most_pending, most_pending),
        store: Store::new(aws.dynamodb, "table", 1),
        clock,
        entropy: Entropy::seeded(1),
        lifecycle: Lifecycle::new(),
        backlog: RequestBacklog::default(),
        async_rate: None,
        drain: Duration::from_secs(30),
        lingering: TaskTracker::new(),
    }
}

fn allocate(rpc: &RequestReply, asynchronous: bool) -> Request {
    let track = TrackId::new("student-1").unwrap();
    let wait = Duration::from_secs(10);
    Request::Allocate(AllocateRequest {
        request_id: Entropy::seeded(2).request_id(NOW),
        lease_key: LeaseKey { key: IdempotencyKey::new("intent").unwrap(), track },
        key_is_explicit: true,
        fingerprint: Fingerprint::of([Some("a")]),
        track_name: None,
        prefix: None,
        lab_duration: LabDuration::new(4).unwrap(),
        heartbeat: None,
        may_wait: false,
        limited: false,
        tenant: Some(tenant()),
        asynchronous,
        times: if asynchronous { rpc.times_of_async() } else { rpc.times(wait) },
    })
}

#[tokio::test]
async fn without_queues_no_request_is_sent_and_no_call_waits() {
    let rpc = away(10, false).await;
    let problem = rpc.call(&allocate(&rpc, false), &tenant()).await.unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
    let problem = rpc.enqueue(&allocate(&rpc, true), &tenant()).await.unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
    assert_eq!(rpc.replies.pending(), 0);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_a_503_with_its_cause_and_leaves_no_waiter() {
    let rpc = away(10, true).await;
    let problem = rpc.call(&allocate(&rpc, false), &tenant()).await.unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
    assert!(problem.cause_chain().is_some(), "the log is told why");
    assert_eq!(rpc.replies.pending(), 0);
}

#[tokio::test]
async fn an_asynchronous_request_that_cannot_be_recorded_is_a_503() {
    let rpc = away(10, true).await;
    let problem = rpc.enqueue(&allocate(&rpc, true), &tenant()).await.unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_shed_and_not_sent() {
    let rpc = away(0, true).await;
    let problem = rpc.call(&allocate(&rpc, false), &tenant()).await.unwrap_err();
    assert_eq!(problem.code(), Code::Overloaded);
    assert!(problem.cause_chain().is_none(), "no send was tried");
}

#[tokio::test]
async fn a_request_may_be_claimed_for_a_minute_at_least_and_an_asynchronous_one_for_fifteen() {
    let rpc = away(1, false).await;
    let times = rpc.times(Duration::from_secs(10));
    assert_eq!((times.enqueued_at, times.reply_by), (NOW, NOW.plus(Duration::from_secs(10))));
    assert_eq!(times.deadline, NOW.plus(Duration::from_secs(60)));
    let times = rpc.times_of_async();
    assert_eq!((times.reply_by, times.deadline), (NOW, NOW.plus(Duration::from_secs(900))));
}

#[tokio::test]
async fn a_record_says_what_its_message_says() {
    let rpc = away(1, false).await;
    let mark = Request::Return(ReturnRequest {
        request_id: Entropy::seeded(3).request_id(NOW),
        track: TrackId::new("student-1").unwrap(),
        sandbox_id: SandboxId::new("sandbox-1").unwrap(),
        times: rpc.times(Duration::ZERO),
    });
    for request in [allocate(&rpc, true), allocate(&rpc, false), mark] {
        let PendingRequest { times, text, record } = pending(&request, &tenant(), &reply_to(), None);
        let message = RequestMessage::decode(&text).unwrap();
        assert_eq!(record.message.as_deref(), Some(text.as_str()));
        assert_eq!(message.tenant, Some(tenant()));
        assert_eq!(Request::from(&message), request);
        assert_eq!((record.request_id, record.asynchronous), (message.request_id, message.asynchronous));
        assert_eq!((record.created_at, record.deadline), (times.enqueued_at, times.deadline));
        assert_eq!(record.state, RequestState::Queued);
        match request {
            Request::Allocate(ask) => assert_eq!(record.subject, Subject::Allocate(ask.lease_key)),
            Request::Return(mark) => assert_eq!(record.subject, Subject::Return(mark.sandbox_id)),
        }
    }
}
