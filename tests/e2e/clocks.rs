//! Clocks that are off: the process follows the dates of AWS, or does not work at all.

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use broker_tests::dates::{Shift, relay};
use broker_tests::table::now_s;
use broker_tests::wait::PATIENCE;
use broker_tests::{Broker, Setup, story, wait_for_condition};

async fn setup(shift: &Shift) -> Setup {
    let mut setup = Setup::new().apis(1).workers(1).pool(5);
    for (name, url) in relay(shift).await {
        setup = setup.var(name, &url);
    }
    setup
}

/// Waits until both processes have moved their clocks by about `seconds`.
async fn corrected(broker: &Broker, seconds: f64) {
    wait_for_condition("both clocks to follow AWS", async || {
        let api = broker.api(0).metric("broker_clock_skew_seconds").await;
        let worker = broker.worker(0).metrics().metric("broker_clock_skew_seconds").await;
        let (api_ready, worker_ready) = (readiness(broker).await, worker_readiness(broker).await);
        let close = |told: f64| (told - seconds).abs() < 3.0;
        let fine = close(api) && close(worker) && api_ready == 200 && worker_ready == 200;
        if fine { Ok(()) } else { Err((api, worker, api_ready, worker_ready)) }
    })
    .await;
}

async fn readiness(broker: &Broker) -> u16 {
    broker.api(0).probe("/readyz").await.map_or(0, |(status, _)| status)
}

async fn worker_readiness(broker: &Broker) -> u16 {
    broker.worker(0).metrics().probe("/readyz").await.map_or(0, |(status, _)| status)
}

#[tokio::test]
async fn machines_that_are_a_minute_off_work_by_the_time_of_aws() {
    let shift = Shift::default();
    story(setup(&shift).await, async |broker| {
        let before = broker.allocate("student-1").send().await.expect_status(201);
        for (minute, track) in [(60_i32, "student-2"), (-60, "student-3")] {
            shift.set(minute.into());
            corrected(broker, f64::from(minute)).await;
            let after = broker.allocate(track).send().await.expect_status(201);
            let moved = after.number_of("allocated_at") as i64 - before.number_of("allocated_at") as i64;
            let passed = PATIENCE.as_secs() as i64;
            let minute = i64::from(minute);
            assert!(
                (minute - 3..minute + passed).contains(&moved),
                "{moved} s later, by a clock {minute} s off"
            );
            let again = broker.allocate(track).send().await.expect_status(200);
            let date = DateTime::from_str(again.must_have("date"), DateTimeFormat::HttpDate).expect("a date");
            let ahead = date.secs() - now_s() as i64;
            assert!(
                (minute - 3..=minute + 3).contains(&ahead),
                "Date is {ahead} s ahead, by a clock {minute} s off"
            );
            broker.return_sandbox(after.sandbox_id(), track).send().await.expect_status(200);
        }
        shift.set(0);
        corrected(broker, 0.0).await;
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_nothing_can_correct_receives_nothing_but_lives() {
    let shift = Shift::default();
    story(setup(&shift).await, async |broker| {
        shift.run_wild();
        wait_for_condition("both to be not ready", async || {
            let seen = (readiness(broker).await, worker_readiness(broker).await);
            if seen == (503, 503) { Ok(()) } else { Err(seen) }
        })
        .await;
        let alive = broker.api(0).probe("/healthz").await.map(|(status, _)| status);
        assert_eq!(alive, Some(200));
        shift.set(0);
        corrected(broker, 0.0).await;
        broker.allocate("student-1").send().await.expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_writes_has_the_time_of_aws_whatever_his_machine_says() {
    // AWS is four minutes behind the machine that the command runs on.
    let shift = Shift::default();
    shift.set(-240);
    let relayed = relay(&shift).await;
    let vars: Vec<_> = relayed.iter().map(|(name, url)| (*name, url.as_str())).collect();
    story(Setup::new().apis(1).workers(1).pool(4), async |broker| {
        let (first, second) =
            (broker.allocate("student-1").send().await, broker.allocate("student-2").send().await);
        let now = broker_tests::table::now_s();
        let by_aws = |at: u64| (now - 250..now - 230).contains(&at);
        let released = broker.cli_with(&["sandbox", "release", first.sandbox_id(), "--json"], &vars).await;
        assert_eq!(released.code, 0, "{released:#?}");
        let released: serde_json::Value = released.json();
        let at = released["deletion_requested_at"].as_u64().expect("a time");
        assert!(by_aws(at), "{at} at {now}");
        let extend = ["sandbox", "extend", second.sandbox_id(), "--hours", "1", "--json"];
        let extended = broker.cli_with(&extend, &vars).await;
        assert_eq!(extended.code, 0, "{extended:#?}");
        assert!(by_aws(extended.json::<serde_json::Value>()["updated_at"].as_u64().expect("a time")));
        for command in [
            &["job", "pause", "sync"][..],
            &["pool", "pause"],
            &["pool", "resume"],
            &["job", "resume", "sync"],
        ] {
            assert_eq!(broker.cli_with(command, &vars).await.code, 0, "{command:?}");
        }
        // No owner is locked out.
        broker.allocate("student-1").send().await.expect_status(201);

        shift.run_wild();
        let wild = broker.cli_with(&["sandbox", "release", second.sandbox_id()], &vars).await;
        assert_eq!(wild.code, 1, "{wild:#?}");
        assert!(wild.stderr.contains("the time is not known"), "{wild:#?}");
        broker.allocate("student-2").send().await.expect_status(200);
    })
    .await;
}
