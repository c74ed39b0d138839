//! Retries at the start of a worker while AWS is away or does not accept it yet: late credentials, or rights that were granted just
//! now. It lives meanwhile, and is not ready.
//!
//! A missing table or queue ends the start at once, with an error that says what to run.

use broker_queue::QueueError;
use broker_runtime::backoff::Backoff;
use broker_runtime::config::ConfigError;
use broker_runtime::entropy::Entropy;
use broker_runtime::errors::chain;
use broker_runtime::lifecycle::Lifecycle;
use broker_store::{SettingsError, StoreError};

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPrepared {
    /// The table could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queues could not be asked.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The table's data was written with another setting.
    #[error(transparent)]
    Setting(ConfigError),
}

impl From<SettingsError> for NotPrepared {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Store(error) => Self::Store(error),
            SettingsError::Setting(error) => Self::Setting(error),
        }
    }
}

impl NotPrepared {
    const fn passes(&self) -> bool {
        match self {
            Self::Store(StoreError::NoTable { .. })
            | Self::Queue(QueueError::Missing { .. })
            | Self::Setting(_) => false,
            Self::Store(error) => error.is_retryable(),
            Self::Queue(QueueError::Failed { .. }) => true,
        }
    }
}

/// What `attempt` makes, tried again while its error passes, with pauses that grow to 5 s; `None` if the process is told to end
/// first.
pub(crate) async fn with_retries<T, F>(
    lifecycle: &Lifecycle,
    entropy: &Entropy,
    attempt: impl Fn() -> F,
) -> Result<Option<T>, NotPrepared>
where
    F: Future<Output = Result<T, NotPrepared>>,
{
    for number in 0_u32.. {
        match attempt().await {
            Err(error) if error.passes() => {
                tracing::warn!(attempt = number, "the worker does not start yet: {}", chain(&error));
                let pause = tokio::time::sleep(Backoff::OUTAGE.jittered(number, entropy));
                if lifecycle.soft.run_until_cancelled(pause).await.is_none() {
                    return Ok(None);
                }
            }
            made => return made.map(Some),
        }
    }
    Ok(None)
}
