//! The last step of SERVE: arriving sandboxes are offered.

use broker_runtime::crash_points::{self, Point};
use broker_runtime::trace;
use broker_store::{Candidate, Write};
use tokio::task::JoinSet;

use crate::jobs::Jobs;

/// Writes at the same time.
const AT_ONCE: usize = 16;

/// What became of arrivals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admitted {
    /// Granted to requests that waited.
    pub(crate) granted: u64,
    /// Offered from now on.
    pub(crate) admitted: u64,
    /// Not as they were seen: another write was faster.
    pub(crate) lost: u64,
    /// Left to the tick: the table did not take the write.
    pub(crate) failed: u64,
}

/// Offers `arrivals`.
pub(super) async fn all(jobs: &Jobs, arrivals: Vec<Candidate>) -> Admitted {
    let (mut running, mut waiting, mut all) = (JoinSet::new(), arrivals.into_iter(), Admitted::default());
    loop {
        while running.len() < AT_ONCE
            && let Some(arrival) = waiting.next()
        {
            let jobs = jobs.clone();
            running.spawn(trace::carried(async move {
                jobs.store.sandboxes.admit(&arrival, jobs.clock.now()).await
            }));
        }
        let Some(ended) = running.join_next().await else { break };
        match ended {
            Ok(Ok(Write::Applied)) => {
                crash_points::point(Point::Admitted);
                all.admitted += 1;
            }
            Ok(Ok(Write::Rejected(()))) => all.lost += 1,
            Ok(Err(error)) => {
                tracing::warn!("an arrival was not offered, the next look tries again: {error}");
                all.failed += 1;
            }
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
    metrics::counter!("broker_serve_admitted_total").increment(all.admitted);
    all
}
