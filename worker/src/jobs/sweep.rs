//! Sweep job: removes what dead processes left: the reply queue of an API, and its INSTANCE.
//!
//! A process counts as dead three intervals after its last heartbeat. An orphan is a reply queue whose id is no instance's;
//! an API writes its INSTANCE before it creates the queue. One that was only suspended finds its queue gone, and creates both
//! anew. Ended requests expire by their own ttl.

use std::collections::HashSet;

use broker_domain::JobReport;
use broker_queue::topology;
use broker_runtime::crash_points::{self, Point};
use broker_store::Changed;
use broker_store::heartbeat;

use super::{JobError, Jobs};

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    // Queues are listed first: the instance of a queue that is created meanwhile is read after.
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
        tracing::info!(%queue, "deleted the reply queue of a dead process");
        report.changed += 1;
        report.detail("reply_queues", 1);
    }
    // Last: without its instance the queue would not be found.
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
