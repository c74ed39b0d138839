//! The search of one world.

use std::time::Duration;

use broker_runtime::clock::Clock;
use stateright::{Checker as _, Model as _};

use crate::{Scenario, promises};

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// Different states that were seen.
    pub states: usize,
    /// How long that took.
    pub took: Duration,
    /// The shortest way to a broken promise, step by step, and which one it is.
    pub broken: Option<Vec<String>>,
    /// Whether a sandbox was handed out at all.
    pub something_happened: bool,
}

/// Searches all of `scenario`, or as far as the first broken promise.
pub fn search(scenario: &Scenario, clock: &Clock) -> Found {
    let began = clock.instant();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = scenario.clone().checker().threads(threads).spawn_bfs().join();
    let path = checker.discovery(Scenario::PROMISES);
    Found {
        states: checker.unique_state_count(),
        took: clock.instant().duration_since(began),
        broken: path.map(|path| {
            let last = promises::broken(path.last_state());
            let steps = path.into_actions().into_iter().map(|action| format!("{action:?}"));
            steps.chain(last).collect()
        }),
        something_happened: checker.discovery(Scenario::CLAIMS).is_some(),
    }
}
