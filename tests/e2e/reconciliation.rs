//! Reconciliation: a pool that was restored from a backup starts paused, and what was handed out since is never offered
//! again.

use broker_tests::cli::{Output, Stats};
use broker_tests::table::{Item, lease_key, sandbox_key, text};
use broker_tests::warden::scratch;
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use serde_json::{Value, json};

/// Waits until a worker says so at `/readyz`.
async fn says(broker: &Broker, worker: usize, status: u16) {
    wait_for_condition(&format!("worker {worker} to say {status}"), async || {
        match broker.worker(worker).metrics().probe("/readyz").await {
            Some((said, _)) if said == status => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// `broker pool reconcile` with these lines.
async fn reconcile(broker: &Broker, lines: &[Value], more: &[&str]) -> Output {
    let name = broker.queues().name("handed-out");
    let path = scratch().join(name);
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, lines).expect("the file is written");
    let path = path.to_str().expect("a path of ours");
    let args = ["pool", "reconcile", "--json", "--handed-out", path];
    broker.cli(&args.iter().chain(more).copied().collect::<Vec<_>>()).await
}

#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    assert_eq!(output.code, code, "{output:#?}");
    output.json()
}

#[tokio::test]
async fn a_paused_pool_is_not_touched_until_it_is_resumed() {
    story(Setup::new().apis(1).workers(1).pool(3), async |broker| {
        broker.cli_ok(&["pool", "pause", "--by", "maria"]).await;
        broker.cli_ok(&["pool", "pause", "--by", "another"]).await;
        says(broker, 0, 503).await;
        let (_, metrics) = broker.worker(0).metrics().probe("/metrics").await.expect("metrics");
        assert!(metrics.contains("broker_ready 0"), "{metrics}");
        broker.stop_worker(0).await;
        // One that starts looks before it polls.
        broker.launch_worker(&[]).await;
        says(broker, 0, 503).await;
        let call = tokio::spawn(broker.allocate("student-1").send());
        broker.queues().holds_requests(1).await;
        for _ in 0..3 {
            assert_eq!(broker.stats().await.available, 3);
        }
        assert_eq!(broker.queues().requests().await.visible, 1, "no worker took it");
        told_as_paused(broker).await;
        broker.cli_ok(&["pool", "resume", "--by", "maria"]).await;
        call.await.expect("an answer").expect_status(201);
        says(broker, 0, 200).await;
    })
    .await;
}

/// Doctor and queues say who paused it, that nobody receives, and how old what waits may be.
async fn told_as_paused(broker: &Broker) {
    wait_for_condition("the worker to say that it does not receive", async || {
        let doctor = broker.cli(&["doctor"]).await;
        let told = doctor.stdout.contains("paused by maria since ")
            && doctor.stdout.contains("0 of 1 workers receive");
        if told && doctor.code == 1 { Ok(()) } else { Err(doctor.stdout) }
    })
    .await;
    let queues: Value = broker.cli_ok(&["queues", "--json"]).await.json();
    let requests =
        queues.as_array().expect("rows").iter().find(|row| row["visible"] == 1).expect("the requests");
    assert!(requests["at_most"] == true && requests["oldest_age_ms"].is_u64(), "{queues:#}");
    let audit: Value = broker.cli_ok(&["audit", "--json"]).await.json();
    let line =
        audit.as_array().expect("lines").iter().find(|line| line["act"] == "pause_pool").expect("a line");
    assert_eq!(line["who"], "maria", "{audit:#}");
}

/// A backup: these items, and the name of another table.
async fn restore(broker: &Broker, backup: Vec<Item>) {
    let table = broker.table();
    for lease in table.keys("LEASE#").await {
        table.delete(&lease).await;
    }
    for item in backup {
        table.put(item).await;
    }
    let mut pool = table.must_get("POOL").await;
    pool.insert("table_name".to_owned(), text("the-table-before"));
    table.put(pool).await;
}

/// Ends all processes in order; what they do not hold is what a restored table starts with.
async fn stop_all(broker: &mut Broker) {
    broker.stop_workers().await;
    broker.terminate_api(0).0.stopped().await;
}

#[tokio::test]
async fn a_restored_pool_starts_paused_and_offers_nothing_that_was_handed_out_since() {
    story(Setup::new().apis(1).workers(1).pool(6), async |broker| {
        let table = broker.table();
        let early = broker.allocate("student-0").send().await.expect_status(201).sandbox_id().to_owned();
        let mut backup = vec![table.must_get(&lease_key("student-0", "student-0")).await];
        for sandbox in table.keys("SBX#").await {
            backup.push(table.must_get(&sandbox).await);
        }
        broker.return_sandbox(&early, "student-0").send().await.expect_status(200);
        let a =
            broker.allocate("student-1").lab("lab").send().await.expect_status(201).sandbox_id().to_owned();
        let b = broker
            .allocate("student-2")
            .key("second")
            .send()
            .await
            .expect_status(201)
            .sandbox_id()
            .to_owned();
        let c = broker.allocate("student-3").send().await.expect_status(201).sandbox_id().to_owned();
        broker.return_sandbox(&c, "student-3").send().await.expect_status(200);
        let d = broker.allocate("student-4").send().await.expect_status(201).sandbox_id().to_owned();
        stop_all(broker).await;
        restore(broker, backup).await;

        broker.start_api().await;
        broker.launch_worker(&[]).await;
        says(broker, 0, 503).await;
        let refused = broker.cli(&["pool", "resume"]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        let call = tokio::spawn(broker.allocate("student-9").send());
        broker.queues().holds_requests(1).await;

        let lines = [
            json!({ "sandbox_id": early, "track": "student-0", "returned": true }),
            json!({ "sandbox_id": a, "track": "student-1", "track_name": "lab" }),
            json!({ "sandbox_id": b, "track": "student-2", "idempotency_key": "second" }),
            json!({ "sandbox_id": c, "track": "student-3", "returned": true }),
            json!({ "sandbox_id": d }),
        ];
        let told = report(&reconcile(broker, &lines, &[]).await, 0);
        assert_eq!(told["steps"], json!({ "end": 1, "lease": 2, "give_up": 2 }));
        let before = Stats { total: 6, available: 5, allocated: 1, ..Stats::default() };
        assert_eq!(broker.stats().await, before, "a dry run writes nothing");
        says(broker, 0, 503).await;

        report(&reconcile(broker, &lines, &["--apply"]).await, 0);
        says(broker, 0, 200).await;
        // The last that is left, and nothing that anybody ever had.
        let fresh = call.await.expect("an answer").expect_status(201);
        assert!(![&early, &a, &b, &c, &d].contains(&&fresh.sandbox_id().to_owned()), "{fresh:#?}");
        broker.allocate("student-10").send().await.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        assert_eq!(broker.allocate("student-1").send().await.expect_status(200).sandbox_id(), a);
        let second = broker.allocate("student-2").key("second").send().await.expect_status(200);
        assert_eq!(second.sandbox_id(), b);
        let expected = Stats { total: 6, allocated: 3, pending_deletion: 3, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        let refused = reconcile(broker, &lines, &["--apply"]).await;
        assert_eq!(refused.code, 1, "an open pool is not reconciled: {refused:#?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_knows_counts_too_and_a_second_run_finds_nothing() {
    let provider = Provider::start(6).await;
    story(provider.setup().apis(0).workers(0).pool(7), async |broker| {
        // seed-000006 is gone at the provider; seed-000002 came after the backup.
        broker.cli_ok(&["pool", "pause"]).await;
        broker.table().delete(&sandbox_key("seed-000002")).await;
        let lines = [
            json!({ "sandbox_id": "seed-000002", "track": "student-1" }),
            json!({ "sandbox_id": "seed-000003", "track": "student-1" }),
            json!({ "sandbox_id": "from-elsewhere", "track": "student-2" }),
        ];
        // A key holds one, and which of two lines of student-1 is his only people can tell: none is given up.
        let told = report(&reconcile(broker, &lines, &["--apply"]).await, 1);
        assert_eq!((&told["steps"], &told["missing"]), (&json!({ "conflict": 2, "unknown": 1 }), &1.into()));
        assert_eq!(told["conflicts"], json!(["seed-000002", "seed-000003"]));
        let before = Stats { total: 7, available: 5, arriving: 1, stale: 1, ..Stats::default() };
        assert_eq!(broker.stats().await, before);
        assert_eq!(broker.cli(&["pool", "resume"]).await.code, 1, "it stays closed");
        let lines = [
            json!({ "sandbox_id": "seed-000003", "track": "student-1", "returned": true }),
            lines[0].clone(),
            lines[2].clone(),
        ];
        let told = report(&reconcile(broker, &lines, &["--apply"]).await, 0);
        assert_eq!(told["steps"], json!({ "lease": 1, "give_up": 1, "unknown": 1 }));
        let expected =
            Stats { total: 7, available: 4, allocated: 1, pending_deletion: 1, stale: 1, ..Stats::default() };
        assert_eq!(broker.stats().await, expected);
        let again = report(&reconcile(broker, &lines, &["--apply"]).await, 0);
        assert_eq!(
            (&again["steps"], &again["missing"]),
            (&json!({ "as_it_is": 2, "unknown": 1 }), &0.into())
        );
        assert_eq!(broker.stats().await, expected);

        broker.cli_ok(&["pool", "resume"]).await;
        broker.cli_ok(&["pool", "pause"]).await;
        let stranger = [json!({ "sandbox_id": "seed-000002", "track": "student-7" })];
        let conflict = report(&reconcile(broker, &stranger, &["--apply"]).await, 1);
        assert_eq!(conflict["conflicts"], json!(["seed-000002"]));
        // Milliseconds would be a lease for ever.
        let ms = [
            json!({ "sandbox_id": "seed-000004", "track": "student-4", "expires_at": 1_790_000_000_000_u64 }),
        ];
        assert_eq!(reconcile(broker, &ms, &["--apply"]).await.code, 1);
        assert_eq!(broker.stats().await, expected);
        let typo = [json!({ "sandbox_id": "seed-000002", "tracks": "student-1" })];
        assert_eq!(reconcile(broker, &typo, &["--apply"]).await.code, 1, "a line that says something else");
    })
    .await;
}

#[tokio::test]
async fn a_list_that_is_cut_off_makes_nothing_stale() {
    let provider = Provider::start_with(40, &["--page-size", "10"]).await;
    story(provider.setup().apis(0).workers(0).pool(40), async |broker| {
        broker.cli_ok(&["pool", "pause"]).await;
        // Once: the second list has them all.
        for (list, not_believed) in
            [(json!({ "no_next": true, "times": 1 }), 0), (json!({ "no_next": true }), 30)]
        {
            provider.misbehave(json!({ "list": list })).await;
            let told = report(&reconcile(broker, &[], &["--apply"]).await, 0);
            let missing = (&told["missing"], &told["missing_not_believed"]);
            assert_eq!(missing, (&0.into(), &not_believed.into()), "{list}");
            assert_eq!(
                broker.stats().await,
                Stats { total: 40, available: 40, ..Stats::default() },
                "{list}"
            );
        }
        // Whether there is what neither the table nor such a list has is not known, either.
        let line = [json!({ "sandbox_id": "from-elsewhere", "track": "student-1" })];
        let told = report(&reconcile(broker, &line, &["--apply"]).await, 1);
        assert_eq!(told["steps"], json!({ "unclear": 1 }));
    })
    .await;
}

/// Every item of sandboxes and leases, and the pool's.
async fn everything(broker: &Broker) -> Vec<Item> {
    let table = broker.table();
    let mut items = vec![table.must_get("POOL").await];
    for prefix in ["SBX#", "LEASE#", "CENSUS"] {
        for key in table.keys(prefix).await {
            items.push(table.must_get(&key).await);
        }
    }
    items
}

#[tokio::test]
async fn a_table_restored_under_its_own_name_is_reconciled_with_the_list_that_the_old_one_gave() {
    story(Setup::new().apis(1).workers(1).pool(60), async |broker| {
        let mut held = Vec::new();
        for number in 0..3 {
            let track = format!("early-{number}");
            held.push(broker.allocate(&track).send().await.expect_status(201).sandbox_id().to_owned());
        }
        broker.job("census").await;
        let backup = everything(broker).await;
        broker.return_sandbox(&held[0], "early-0").send().await.expect_status(200);
        let late = broker.allocate("early-0").key("another").lab("lab").send().await.expect_status(201);
        let (late, expires_at) = (late.sandbox_id().to_owned(), late.json["expires_at"].clone());
        stop_all(broker).await;

        // A list that is cut off says so; the one that is made for this is whole.
        let cut_off = broker.cli(&["pool", "list", "--json"]).await;
        assert_eq!((cut_off.code, cut_off.json::<Vec<Value>>().len()), (1, 50), "{}", cut_off.stderr);
        assert!(cut_off.stderr.contains("of more"), "{}", cut_off.stderr);
        assert_eq!(broker.cli(&["pool", "list", "--json", "--limit", "50"]).await.code, 0, "as was asked");
        let whole = broker.cli_ok(&["pool", "list", "--json", "--limit", "60"]).await;
        assert_eq!((whole.json::<Vec<Value>>().len(), whole.stderr.as_str()), (60, ""));
        let listed = broker.cli_ok(&["pool", "list", "--handed-out"]).await.stdout;
        let lines: Vec<Value> =
            listed.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert_eq!(lines.len(), 4, "{listed}");
        let of = |id: &str| lines.iter().find(|line| line["sandbox_id"] == id).expect("its line");
        assert_eq!((&of(&held[0])["returned"], &of(&late)["returned"]), (&true.into(), &false.into()));
        assert_eq!(of(&late)["idempotency_key"], "another");

        broker.table().replace_by_bare().await;
        broker.cli_ok(&["init", "--adopt-table"]).await;
        for item in backup {
            broker.table().put(item).await;
        }
        broker.start_api().await;
        broker.launch_worker(&[]).await;
        says(broker, 0, 503).await;
        assert_eq!(broker.cli(&["pool", "resume"]).await.code, 1, "it is another incarnation of the name");

        // Fewer than were allocated cannot be everything.
        let few = reconcile(broker, &lines[..2], &["--apply"]).await;
        assert_eq!(few.code, 1, "{few:#?}");
        assert!(few.stderr.contains("3 were allocated"), "{few:#?}");
        let before = Stats { total: 60, available: 57, allocated: 3, ..Stats::default() };
        assert_eq!(broker.stats().await, before);

        let told = report(&reconcile(broker, &lines, &["--apply"]).await, 0);
        assert_eq!(told["steps"], json!({ "end": 1, "lease": 1, "as_it_is": 2 }));
        says(broker, 0, 200).await;
        let again = broker.allocate("early-0").key("another").send().await.expect_status(200);
        assert_eq!((again.sandbox_id(), &again.json["expires_at"]), (late.as_str(), &expires_at));
        assert_eq!(again.text_of("track_name"), "lab");
        broker.return_sandbox(&held[0], "early-0").send().await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_contradiction_that_nothing_explains_keeps_the_pool_closed() {
    story(Setup::new().apis(1).workers(1).pool(3), async |broker| {
        let held = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
        stop_all(broker).await;
        broker.cli_ok(&["pool", "pause"]).await;
        let table = broker.table();
        let sound = table.must_get(&sandbox_key(&held)).await;
        let mut strange = sound.clone();
        strange.insert("status".to_owned(), text("available"));
        table.put(strange).await;
        let lines = [json!({ "sandbox_id": held, "track": "student-1" })];
        let told = report(&reconcile(broker, &lines, &["--apply"]).await, 1);
        assert!(told["suspects"].as_array().is_some_and(|suspects| !suspects.is_empty()), "{told:#}");
        assert_eq!(broker.cli(&["pool", "resume"]).await.code, 1);
        table.put(sound).await;
        report(&reconcile(broker, &lines, &["--apply"]).await, 0);
        broker.cli_ok(&["pool", "resume"]).await;
    })
    .await;
}
