//! Sweep: removes what processes left behind that did not end by themselves: the reply queue of an API, and its INSTANCE.
//!
//! Gone is a process whose last heartbeat is three intervals old. An orphan is a reply queue whose id is no instance's;
//! an API writes its INSTANCE before it makes the queue. One that only slept finds its queue gone, makes a new one and
//! says so again. Ended requests leave by their own ttl.

use std::collections::HashSet;

use broker_domain::JobReport;
use broker_queue::topology;
use broker_runtime::crash_points::{self, Point};
use broker_store::Changed;
use broker_store::heartbeat;

use super::{JobError, Jobs};

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    // Queues are listed first: one that is made meanwhile belongs to an instance that is read after.
    let queues = topology::reply_queues(&jobs.aws, jobs.urls.names()).await?;
    let now = jobs.clock.now();
    let (mut living, mut gone) = (HashSet::new(), Vec::new());
    for instance in jobs.store.instances().await? {
        if heartbeat::is_gone(&instance, now) {
            gone.push(instance);
        } else {
            living.insert(jobs.urls.names().reply(instance.id));
        }
    }
    report.found = (queues.len() + gone.len()) as u64;
    for queue in queues.iter().filter(|queue| !living.contains(queue)) {
        topology::delete_reply_queue(&jobs.aws, &jobs.urls, queue).await?;
        crash_points::point(Point::Swept);
        tracing::info!(%queue, "swept a reply queue whose process is gone");
        report.changed += 1;
        report.detail("reply_queues", 1);
    }
    // Only now: an instance that is forgotten leaves no queue that would be looked for.
    for instance in gone {
        match jobs.store.forget_instance(&instance).await? {
            Changed::Done => {
                report.changed += 1;
                report.detail("instances", 1);
            }
            Changed::MovedOn => report.skipped += 1,
        }
    }
    Ok(())
}
