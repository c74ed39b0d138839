//! Simulation tests: the short one runs with all tests, the whole week by name.

use broker_simulation::{Week, plan_every_minute};

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_morning_leaves_everything_accounted_for() {
    Week::live(6, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_provider_leaves_everything_accounted_for() {
    Week::meet_every_fault(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "complete, and eleven minutes long: a command of the README"]
async fn a_simulated_week_leaves_everything_accounted_for() {
    Week::live(7 * 24, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_every_minute_keep_the_providers_rate() {
    plan_every_minute(2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "complete, and fifteen minutes long: a command of the README"]
async fn plans_every_minute_for_an_hour_keep_the_providers_rate() {
    plan_every_minute(60, 5).await;
}
