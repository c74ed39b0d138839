//! Retry of a write that met another transaction on the same items.

use std::time::Duration;

use super::StoreError;
use broker_runtime::entropy::Entropy;

/// The pauses between the attempts, before jitter: a transaction takes 10 ms, and one in a thousand most of a second.
const PAUSES_MS: [u64; 7] = [20, 40, 80, 160, 320, 640, 640];

/// Repeats a write that met another transaction, until that one is over: for more than a second.
pub async fn retry_on_conflict<T, Fut>(entropy: &Entropy, write: impl Fn() -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    for pause in PAUSES_MS.map(Duration::from_millis) {
        match write().await {
            Err(StoreError::Conflict) => tokio::time::sleep(entropy.jitter(pause)).await,
            other => return other,
        }
    }
    write().await
}
