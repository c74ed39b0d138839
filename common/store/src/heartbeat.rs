//! How a process says that it lives, so that what it leaves behind can be swept if it does not end by itself.
//!
//! Invariant: its INSTANCE stands before anything that is to be swept with it. What it does not do: sweep.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Instance, Received, Role, Store};
use broker_domain::Timestamp;
use broker_runtime::clock::Clock;
use uuid::Uuid;

/// How often a process says that it lives.
pub const EVERY: Duration = Duration::from_secs(30);
/// After how many missed heartbeats it counts as gone.
const MISSED: u32 = 3;

/// Whether a process is gone at `now`.
pub fn is_gone(instance: &Instance, now: Timestamp) -> bool {
    now.since(instance.heartbeat) > EVERY * MISSED
}

/// Says that a process lives until `stop`, and what it `received` since it said so before; then that it does not live any
/// more. The first heartbeat is the caller's.
pub async fn keep(
    store: Store,
    id: Uuid,
    role: Role,
    clock: Clock,
    received: impl Fn() -> Received,
    stop: CancellationToken,
) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
        if stopped {
            break;
        }
        let heartbeat = Instance { received: received(), ..Instance::new(id, role, clock.now()) };
        if let Err(error) = store.heartbeat(&heartbeat).await {
            tracing::warn!("could not say that this process lives: {error}");
        }
    }
    forget(&store, id).await;
}

/// Takes a process out of the list; what cannot be taken out is swept.
pub async fn forget(store: &Store, id: Uuid) {
    let forgotten = async {
        let instances = store.instances().await?;
        if let Some(instance) = instances.iter().find(|instance| instance.id == id) {
            store.forget_instance(instance).await?;
        }
        Ok::<_, crate::StoreError>(())
    };
    if let Err(error) = forgotten.await {
        tracing::debug!("could not take this process out of the list, it will be swept: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_after_three_missed_heartbeats() {
        let instance = Instance::new(Uuid::nil(), Role::Worker, Timestamp::from_secs(1_000));
        assert!(!is_gone(&instance, Timestamp::from_secs(1_090)));
        assert!(is_gone(&instance, Timestamp::from_secs(1_091)));
        assert!(!is_gone(&instance, Timestamp::from_secs(900)), "its clock is ahead of ours");
    }
}
