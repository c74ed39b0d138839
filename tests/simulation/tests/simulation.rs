//! Simulation tests: the short ones, which run with all tests. The long ones are the command `broker-simulation`.

use broker_simulation::{Week, class_at_nine, plan_every_minute};

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_morning_leaves_everything_accounted_for() {
    Week::live(6, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_provider_leaves_everything_accounted_for() {
    Week::meet_every_fault(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_every_minute_keep_the_providers_rate() {
    plan_every_minute(2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_at_nine_has_its_sandboxes_although_others_take_all_that_is_left() {
    class_at_nine(200, 60, 4).await;
}
