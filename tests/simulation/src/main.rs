//! `broker-simulation week|hour`: the long simulations. Exit codes: 0 everything is accounted for, 2 usage, 101 (a panic with
//! the reason) not.

use std::process::ExitCode;

use broker_simulation::{Week, plan_every_minute};

#[tokio::main]
async fn main() -> ExitCode {
    let what = std::env::args().nth(1);
    match what.as_deref() {
        // Seven days of a whole broker.
        Some("week") => Week::live(7 * 24, 7).await,
        // An hour in which the deletions of every minute keep the provider's rate.
        Some("hour") => plan_every_minute(60, 5).await,
        Some(_) | None => {
            eprintln!("usage: broker-simulation week|hour");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
