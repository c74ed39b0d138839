//! Heartbeat of a process: its INSTANCE record, so that the sweep job can remove what a dead process leaves.
//!
//! Invariant: the INSTANCE is written before anything that must be swept with it.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Instance, Received, Role, SelfReport, Store};
use broker_domain::Timestamp;
use broker_runtime::clock::Clock;
use uuid::Uuid;

/// The interval of heartbeats.
pub const EVERY: Duration = Duration::from_secs(30);
/// The interval of those of a worker whose requests queue has a backlog: APIs read them to know how long it is.
pub const EVERY_WHILE_BEHIND: Duration = Duration::from_secs(5);
/// A worker that receives requests as old as this is behind.
pub const BEHIND: Duration = Duration::from_secs(2);
/// How soon one that failed is repeated at first, and at the latest: a table that is back hears of all who live within seconds.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LATEST: Duration = Duration::from_secs(4);
/// After how many missed heartbeats it counts as gone.
const MISSED: u32 = 3;

/// Whether a process counts as gone at `now`.
pub fn is_gone(instance: &Instance, now: Timestamp) -> bool {
    now.since(instance.heartbeat) > EVERY * MISSED
}

/// Writes heartbeats until `stop`, each with what the process says of itself; then deletes the instance. The first heartbeat
/// is the caller's. One is written at once whenever `news` changes, so that a closed worker is not taken for an open one.
/// `written` is told of each whether the table took it.
pub async fn keep(
    store: Store,
    (id, role): (Uuid, Role),
    clock: Clock,
    report: impl Fn() -> SelfReport,
    written: impl Fn(bool),
    mut news: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let (mut pause, mut said_away, mut said_receives) = (EVERY_WHILE_BEHIND, (false, Vec::new()), None);
    let mut said_at = clock.instant();
    let mut unsaid = Unsaid::since(said_at);
    let changes = async |news: &mut watch::Receiver<bool>| {
        if news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut has_news = false;
    loop {
        let waited = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = changes(&mut news), if pause == EVERY_WHILE_BEHIND => true,
            }
        };
        let Some(changed) = stop.run_until_cancelled(waited).await else { break };
        has_news |= changed;
        let report = report();
        let now = clock.instant();
        unsaid.received = unsaid.received.and(report.received);
        let since = now.duration_since(said_at);
        // Operators are told soon that a provider or a hook is away, or is back.
        let hooks: Vec<_> = report.hooks_away.iter().map(|away| away.hook.clone()).collect();
        let away = (report.provider_away.is_some(), hooks);
        has_news |= away != said_away;
        // A worker that drains has no turn in SERVE any more.
        let receives = report.receives;
        has_news |= receives != said_receives;
        if since < EVERY && !unsaid.is_behind() && !has_news {
            unsaid.count_from(now);
            continue;
        }
        let requests_per_s = unsaid.per_s(now);
        let report = SelfReport { received: unsaid.received, ..report };
        let heartbeat = Instance { requests_per_s, ..Instance::reporting(id, role, clock.now(), report) };
        let beat = store.instances.heartbeat(&heartbeat).await;
        written(beat.is_ok());
        match beat {
            Ok(()) => {
                (pause, said_at) = (EVERY_WHILE_BEHIND, clock.instant());
                unsaid = Unsaid::since(said_at);
                (has_news, said_away, said_receives) = (false, away, receives);
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "heartbeat write failed, repeated soon");
                pause = soon(pause);
            }
        }
    }
    forget(&store, id).await;
}

/// What a process received since its last heartbeat. Its requests are counted from a later moment if it was not behind until
/// then: the time in which a worker is idle says nothing of how fast it is.
#[derive(Clone, Copy, Debug)]
struct Unsaid {
    received: Received,
    counted_from: Instant,
}

impl Unsaid {
    fn since(now: Instant) -> Self {
        Self { received: Received::default(), counted_from: now }
    }

    fn is_behind(&self) -> bool {
        self.received.requests.is_some_and(|age| age >= BEHIND)
    }

    /// Counts anew from `now`. The ages are kept.
    fn count_from(&mut self, now: Instant) {
        (self.received.count, self.counted_from) = (0, now);
    }

    fn per_s(&self, now: Instant) -> Option<u64> {
        self.received.per_s(now.duration_since(self.counted_from))
    }
}

/// The pause after a heartbeat that failed, which came after `pause`.
fn soon(pause: Duration) -> Duration {
    if pause == EVERY_WHILE_BEHIND { AGAIN_FIRST } else { (pause * 2).min(AGAIN_LATEST) }
}

/// Takes a process out of the list; what cannot be taken out is swept.
pub async fn forget(store: &Store, id: Uuid) {
    let forgotten = async {
        let instances = store.instances.list().await?;
        if let Some(instance) = instances.iter().find(|instance| instance.id == id) {
            store.instances.remove(instance).await?;
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
    fn a_heartbeat_that_failed_is_repeated_soon_and_again() {
        let pauses =
            std::iter::successors(Some(soon(EVERY_WHILE_BEHIND)), |pause| Some(soon(*pause))).take(4);
        assert_eq!(pauses.map(|pause| pause.as_secs()).collect::<Vec<_>>(), [1, 2, 4, 4]);
    }

    #[test]
    fn what_a_failed_heartbeat_did_not_say_the_next_one_says() {
        let age = |s| Some(Duration::from_secs(s));
        let unsaid = Received { requests: age(3), maintenance: None, count: 4 };
        let both = unsaid.and(Received { requests: age(2), maintenance: age(1), count: 3 });
        assert_eq!(both, Received { requests: age(3), maintenance: age(1), count: 7 });
        assert_eq!(both.per_s(Duration::from_secs(2)), Some(3));
        assert_eq!(Received::default().per_s(Duration::from_secs(2)), None);
    }

    #[test]
    fn the_first_rate_of_a_worker_that_falls_behind_is_not_that_of_its_idle_time() {
        let start = Clock::system().instant();
        let at = |s| start + Duration::from_secs(s);
        let receives = |age_s, count| {
            let requests = Some(Duration::from_secs(age_s));
            Received { requests, maintenance: None, count }
        };
        let mut unsaid = Unsaid::since(start);
        for look in 1..5 {
            unsaid.received = unsaid.received.and(receives(0, 1));
            assert!(!unsaid.is_behind());
            unsaid.count_from(at(5 * look));
        }
        unsaid.received = unsaid.received.and(receives(3, 1_000));
        assert!(unsaid.is_behind());
        assert_eq!(unsaid.per_s(at(25)), Some(200), "a thousand in the five seconds since the last look");
        // A heartbeat that failed is said with the next one.
        unsaid.received = unsaid.received.and(receives(1, 1_000));
        assert_eq!((unsaid.is_behind(), unsaid.per_s(at(30))), (true, Some(200)));
    }

    #[test]
    fn a_process_is_gone_after_three_missed_heartbeats() {
        let instance = Instance::new(Uuid::nil(), Role::Worker, Timestamp::from_secs(1_000));
        assert!(!is_gone(&instance, Timestamp::from_secs(1_090)));
        assert!(is_gone(&instance, Timestamp::from_secs(1_091)));
        assert!(!is_gone(&instance, Timestamp::from_secs(900)), "its clock is ahead of ours");
    }
}
