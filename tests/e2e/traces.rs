//! Traces: one trace covers the life of a request through HTTP, the queues, a worker, the table, the provider, and back.

use std::collections::BTreeSet;

use broker_tests::collector::{Collector, Span};
use broker_tests::{Provider, Setup, story, wait_for_condition};
use http::Method;

/// A client's own trace, as its header says it.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{CLIENT}-0{}", u8::from(sampled))
}

/// The one span of this name under that parent.
fn child<'s>(spans: &'s [Span], parent: &str, name: &str) -> Result<&'s Span, String> {
    let found: Vec<_> = spans.iter().filter(|span| span.parent == parent && span.name == name).collect();
    match found[..] {
        [one] => Ok(one),
        _ => Err(format!("{} spans {name:?} under {parent:?} in {:#?}", found.len(), shown(spans))),
    }
}

fn shown(spans: &[Span]) -> Vec<String> {
    spans.iter().map(|s| format!("{} {} {} < {}", s.service, s.name, s.id, s.parent)).collect()
}

/// The poll that brought what `sender` sent, linked to it and the parent of nothing.
fn poll_of<'s>(spans: &'s [Span], sender: &Span, name: &str) -> Result<&'s Span, String> {
    let link = (sender.trace.clone(), sender.id.clone());
    let poll = spans.iter().find(|span| span.name == name && span.links.contains(&link));
    poll.ok_or_else(|| format!("no {name:?} with a link to {link:?}"))
}

#[tokio::test]
async fn one_trace_tells_the_whole_life_of_an_allocation() {
    let collector = Collector::start().await;
    story(collector.setup().pool(3), async |broker| {
        let call = broker.allocate("student-1").header("traceparent", traceparent(true));
        let answer = call.send().await.expect_status(201);
        let (requests, replies) = (broker.queues().name("requests"), broker.queues().name("replies-*"));

        collector
            .until("the whole trace", |spans| {
                let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
                let request = child(&ours, CLIENT, "POST /v1/allocate")?;
                let sent = child(&ours, &request.id, &format!("send {requests}"))?;
                let processed = child(&ours, &sent.id, &format!("process {requests}"))?;
                let claimed = child(&ours, &processed.id, "DynamoDB.TransactWriteItems")?;
                let replied = child(&ours, &processed.id, &format!("send {replies}"))?;
                let woken = child(&ours, &replied.id, &format!("process {replies}"))?;
                let polls = [
                    poll_of(spans, sent, &format!("receive {requests}"))?,
                    poll_of(spans, replied, &format!("receive {replies}"))?,
                ];

                let kinds = [request, sent, processed, claimed, replied, woken].map(|s| s.kind.as_str());
                assert_eq!(kinds, ["Server", "Producer", "Consumer", "Client", "Producer", "Consumer"]);
                let services =
                    [request, sent, processed, claimed, replied, woken].map(|s| s.service.as_str());
                let (api, worker) = ("broker-api", "broker-worker");
                assert_eq!(services, [api, api, worker, worker, worker, api]);

                assert_eq!(request.says("http.request.method"), "POST");
                assert_eq!(request.says("http.route"), "/v1/allocate");
                assert_eq!(request.says("http.response.status_code"), "201");
                assert_eq!(request.says("broker.outcome"), "created");
                assert_eq!(request.says("broker.request_id"), answer.text_of("request_id"));
                assert_eq!(processed.says("broker.request_id"), answer.text_of("request_id"));
                assert_eq!(processed.says("broker.receives"), "1");
                assert_eq!(claimed.says("broker.transition"), "claim");
                assert_eq!(claimed.says("db.system.name"), "aws.dynamodb");
                for (span, operation) in [(sent, "send"), (processed, "process"), (polls[0], "receive")] {
                    assert_eq!(span.says("messaging.system"), "aws_sqs");
                    assert_eq!(span.says("messaging.operation.name"), operation);
                    assert_eq!(span.says("messaging.destination.name"), requests);
                }
                for (span, operation) in [(replied, "send"), (woken, "process"), (polls[1], "receive")] {
                    assert_eq!(span.says("messaging.operation.name"), operation);
                    assert_eq!(span.says("messaging.destination.template"), replies);
                    assert_eq!(span.says("messaging.destination.name"), "", "a raw name");
                }
                for poll in polls {
                    assert!(poll.parent.is_empty() && poll.trace != TRACE, "{poll:#?}");
                    assert!(poll.time.0 <= poll.time.1, "{poll:#?}");
                }
                assert!(!ours.iter().any(|span| span.failed), "{ours:#?}");
                // What happens within something ends within it.
                for (inner, outer) in [(sent, request), (claimed, processed), (replied, processed)] {
                    assert!(inner.time.0 >= outer.time.0 && inner.time.1 <= outer.time.1, "{inner:#?}");
                }
                Ok(())
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn one_trace_follows_a_deletion_to_the_provider() {
    let (collector, provider) = (Collector::start().await, Provider::start(2).await);
    story(collector.trace(provider.setup()).pool(2), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201);
        let sandbox = held.sandbox_id().to_owned();
        broker.return_sandbox(&sandbox, "student-1").send().await.expect_status(200);
        broker.lists_are_current().await;
        let cleanup = broker.api(0).call(Method::POST, "/v1/admin/cleanup");
        let cleanup = cleanup.token(broker_tests::api::ADMIN_TOKEN).header("traceparent", traceparent(true));
        cleanup.send().await.expect_status(200);
        wait_for_condition("the sandbox to be deleted", async || match broker.stats().await {
            stats if stats.deleted == 1 => Ok(()),
            stats => Err(stats),
        })
        .await;

        let maintenance = broker.queues().name("maintenance");
        let asked = collector
            .until("the whole trace", |spans| {
                let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
                let request = child(&ours, CLIENT, "POST /v1/admin/cleanup")?;
                let sent = child(&ours, &request.id, &format!("send {maintenance}"))?;
                let job = child(&ours, &sent.id, &format!("process {maintenance}"))?;
                let planned = child(&ours, &job.id, &format!("send {maintenance}"))?;
                let deletion = child(&ours, &planned.id, &format!("process {maintenance}"))?;
                let asked = child(&ours, &deletion.id, "DELETE /sandbox/accounts/{uuid}")?;
                assert_eq!((job.says("broker.kind"), deletion.says("broker.kind")), ("run_job", "delete"));
                assert_eq!(asked.says("http.response.status_code"), "204");
                assert_eq!((asked.kind.as_str(), asked.service.as_str()), ("Client", "broker-worker"));
                poll_of(spans, planned, &format!("receive {maintenance}"))?;
                let is_write = |s: &&Span| s.parent == deletion.id && s.name == "DynamoDB.UpdateItem";
                let [call, tombstone] = ours.iter().filter(is_write).collect::<Vec<_>>()[..] else {
                    return Err(format!("the slot of the call, and the tombstone: {:#?}", shown(&ours)));
                };
                for write in [call, tombstone] {
                    assert_eq!(write.says("db.operation.name"), "UpdateItem");
                }
                let looked = ours.iter().any(|s| s.parent == job.id && s.name == "DynamoDB.Query");
                assert!(looked, "what is due: {:#?}", shown(&ours));
                Ok(asked.id.clone())
            })
            .await;
        let told = provider.world().await.deletions[0].traceparent.clone();
        assert_eq!(told.as_deref(), Some(format!("00-{TRACE}-{asked}-01").as_str()));
    })
    .await;
}

#[tokio::test]
async fn a_traceparent_that_is_none_is_ignored_and_one_that_is_not_recorded_stays_so() {
    let collector = Collector::start().await;
    story(collector.setup().pool(10), async |broker| {
        let bad = ["", "00", "garbage", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"];
        for (n, bad) in bad.into_iter().enumerate() {
            let call = broker.allocate(&format!("bad-{n}")).header("traceparent", bad);
            call.send().await.expect_status(201);
        }
        let binary = broker.allocate("binary").header("traceparent", b"\xff\xfe");
        binary.send().await.expect_status(201);
        let twice = broker.allocate("twice").header("traceparent", traceparent(true));
        twice.another("traceparent", traceparent(true)).send().await.expect_status(201);
        let unrecorded = broker.allocate("unrecorded").header("traceparent", traceparent(false));
        unrecorded.send().await.expect_status(201);

        let traces = collector
            .until("six traces that begin here", |spans| {
                let roots = spans.iter().filter(|s| s.name == "POST /v1/allocate" && s.parent.is_empty());
                let traces: BTreeSet<_> = roots.map(|span| span.trace.clone()).collect();
                if traces.len() == 6 { Ok(traces) } else { Err(format!("{traces:?}")) }
            })
            .await;
        assert!(!traces.contains(TRACE));
        assert!(collector.spans().iter().all(|span| span.trace != TRACE), "not recorded means nowhere");
        assert!(broker.logs().contains(TRACE), "it is logged all the same");
    })
    .await;
}

#[tokio::test]
async fn where_traces_begin_the_ratio_decides_and_probes_have_none() {
    let collector = Collector::start().await;
    story(collector.setup().pool(3).var("BROKER_TRACE_RATIO", "0"), async |broker| {
        broker.allocate("student-1").send().await.expect_status(201);
        broker.api(0).probe("/readyz").await.expect("an answer");
        let recorded = broker.allocate("student-2").header("traceparent", traceparent(true));
        recorded.send().await.expect_status(201);
        collector
            .until("the trace that its caller wants", |spans| {
                child(spans, CLIENT, "POST /v1/allocate").map(|_| ())
            })
            .await;
        let spans = collector.spans();
        assert!(spans.iter().all(|s| s.trace == TRACE || !s.links.is_empty()), "{:#?}", shown(&spans));
    })
    .await;
}

#[tokio::test]
async fn a_traceparent_reaches_the_worker_also_where_nothing_is_traced() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        let call = broker.allocate("student-1").header("traceparent", traceparent(true)).respond_async();
        let queued = call.send().await.expect_status(202);
        let messages = broker.queues().peek(&broker.queues().name("requests")).await;
        let body: serde_json::Value =
            serde_json::from_str(messages[0].body().expect("a body")).expect("JSON");
        assert_eq!(body["traceparent"], traceparent(true));
        broker.start_worker().await;
        broker.outcome(queued.must_have("location"), "student-1").await;
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_is_away_disturbs_nobody_and_no_drain() {
    let mut collector = Collector::start().await;
    collector.leave().await;
    // The story's end drains every process, with spans that no collector accepts.
    story(collector.setup().pool(3), async |broker| {
        for n in 0..3 {
            broker.allocate(&format!("student-{n}")).send().await.expect_status(201);
        }
        wait_for_condition("both sides to notice", async || {
            let noticed = |log: &str| log.matches("the collector does not take spans").count();
            match noticed(&broker.logs()) {
                2.. => Ok(()),
                fewer => Err(fewer),
            }
        })
        .await;
        let first = broker.allocate("student-0").send().await.expect_status(200);
        broker.return_sandbox(first.sandbox_id(), "student-0").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_no_drain() {
    // Connections are accepted by the kernel, and never read.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    story(Setup::new().pool(3).var("BROKER_OTLP_ENDPOINT", &url), async |broker| {
        for n in 0..3 {
            broker.allocate(&format!("student-{n}")).send().await.expect_status(201);
        }
    })
    .await;
}
