//! Waiting for conditions, and doing many things at once.
//!
//! The only `sleep` of the tests is the poll interval of what waits here. A story never sleeps: it names the
//! condition, and a timeout reports the last state that was seen.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::setup::as_on_aws;

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a condition may take on a busy machine before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// [`PATIENCE`], and three times as long before endpoints that take their time as AWS does: a story of forty calls one
/// after the other waits for each.
fn patience() -> Duration {
    if as_on_aws() { PATIENCE * 3 } else { PATIENCE }
}

/// Looks until `check` says `Ok`, and returns what it found; `Err` carries the state seen.
///
/// # Panics
///
/// After a minute (three before AWS-shaped endpoints), with `what` was waited for and the last state.
pub async fn wait_for_condition<T, S: Debug>(what: &str, check: impl AsyncFnMut() -> Result<T, S>) -> T {
    wait_for_condition_up_to(patience(), what, check).await
}

/// [`wait_for_condition`] for up to `limit`.
///
/// # Panics
///
/// When `limit` has passed, with `what` was waited for and the last state.
pub async fn wait_for_condition_up_to<T, S: Debug>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let mut last = None;
    let found = tokio::time::timeout(limit, async {
        loop {
            match check().await {
                Ok(found) => return found,
                Err(state) => last = Some(state),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    })
    .await;
    match found {
        Ok(found) => found,
        Err(_) => panic!("waited {limit:?} for {what}; last state: {last:?}"),
    }
}

/// Looks until `holds` says so: [`wait_for_condition`] where nothing is asked of anybody.
///
/// # Panics
///
/// After a minute (three before AWS-shaped endpoints), with `what` was waited for.
pub async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(patience(), async {
        while !holds() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    });
    assert!(waited.await.is_ok(), "waited {:?} for {what}", patience());
}

/// Runs `work`, which must end within `limit`. For promises of the kind "at once, not after the wait": `limit` lies far
/// above what the work takes and far below what it would take if the promise were broken.
///
/// # Panics
///
/// When `limit` passes first.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took longer than {limit:?}"),
    }
}

/// Runs all of `work` at the same time; the results come in the order of the input.
///
/// # Panics
///
/// When one of them panics.
pub async fn together<F>(work: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (index, future) in work.into_iter().enumerate() {
        running.spawn(async move { (index, future.await) });
    }
    let mut done = running.join_all().await;
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
