//! Operator of the simulation: runs dangerous jobs by hand, whatever the faults and the schedule.

use broker_domain::{Removable, Task, Times};
use broker_messages::MaintenanceMessage;
use broker_queue::{QueueKind, Sender};

use super::{HOUR, Week};

impl Week {
    pub(super) async fn the_operator_acts(&mut self) {
        if !self.chance(10) {
            return;
        }
        let tasks = [
            Task::Sync { accept_stale: true },
            Task::PurgeStale { grace_period_hours: 0 },
            Task::BulkDelete { status: Removable::Stale },
            Task::BulkDelete { status: Removable::DeletionFailed },
        ];
        let task = tasks[self.process.entropy.below(tasks.len())];
        let now = self.now();
        let times = Times { enqueued_at: now, reply_by: now, deadline: now.plus(HOUR) };
        let run = MaintenanceMessage::run(self.process.entropy.request_id(now), task, times);
        let queue = self.urls.get(QueueKind::Maintenance);
        Sender::new(self.process.aws.sqs.clone(), queue, 1).send(run.encode()).await.unwrap();
        self.count("acts of the operator");
    }
}
