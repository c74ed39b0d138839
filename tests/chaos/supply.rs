//! Supply of new sandboxes, as many as are used up, so that no client is told that there are none.

use std::sync::Arc;

use broker_tests::setup::Environment;
use broker_tests::{Broker, Provider};

use crate::history::History;

/// Available sandboxes beyond those in responses.
const MARGIN: usize = 4_000;
/// The number added at a time.
const STEP: usize = 2_000;

/// A provider that lists all of them.
pub(crate) async fn provider() -> Provider {
    Provider::start_with(MARGIN, &["--page-size", "500"]).await
}

/// Keeps the pool filled.
#[derive(Debug)]
pub(crate) struct Supply {
    environment: Environment,
    provider: Arc<Provider>,
    history: Arc<History>,
}

impl Supply {
    pub(crate) fn new(broker: &Broker, provider: Arc<Provider>, history: Arc<History>) -> Self {
        let environment: &Environment = broker;
        Self { environment: environment.clone(), provider, history }
    }

    pub(crate) async fn first(&self) {
        self.seed(0, MARGIN).await;
    }

    /// Never ends.
    pub(crate) async fn run(self) {
        let mut seeded = MARGIN;
        loop {
            self.history.more_than(seeded - MARGIN).await;
            // Whichever comes first, this or a sync that finds them: they are the same.
            self.provider.grow(STEP).await;
            self.seed(seeded, STEP).await;
            seeded += STEP;
        }
    }

    async fn seed(&self, start: usize, count: usize) {
        let (start, count) = (start.to_string(), count.to_string());
        self.environment.cli_ok(&["pool", "seed", "--start", &start, "--count", &count]).await;
    }
}
