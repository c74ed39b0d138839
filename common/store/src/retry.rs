//! Retry of a write that met another transaction on the same items.

use std::time::Duration;

use super::StoreError;
use broker_runtime::entropy::Entropy;

/// The number of attempts.
const TRIES: usize = 5;
/// The pause after each, before jitter.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

/// Repeats a write that met another transaction, a few times.
pub async fn retry_on_conflict<T, Fut>(entropy: &Entropy, write: impl Fn() -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..TRIES {
        match write().await {
            Err(StoreError::Conflict) => tokio::time::sleep(entropy.jitter(CONFLICT_PAUSE)).await,
            other => return other,
        }
    }
    write().await
}
