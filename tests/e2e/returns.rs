//! Returns: who may return which sandbox.

use broker_tests::table::lease_key;
use broker_tests::{Setup, story, wait_for_condition};

#[tokio::test]
async fn the_owner_gives_back_and_may_say_it_again() {
    story(Setup::new().apis(2).pool(2), async |broker| {
        let sandbox = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
        for api in [0, 1, 0] {
            let answer =
                broker.api(api).return_sandbox(&sandbox, "student-1").send().await.expect_status(200);
            assert_eq!(answer.sandbox_id(), sandbox);
        }
        assert_eq!(broker.stats().await.pending_deletion, 1);
    })
    .await;
}

#[tokio::test]
async fn whatever_keys_an_owner_chose_he_gives_back_the_sandbox_that_he_names() {
    story(Setup::new().pool(7), async |broker| {
        let by_default = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
        for lab in 1..=6 {
            let key = format!("lab-{lab}");
            let chosen = broker.allocate("student-1").key(&key).send().await.expect_status(201);
            let given_back =
                broker.return_sandbox(chosen.sandbox_id(), "student-1").send().await.expect_status(200);
            assert_eq!(given_back.sandbox_id(), chosen.sandbox_id());
            let stats = broker.stats().await;
            assert_eq!((stats.allocated, stats.pending_deletion), (1, lab), "{key}");
        }
        let again = broker.allocate("student-1").send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), by_default, "he still has it");
        broker.return_sandbox(&by_default, "student-1").send().await.expect_status(200);
        assert_eq!(broker.stats().await.pending_deletion, 7);
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_without_the_live_lease_of_its_allocation_is_told_to_the_operator_and_keeps_no_worker_busy()
{
    let setup = Setup::new().pool(1).var("BROKER_EXPIRY_GRACE_MINUTES", "0");
    story(setup, async |broker| {
        let sandbox = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
        let table = broker.table();
        table.age(&sandbox, 60).await;
        // As a part of a restored table is.
        let key = lease_key("student-1", "student-1");
        let lease = table.must_get(&key).await;
        table.delete(&key).await;
        let expired = broker.job("expire").await;
        assert_eq!((expired.found, expired.skipped, expired.failed), (1, 0, 1), "{expired:?}");
        broker.return_sandbox(&sandbox, "student-1").wait(0).send().await;
        broker.holds_letters(1).await;
        assert_eq!(broker.letters(&[]).await[0]["reason"], "inconsistent_lease");
        broker.queues().are_empty().await;
        // Repaired and replayed, it is given back.
        table.put(lease).await;
        assert_eq!(broker.replay(&["--all"]).await.done, 1);
        wait_for_condition("it to be given back", async || match broker.stats().await {
            stats if stats.pending_deletion == 1 => Ok(()),
            stats => Err(stats),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_stranger_is_refused_and_learns_nothing_about_the_owner() {
    story(Setup::new().pool(2), async |broker| {
        let first = broker.allocate("student-1").key("secret-key").lab("secret-lab").send().await;
        let sandbox = first.expect_status(201).sandbox_id().to_owned();
        let refused = [
            broker.return_sandbox(&sandbox, "stranger").send().await,
            broker.sandbox(&sandbox, "stranger").send().await,
        ];
        for answer in refused {
            let answer = answer.expect_problem(403, "NOT_SANDBOX_OWNER");
            for secret in ["student-1", "secret-key", "secret-lab"] {
                assert!(!answer.text.contains(secret), "{answer:#?}");
                assert!(!format!("{:?}", answer.headers).contains(secret), "{answer:#?}");
            }
        }
        assert_eq!(broker.stats().await.allocated, 1);
        broker.return_sandbox(&sandbox, "student-1").send().await.expect_status(200);
        broker.return_sandbox(&sandbox, "stranger").send().await.expect_problem(403, "NOT_SANDBOX_OWNER");
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_that_nobody_holds_is_not_the_callers() {
    story(Setup::new().pool(1), async |broker| {
        broker
            .return_sandbox("no-such-sandbox", "student-1")
            .send()
            .await
            .expect_problem(404, "SANDBOX_NOT_FOUND");
        broker.sandbox("no-such-sandbox", "student-1").send().await.expect_problem(404, "SANDBOX_NOT_FOUND");
        broker
            .return_sandbox("seed-000000", "student-1")
            .send()
            .await
            .expect_problem(403, "NOT_SANDBOX_OWNER");
        assert_eq!(broker.stats().await.available, 1);
    })
    .await;
}

#[tokio::test]
async fn without_a_token_or_an_owner_nothing_is_given_back() {
    story(Setup::new().pool(1), async |broker| {
        let sandbox = broker.allocate("student-1").send().await.expect_status(201).sandbox_id().to_owned();
        let mark = broker.return_sandbox(&sandbox, "student-1");
        for call in
            [mark.clone().without("authorization"), mark.clone().token("wrong"), mark.clone().token("")]
        {
            let answer = call.send().await.expect_problem(401, "UNAUTHORIZED");
            assert!(answer.must_have("www-authenticate").starts_with("Bearer"), "{answer:#?}");
        }
        let nobody = mark.without("x-instruqt-sandbox-id");
        nobody.send().await.expect_problem(400, "MISSING_SANDBOX_ID");
        assert_eq!(broker.stats().await.allocated, 1);
    })
    .await;
}
