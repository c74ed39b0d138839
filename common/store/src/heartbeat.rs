//! Heartbeat of a process: its INSTANCE record, so that the sweep job can remove what a dead process leaves.
//!
//! Invariant: the INSTANCE is written before anything that must be swept with it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Instance, Received, Role, Store};
use broker_domain::Timestamp;
use broker_runtime::clock::Clock;
use uuid::Uuid;

/// The interval of heartbeats.
pub const EVERY: Duration = Duration::from_secs(30);
/// The number of missed heartbeats after which a process counts as gone.
const MISSED: u32 = 3;

/// Whether a process counts as gone at `now`.
pub fn is_gone(instance: &Instance, now: Timestamp) -> bool {
    now.since(instance.heartbeat) > EVERY * MISSED
}

/// Writes heartbeats until `stop`, each with what was `received` since the one before; then deletes the instance. The first
/// heartbeat is the caller's.
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
            tracing::warn!("heartbeat write failed: {error}");
        }
    }
    forget(&store, id).await;
}

/// Deletes an instance; if that fails, the sweep does it.
pub async fn forget(store: &Store, id: Uuid) {
    let forgotten = async {
        let instances = store.instances().await?;
        if let Some(instance) = instances.iter().find(|instance| instance.id == id) {
            store.forget_instance(instance).await?;
        }
        Ok::<_, crate::StoreError>(())
    };
    if let Err(error) = forgotten.await {
        tracing::debug!("instance not deleted, the sweep job will: {error}");
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
