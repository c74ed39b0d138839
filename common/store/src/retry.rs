//! Retries of writes: after a conflict with another transaction on the same items, and while the table does not take writes.

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

/// How often a write is tried that the table does not take just now.
const ATTEMPTS: u32 = 8;
/// The first pause between two of them; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Repeats a write of an operator's run while the table does not take it: six seconds, without the calls.
pub(crate) async fn retry_while_retryable<T, Fut>(write: impl Fn() -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match write().await {
            Err(error) if error.is_retryable() => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    write().await
}
