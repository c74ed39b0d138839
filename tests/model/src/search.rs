//! The search of one world.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use broker_runtime::clock::Clock;
use stateright::{Checker as _, Model};

/// The name of the property that every promise holds, in every state.
pub(crate) const PROMISES: &str = "the promises hold";

/// A world that is searched: a model with promises.
pub trait Searched: Model {
    /// The name of the property that something happened, in some state: else the search shows nothing.
    const HAPPENS: &str;

    /// The promise that `state` breaks, if it does.
    fn broken(&self, state: &Self::State) -> Option<String>;
}

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
pub fn search<S>(scenario: &S, clock: &Clock) -> Found
where
    S: Searched + Clone + Send + Sync + 'static,
    S::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    S::Action: Clone + Debug + PartialEq,
{
    let began = clock.instant();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = scenario.clone().checker().threads(threads).spawn_bfs().join();
    let path = checker.discovery(PROMISES);
    Found {
        states: checker.unique_state_count(),
        took: clock.instant().duration_since(began),
        broken: path.map(|path| {
            let last = scenario.broken(path.last_state());
            let steps = path.into_actions().into_iter().map(|action| format!("{action:?}"));
            steps.chain(last).collect()
        }),
        something_happened: checker.discovery(S::HAPPENS).is_some(),
    }
}
