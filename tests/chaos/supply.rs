//! Supply of new sandboxes, as many as are used up, so that no client is told that there are none.

use std::sync::Arc;
use std::time::Duration;

use broker_tests::setup::Environment;
use broker_tests::{Broker, Provider};

use crate::history::History;

/// Available sandboxes beyond those in responses.
const MARGIN: usize = 4_000;
/// The number added at a time.
const STEP: usize = 2_000;
/// What is left is counted at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(15);

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

    /// Never ends. What is left is counted: sandboxes whose answers went down with an API are in no response.
    pub(crate) async fn run(self) {
        let mut seeded = MARGIN;
        loop {
            let told = self.history.allocations();
            // With an empty pool there are no more responses.
            let _ = tokio::time::timeout(LOOK_EVERY, self.history.more_than(told + STEP / 2)).await;
            let left = usize::try_from(self.environment.stats().await.available).unwrap_or(usize::MAX);
            if left + STEP <= MARGIN {
                // Whichever comes first, this or a sync that finds them: they are the same.
                self.provider.grow(STEP).await;
                self.seed(seeded, STEP).await;
                seeded += STEP;
            }
        }
    }

    async fn seed(&self, start: usize, count: usize) {
        let (start, count) = (start.to_string(), count.to_string());
        self.environment.cli_ok(&["pool", "seed", "--start", &start, "--count", &count]).await;
    }
}
