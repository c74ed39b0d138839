//! Supply of new sandboxes: as many as are used up, so that no client is told that there are none; or so few that half of them
//! wait.

use std::sync::Arc;
use std::time::Duration;

use broker_tests::setup::Environment;
use broker_tests::{Broker, Provider};

use crate::flavour;
use crate::history::History;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margin {
    /// Available sandboxes beyond those in responses.
    available: usize,
    /// The number added at a time.
    step: usize,
    /// What is left is counted at least so often.
    look_every: Duration,
    /// Whether they arrive with a sync of the provider's list, not from an operator.
    by_sync: bool,
}

/// Nobody is told that nothing is there.
pub(crate) const PLENTY: Margin =
    Margin { available: 4_000, step: 2_000, look_every: Duration::from_secs(15), by_sync: false };
/// Most of `keys` clients are: there is less than what they ask for at a time.
pub(crate) fn scarce(keys: usize) -> Margin {
    let (available, step) = ((keys / 3).max(60), (keys / 2).max(50));
    Margin { available, step, look_every: Duration::from_millis(700), by_sync: true }
}
/// A sync, as a scheduler outside starts it.
const SYNC: &str = r#"{"v":1,"body":{"kind":"start_job","job":"sync"}}"#;

/// A provider that lists all of them.
pub(crate) async fn provider(margin: Margin) -> Provider {
    Provider::start_with(margin.available, &["--page-size", "500"]).await
}

/// Keeps the pool filled.
#[derive(Debug)]
pub(crate) struct Supply {
    environment: Environment,
    provider: Arc<Provider>,
    history: Arc<History>,
    margin: Margin,
    /// They enter the pool by sync: what the provider makes for others has numbers in between.
    by_sync: bool,
}

impl Supply {
    pub(crate) fn new(
        broker: &Broker,
        provider: Arc<Provider>,
        history: Arc<History>,
        margin: Margin,
        by_sync: bool,
    ) -> Self {
        let environment: &Environment = broker;
        Self { environment: environment.clone(), provider, history, margin, by_sync }
    }

    pub(crate) async fn first(&self) {
        self.seed(0, self.margin.available).await;
    }

    /// Never ends. What is left is counted: sandboxes whose answers went down with an API are in no response.
    pub(crate) async fn run(self) {
        let Margin { available, step, look_every, by_sync } = self.margin;
        let (mut seeded, mut grown) = (available, available);
        for look in 0_u64.. {
            let told = self.history.allocations();
            // With an empty pool there are no more responses.
            let _ = tokio::time::timeout(look_every, self.history.more_than(told + step / 2)).await;
            let left = self.left(available).await;
            // What is on its way counts, too.
            let coming = grown.saturating_sub(self.history.allocations());
            if left > available / 2 || (by_sync && coming > 4 * available) {
                continue;
            }
            // Whichever comes first, this or a sync that finds them: they are the same.
            self.provider.grow(step).await;
            grown += step;
            if by_sync {
                let queues = self.environment.queues();
                queues.send(&queues.name("maintenance"), SYNC).await;
            }
            // Workers die too often for every sync to come to its end.
            if !by_sync || look % 3 == 2 {
                self.seed(seeded, grown - seeded).await;
                seeded = grown;
            }
        }
    }

    /// How many are available, up to `most`: by the index, since a scan of all that was used up takes longer and longer. What
    /// supplies itself does not count.
    async fn left(&self, most: usize) -> usize {
        let limit = (most + flavour::MAX).to_string();
        let list = ["pool", "list", "--status", "available", "--limit", &limit, "--json"];
        let listed = self.environment.cli_ok(&list).await.json::<Vec<flavour::Row>>();
        listed.iter().filter(|row| !row.is_guarded()).count()
    }

    async fn seed(&self, start: usize, count: usize) {
        if self.by_sync {
            // Under faults it may fail; the next one brings them.
            self.environment.cli(&["job", "run", "sync"]).await;
            return;
        }
        let (start, count) = (start.to_string(), count.to_string());
        self.environment.cli_ok(&["pool", "seed", "--start", &start, "--count", &count]).await;
    }
}
