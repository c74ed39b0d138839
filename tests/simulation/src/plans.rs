//! Plans of deletions, one a minute, while sandboxes come back and the provider fails some deletions: however often they are
//! planned, and although the workers lose some seconds in the middle of each plan, the provider is not called faster than its
//! rate.
//!
//! The short one runs with all tests. The hour takes about fifteen minutes, since SQS's delays are real seconds:
//! `cargo run -p broker-simulation -- hour`.

use std::time::Duration;

use broker_domain::Job;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{BEAT, MINUTE, REGROWS_AFTER, Week};
use broker_store::verify::verify;

/// Deletions a second that the provider is asked for at most.
const RATE: u64 = 5;
/// How much later than its slot a deletion may come: the slot is open for 200 ms (`jobs::slots` of the worker), and the
/// way to the provider is not endless. So at most two more than the rate come within a second.
const LATEST_MS: u64 = 400;
const COME_BACK: usize = 40;
/// So much time is lost in the middle of each plan.
const LOST: Duration = Duration::from_secs(3);

#[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
/// Plans deletions every minute for so many minutes, with choices drawn from `seed`; panics if the rate is exceeded.
pub async fn plan_every_minute(minutes: usize, seed: u64) {
    let stop = CancellationToken::new();
    let rate = RATE.to_string();
    let settings = [
        ("BROKER_PROVIDER_RATE", rate.as_str()),
        ("BROKER_CLEANUP_EVERY_S", "60"),
        ("BROKER_DELETION_BACKOFF_S", "60"),
    ];
    let accounts = ((minutes + 1) * COME_BACK, REGROWS_AFTER);
    let mut week = Week::begin_with(seed, &settings, accounts, stop.clone()).await;
    week.beat = BEAT;
    // The first sync fills the pool.
    week.pass(MINUTE).await;
    let failing = json!({ "delete": { "status": 500, "every": 4 } });
    week.stand_in.world.misbehave(serde_json::from_value(failing).unwrap());
    for _ in 0..minutes {
        for _ in 0..COME_BACK {
            let at_once = week.now();
            week.ask(Some(at_once)).await;
        }
        // They are given, they are given back, they are planned.
        week.settle(week.now()).await;
        week.students_move_on().await;
        week.settle(week.now()).await;
        week.plan_after_a_minute().await;
    }
    // How much a plan loses, and leaves to the next one, depends on the machine.
    for _ in 0..minutes {
        if week.deletions_asked_ms().len() < minutes * COME_BACK / 2 {
            week.plan_after_a_minute().await;
        }
    }
    let asked = week.deletions_asked_ms();
    let (count, fastest) = (asked.len(), fastest_second(&asked));
    println!("{minutes} plans: {count} deletions asked for, at most {fastest} in a second, rate {RATE}");
    assert!(count >= minutes * COME_BACK / 2, "{count}");
    assert_rate(&asked);
    let verdict = verify(&week.store, week.now()).await.unwrap();
    assert!(verdict.violations.is_empty(), "{verdict:#?}");
    week.workers.drain(..).for_each(tokio::runtime::Runtime::shutdown_background);
    stop.cancel();
}

impl Week {
    /// Moves the clock to the next plan, and waits until it was made and carried out, as far as lost time allows.
    async fn plan_after_a_minute(&self) {
        let before = self.deletions_asked_ms().len();
        let now = self.now().plus(MINUTE);
        self.process.clock.set(now);
        self.until("planned", async || {
            let tick = self.store.schedule.tick(Job::Cleanup, MINUTE, now).await.unwrap();
            if tick.next_run_at > now { Ok(()) } else { Err(format!("{tick:?}")) }
        })
        .await;
        self.until("under way", async || match self.deletions_asked_ms().len() - before {
            few @ ..5 => Err(few.to_string()),
            _ => Ok(()),
        })
        .await;
        // As if all workers had stood still for a while.
        self.process.clock.set(self.now().plus(LOST));
        self.settle(self.now()).await;
    }

    /// When the stand-in was asked to delete, in order.
    fn deletions_asked_ms(&self) -> Vec<u64> {
        let world = self.stand_in.world.shown(self.now());
        let deletions = world["deletions"].as_array().unwrap();
        let mut asked: Vec<_> =
            deletions.iter().map(|deletion| deletion["at_ms"].as_u64().unwrap()).collect();
        asked.sort_unstable();
        asked
    }
}

/// The most that came within any second.
fn fastest_second(asked: &[u64]) -> usize {
    let within = |begin: &u64| asked.iter().filter(|at| (*begin..begin + 1_000).contains(at)).count();
    asked.iter().map(within).max().unwrap_or(0)
}

/// In no stretch of time more than the rate allows, each at most so late.
fn assert_rate(asked: &[u64]) {
    for (from, begin) in asked.iter().enumerate() {
        for (to, end) in asked.iter().enumerate().skip(from) {
            let most = RATE * (end - begin + LATEST_MS) / 1_000 + 1;
            let count = (to - from + 1) as u64;
            assert!(count <= most, "{count} deletions within {} ms, at most {most}", end - begin);
        }
    }
}
