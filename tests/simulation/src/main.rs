//! `broker-simulation week|hour|class`: the long simulations. Exit codes: 0 everything is accounted for, 2 usage, 101 (a panic with
//! the reason) not.

use std::process::ExitCode;

use broker_simulation::{Week, class_at_nine, plan_every_minute};

#[tokio::main]
async fn main() -> ExitCode {
    let what = std::env::args().nth(1);
    match what.as_deref() {
        // Seven days of a whole broker.
        Some("week") => Week::live(7 * 24, 7).await,
        // An hour in which the deletions of every minute keep the provider's rate.
        Some("hour") => plan_every_minute(60, 5).await,
        // Three hundred of a thousand sandboxes at nine, under a storm from half past eight on.
        Some("class") => class_at_nine(1_000, 300, 9).await,
        Some(_) | None => {
            eprintln!("usage: broker-simulation week|hour|class");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
