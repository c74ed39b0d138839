//! Errors of AWS that pass: credentials that expired, rights that are missing, a key of KMS that is off, an
//! index that is being built. It ends no request. What it says of one message for ever ends that message, with a reason.

use broker_tests::{
    Answer, Broker, Fault, Outage, Rule, Setup, ShapedService, story, together, wait_for_condition,
};

/// What a worker calls of the table; the API's own writes go on.
const OF_WORKERS: &[&str] = &["BatchGetItem", "ExecuteStatement", "GetItem", "Query", "TransactWriteItems"];

fn setup() -> Setup {
    Setup::new().apis(1).workers(2).pool(60).faults(1).var("BROKER_VISIBILITY_S", "2")
}

fn refusing(code: &'static str, operations: &[&str]) -> Rule {
    operations.iter().fold(Rule::new(Fault::Refuse(code)), |rule, operation| rule.on(operation))
}

/// Waits until a worker takes no messages: one whose own calls failed. The other may have received none.
async fn a_gate_is_closed(broker: &Broker) {
    wait_for_condition("a worker to stop receiving", async || {
        let mut said = Vec::new();
        for worker in [0, 1] {
            said.push(broker.worker(worker).metrics().probe("/readyz").await.map(|(status, _)| status));
        }
        if said.contains(&Some(503)) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Calls that meet `code` to `operations`, and what becomes of them once it is over.
async fn passes(broker: &Broker, code: &'static str, operations: &[&str]) {
    let track = |kind: &str, n: u64| format!("{kind}-{code}-{}-{n}", operations.len());
    broker.proxy().add(refusing(code, operations));
    let calls: Vec<_> = (0..5).map(|n| broker.allocate(&track("sync", n)).wait(45).send()).collect();
    let calls = tokio::spawn(together(calls));
    let mut queued = Vec::new();
    for n in 0..3 {
        let call = broker.allocate(&track("async", n)).respond_async();
        queued.push((track("async", n), call.send().await.expect_status(202)));
    }
    a_gate_is_closed(broker).await;
    broker.proxy().calm();
    for answer in calls.await.expect("answers") {
        answer.expect_status(201);
    }
    for (track, answer) in queued {
        let outcome = broker.outcome(answer.must_have("location"), &track).await;
        assert_eq!(outcome.text_of("status"), "succeeded", "{code} to {operations:?}: {outcome:?}");
    }
}

/// Waits for these dead letters and discards them.
async fn discard(broker: &Broker, count: usize, reason: &str) {
    broker.holds_letters(count).await;
    let found = broker.letters(&["--reason", reason]).await.len();
    assert_eq!(found, count, "{:#?}", broker.open_letters().await);
    let done = broker.discard(&["--all"]).await.done;
    assert_eq!(done, count as u64);
}

#[tokio::test]
async fn what_aws_does_not_accept_for_a_while_ends_no_request_and_closes_the_gate() {
    story(setup(), async |broker| {
        for code in ["ExpiredTokenException", "AccessDeniedException", "KMSInvalidStateException"] {
            passes(broker, code, OF_WORKERS).await;
        }
        // Rights to write are missing; an index is being built; a table refuses whatever is written.
        passes(broker, "AccessDeniedException", &["TransactWriteItems"]).await;
        passes(broker, "ValidationException", &["Query", "ExecuteStatement"]).await;
        passes(broker, "ValidationException", &["TransactWriteItems"]).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_read_directly_is_unavailable_for_a_while_and_never_broken() {
    story(setup(), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        for code in ["ExpiredTokenException", "UnrecognizedClientException", "ValidationException"] {
            broker.proxy().add(refusing(code, &["BatchGetItem", "GetItem", "Query", "Scan"]));
            broker.sandbox(held.sandbox_id(), "student").send().await.expect_problem(503, "UNAVAILABLE");
            broker.proxy().calm();
        }
        broker.sandbox(held.sandbox_id(), "student").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn what_an_api_writes_is_unavailable_for_a_while_and_never_broken() {
    story(setup(), async |broker| {
        let writes = &["PutItem", "UpdateItem", "TransactWriteItems", "BatchWriteItem"];
        for (n, code) in
            ["ValidationException", "ItemCollectionSizeLimitExceededException", "ExpiredTokenException"]
                .into_iter()
                .enumerate()
        {
            let track = format!("student-{n}");
            let known = format!("asked-{n}");
            let asked = broker.allocate(&known).respond_async().send().await.expect_status(202);
            let at = asked.must_have("location").to_owned();
            broker.proxy().add(refusing(code, writes));
            let refused = broker.allocate(&track).respond_async().send().await;
            refused.expect_problem(503, "UNAVAILABLE");
            let cancelled = broker.cancel(&at, &known).send().await;
            assert!([200, 409, 503].contains(&cancelled.status), "{code}: {cancelled:?}");
            broker.proxy().calm();
            broker.allocate(&track).send().await.expect_status(201);
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_that_the_table_refuses_alone_is_a_dead_letter_and_its_neighbours_are_served() {
    story(setup(), async |broker| {
        let rule = refusing("ValidationException", &["TransactWriteItems"]).containing("hopeless");
        broker.proxy().add(rule);
        let tracks: Vec<_> = (0..8).map(|n| format!("student-{n}")).chain(["hopeless".to_owned()]).collect();
        let calls = tracks.iter().map(|track| broker.allocate(track).send());
        let mut answers: Vec<Answer> = together(calls.collect::<Vec<_>>()).await;
        answers.pop().expect("the last").expect_problem(500, "INTERNAL_ERROR");
        for answer in answers {
            answer.expect_status(201);
        }
        // The rule would refuse the dead letter as well.
        broker.proxy().calm();
        discard(broker, 1, "table_refused").await;
    })
    .await;
}

#[tokio::test]
async fn a_reply_that_sqs_never_takes_is_a_dead_letter_and_its_outcome_is_found() {
    story(setup(), async |broker| {
        let reply_queue = format!("/{}", broker.queues().name("replies-"));
        for code in ["InvalidMessageContents", "UnsupportedOperation"] {
            let rule = Rule::new(Fault::RefuseEntries(code)).on("SendMessageBatch").containing(&reply_queue);
            broker.proxy().add(rule);
            let told = broker.allocate(&format!("student-{code}")).wait(2).send().await.expect_status(201);
            assert!(!told.sandbox_id().is_empty());
            broker.proxy().calm();
        }
        discard(broker, 2, "refused").await;
    })
    .await;
}

#[tokio::test]
async fn a_reply_whose_key_is_off_for_a_while_is_told_afterwards() {
    story(setup(), async |broker| {
        let reply_queue = format!("/{}", broker.queues().name("replies-"));
        let rule = Rule::new(Fault::RefuseEntries("KMS.DisabledException")).on("SendMessageBatch");
        broker.proxy().add(rule.containing(&reply_queue).times(4));
        broker.allocate("student").wait(45).send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_aws_interrupts_is_begun_anew() {
    story(setup(), async |broker| {
        broker.proxy().add(refusing("AccessDeniedException", &["Scan"]).times(3));
        let report = broker.job("census").await;
        assert_eq!((report.changed, report.found), (1, 60), "{report:?}");
        assert_eq!(broker.proxy().done("Scan", Fault::Refuse("AccessDeniedException")), 3);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_aws_does_not_accept_yet_starts_when_it_does() {
    story(setup().workers(0), async |broker| {
        broker.proxy().add(refusing("ExpiredToken", &["GetQueueUrl"]).times(4));
        broker.start_worker().await;
        let away = broker.proxy().outage(ShapedService::DynamoDb, Outage::Refused);
        drop(away);
        broker.allocate("student").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_starts_while_the_table_is_away_lives_and_is_ready_when_it_is_back() {
    for outage in [Outage::Refused, Outage::Silent] {
        story(setup().workers(0), async |broker| {
            let away = broker.proxy().outage(ShapedService::DynamoDb, outage);
            broker.launch_worker(&[]).await;
            wait_for_condition("an attempt to start that failed", async || {
                let log = broker.worker_process(0).log();
                if log.contains("the worker does not start yet") { Ok(()) } else { Err(log) }
            })
            .await;
            let said =
                async |path: &str| broker.worker(0).metrics().probe(path).await.map(|(status, _)| status);
            assert_eq!((said("/healthz").await, said("/readyz").await), (Some(200), Some(503)));
            drop(away);
            wait_for_condition("it to be ready", async || match said("/readyz").await {
                Some(200) => Ok(()),
                other => Err(other),
            })
            .await;
            broker.allocate("student").send().await.expect_status(201);
        })
        .await;
    }
}
