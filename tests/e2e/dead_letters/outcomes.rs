//! Outcomes of a replay, also of requests that did their work before.

use broker_tests::cli::Stats;
use broker_tests::letters::Tally;
use broker_tests::table::{number, text};
use broker_tests::{Fault, Rule, Setup, story, wait_for_condition};

use super::{aged, bury, status, taken};

#[tokio::test]
async fn an_expired_allocation_replays_to_expired_and_claims_nothing_unless_its_deadline_is_renewed() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let (first, at_first) = taken(broker, broker.allocate("student-1").respond_async()).await;
        let (second, at_second) = taken(broker, broker.allocate("student-2").respond_async()).await;
        bury(broker, &aged(first)).await;
        bury(broker, &aged(second)).await;
        broker.start_worker().await;
        broker.holds_letters(2).await;
        assert_eq!(status(broker, &at_first, "student-1").await, "failed");

        let expired = broker.replay(&["--track", "student-1"]).await;
        assert_eq!((expired.done, expired.past_deadline, expired.renewed), (1, 1, 0), "{expired:?}");
        assert_eq!(broker.outcome(&at_first, "student-1").await.text_of("status"), "expired");
        let renewed = broker.replay(&["--track", "student-2", "--renew-deadline"]).await;
        assert_eq!((renewed.done, renewed.past_deadline, renewed.renewed), (1, 0, 1), "{renewed:?}");
        assert_eq!(broker.outcome(&at_second, "student-2").await.text_of("status"), "succeeded");
        assert_eq!(broker.stats().await, Stats { total: 3, available: 2, allocated: 1, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn a_replay_of_a_key_that_has_moved_on_changes_nothing() {
    story(Setup::new().workers(0).pool(5), async |broker| {
        // One repeated meanwhile and holds a sandbox, one had a sandbox and returned it.
        let (holder, _) = taken(broker, broker.allocate("holder").wait(1)).await;
        let (returner, _) = taken(broker, broker.allocate("returner").wait(1)).await;
        broker.start_worker().await;
        let held = broker.allocate("holder").send().await.expect_status(201);
        let returned = broker.allocate("returner").send().await.expect_status(201);
        // The fence is 2 s before the return: the replayed request must be clearly older.
        let older = |mut message: serde_json::Value| {
            message["enqueued_at_ms"] = (message["enqueued_at_ms"].as_u64().expect("a time") - 60_000).into();
            message
        };
        broker.return_sandbox(returned.sandbox_id(), "returner").send().await.expect_status(200);
        bury(broker, &older(holder)).await;
        bury(broker, &older(returner)).await;
        broker.holds_letters(2).await;
        let before = broker.stats().await;

        let replayed = broker.replay(&["--all", "--renew-deadline"]).await;
        assert_eq!(replayed.done, 2, "{replayed:?}");
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await, before);
        let again = broker.allocate("holder").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), held.sandbox_id());

        // Replayed twice, by id: done with.
        let letters = broker.letters(&["--state", "replayed"]).await;
        let ids: Vec<_> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
        let twice = broker.replay(&ids).await;
        assert_eq!((twice.found, twice.done, twice.skipped), (2, 0, 2), "{twice:?}");
        let nobody = "0000000000000-00000000000000000000000000000000";
        let told = broker.cli(&["dead-letters", "replay", "--json", nobody]).await;
        assert_eq!((told.code, told.json::<Tally>().missing), (1, vec![nobody.to_owned()]), "{told:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_late_copy_that_is_handled_while_a_replay_opens_its_request_again_leaves_it_to_the_replay() {
    story(Setup::new().workers(0).pool(1).faults(9), async |broker| {
        let (message, location) = taken(broker, broker.allocate("student-1").respond_async()).await;
        bury(broker, &message).await;
        broker.start_worker().await;
        broker.holds_letters(1).await;
        let key = format!("REQ#{}", message["request_id"].as_str().expect("an id"));
        let mut record = broker.table().must_get(&key).await;
        assert_eq!(record.insert("state".to_owned(), text("queued")), Some(text("failed")));
        record.remove("outcome");
        // Its claim finds that it has failed. Before it reads how, a replay takes the letter.
        broker.proxy().add(Rule::new(Fault::LateResponse).on("GetItem").containing(&key));
        let queues = broker.queues();
        queues.send(&queues.name("requests"), &message.to_string()).await;
        wait_for_condition("the record to be asked for", async || {
            let asked = broker.proxy().done("GetItem", Fault::LateResponse);
            if asked > 0 { Ok(()) } else { Err(asked) }
        })
        .await;
        broker.table().put(record).await;
        broker.proxy().calm();
        queues.are_empty().await;
        assert_eq!(status(broker, &location, "student-1").await, "queued");
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        assert_eq!(broker.outcome(&location, "student-1").await.text_of("status"), "succeeded");
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}

#[tokio::test]
async fn the_same_dead_message_sent_ten_times_allocates_once() {
    story(Setup::new().workers(0).pool(5), async |broker| {
        let (message, location) = taken(broker, broker.allocate("student-1").respond_async()).await;
        for _ in 0..10 {
            bury(broker, &message).await;
        }
        broker.start_worker().await;
        broker.holds_letters(10).await;
        assert_eq!(broker.replay(&["--all"]).await.done, 10);
        assert_eq!(broker.outcome(&location, "student-1").await.text_of("status"), "succeeded");
        broker.queues().are_empty().await;
        assert_eq!(broker.stats().await.allocated, 1);
        assert_eq!(status(broker, &location, "student-1").await, "succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_dies_again_is_a_new_letter_and_one_run_sends_it_once() {
    story(Setup::new().apis(1).workers(1), async |broker| {
        let queues = broker.queues();
        queues.send(&queues.name("requests"), "not a message").await;
        broker.holds_letters(1).await;
        let first = broker.letters(&[]).await.remove(0);
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        broker.holds_letters(1).await;
        let second = broker.letters(&[]).await.remove(0);
        assert_ne!(second["id"], first["id"]);
        assert_eq!((&second["replay_of"], &second["reason"]), (&first["id"], &"malformed".into()));
        let id = first["id"].as_str().expect("an id");
        assert_eq!(broker.letter(id).await["state"], "replayed");
        broker.discard(&["--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_discard_takes_a_letter_that_its_replay_left_together_with_the_one_that_died_again() {
    story(Setup::new().apis(1).workers(1), async |broker| {
        let queues = broker.queues();
        queues.send(&queues.name("requests"), "not a message").await;
        broker.holds_letters(1).await;
        let first = broker.open_letters().await.remove(0);
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        broker.holds_letters(1).await;
        // As a replay leaves it that was killed after it had sent.
        let mut left = first;
        left.insert("state".to_owned(), text("replaying"));
        left.insert("held_by".to_owned(), text("a-killed-replay"));
        left.insert("held_until_ms".to_owned(), number(1));
        broker.table().put(left).await;
        broker.holds_letters(2).await;
        let foreseen = broker.discard(&["--all", "--dry-run"]).await;
        assert_eq!((foreseen.found, foreseen.done, foreseen.died_again), (2, 2, 0), "{foreseen:?}");
        let discarded = broker.discard(&["--all"]).await;
        assert_eq!((discarded.found, discarded.done, discarded.died_again), (2, 2, 0), "{discarded:?}");
        assert!(broker.open_letters().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_run_of_a_job_that_dies_reads_failed_and_its_replay_completes_it() {
    story(Setup::new().apis(1).workers(0).pool(2).var("BROKER_WAIT_S", "1"), async |broker| {
        let call = broker.balanced().call(http::Method::POST, "/v1/admin/auto-expire");
        let later = call.token(broker_tests::api::ADMIN_TOKEN).send().await.expect_status(202);
        let location = later.must_have("location").to_owned();
        let queues = broker.queues();
        let message = queues.take(&queues.name("maintenance"), 1).await.remove(0);
        queues.send_copy(&queues.name("maintenance-dlq"), &message).await;
        broker.start_worker().await;
        broker.holds_letters(1).await;
        let run = async || {
            let call = broker.balanced().call(http::Method::GET, &location);
            call.token(broker_tests::api::ADMIN_TOKEN).send().await.expect_status(200)
        };
        assert_eq!(run().await.text_of("status"), "failed");
        assert_eq!(broker.replay(&["--kind", "run_job"]).await.done, 1);
        wait_for_condition("the run to end", async || {
            let run = run().await;
            if run.text_of("status") == "succeeded" { Ok(()) } else { Err(run.text) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_metrics_tell_how_many_letters_wait_why_and_how_old_the_oldest_is() {
    story(Setup::new().apis(1).workers(1), async |broker| {
        let queues = broker.queues();
        for body in ["a", "b"] {
            queues.send(&queues.name("requests"), body).await;
        }
        queues.send(&queues.name("maintenance-dlq"), "from nowhere").await;
        broker.holds_letters(3).await;
        let worker = broker.worker(0).metrics().clone();
        assert!((worker.metric("broker_dead_letters_total").await - 3.0).abs() < 0.1, "each is counted once");
        assert_eq!(broker.job("census").await.details["dead_letters"], 3);
        wait_for_condition("the gauges", async || {
            let (waiting, age) = (
                worker.metric("broker_dead_letters").await,
                worker.metric("broker_dead_letter_oldest_age_seconds").await,
            );
            if waiting > 2.9 && age > 0.0 { Ok(()) } else { Err((waiting, age)) }
        })
        .await;
        let (_, text) = worker.probe("/metrics").await.expect("metrics");
        for line in
            ["broker_dead_letters{reason=\"malformed\"} 2", "broker_dead_letters{reason=\"unknown\"} 1"]
        {
            assert!(text.contains(line), "no {line} in {text}");
        }
        broker.discard(&["--all"]).await;
        broker.job("census").await;
    })
    .await;
}

#[tokio::test]
async fn a_list_that_is_cut_off_and_a_letter_that_cannot_be_read_are_told() {
    story(Setup::new().apis(0).workers(1), async |broker| {
        let queues = broker.queues();
        for _ in 0..2 {
            queues.send(&queues.name("requests"), "no message").await;
        }
        broker.holds_letters(2).await;
        let few = broker.cli_ok(&["dead-letters", "list", "--limit", "1", "--json"]).await;
        assert!(few.stderr.contains("these are 1 of more"), "{few:#?}");
        let all = broker.cli_ok(&["dead-letters", "list", "--limit", "2", "--json"]).await;
        assert!(!all.stderr.contains("of more"), "{all:#?}");

        let mut letter = broker.all_letters().await.remove(0);
        letter.remove("state");
        let key = |name: &str| letter[name].as_s().expect("a key").clone();
        let (pk, sk) = (key("PK"), key("SK"));
        broker.table().put(letter).await;
        let told = broker.cli(&["dead-letters", "discard", "--all", "--why", "no message"]).await;
        assert_eq!(told.code, 1, "{told:#?}");
        assert!(told.stderr.contains("1 item cannot be read"), "{told:#?}");
        assert_eq!(broker.discard(&["--reason", "malformed"]).await.unreadable, 1, "one of some is told");
        broker.table().delete_at(&pk, &sk).await;
    })
    .await;
}
