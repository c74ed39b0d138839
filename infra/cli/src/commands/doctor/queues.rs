//! The doctor's lines on the queues: whether they are there, as they should be, and whether a worker receives from them.

use broker_queue::topology::{self, Difference};
use broker_queue::{QueueError, QueueKind, QueueUrls, inspect};
use broker_runtime::errors::chain;
use broker_store::{Instance, Role, StoreError, heartbeat};

use super::{Finding, OF_PERMISSIONS, differing};
use crate::context::Context;

/// The word of the line.
const QUEUES: &str = "queues";

/// The processes that live, and what waits for a worker.
struct Handling {
    /// The workers that live.
    workers: usize,
    /// Those of them that receive.
    receive: usize,
    /// The APIs that live.
    apis: usize,
    /// Messages in the sources: visible, delayed and in flight.
    waiting: u64,
}

/// Reads it; a queue that is not there has nothing that waits.
async fn handling(context: &Context) -> Result<Handling, StoreError> {
    let now = context.clock.now();
    let mut instances = context.store.instances.list().await?;
    instances.retain(|instance| !heartbeat::is_gone(instance, now));
    let count = |counts: &dyn Fn(&Instance) -> bool| instances.iter().filter(|one| counts(one)).count();
    let mut waiting = 0;
    if let Ok(urls) = QueueUrls::resolve(&context.aws, &context.names).await {
        for kind in [QueueKind::Requests, QueueKind::Maintenance] {
            let name = context.names.name(kind);
            if let Ok(depth) = topology::depth(&context.aws, &urls.get(kind), name).await {
                waiting += depth.visible + depth.delayed + depth.in_flight;
            }
        }
    }
    Ok(Handling {
        workers: count(&|one| one.role == Role::Worker),
        receive: count(&|one| one.role == Role::Worker && one.receives != Some(false)),
        apis: count(&|one| one.role == Role::Api),
        waiting,
    })
}

/// How many workers receive. Without one it is wrong if an API runs, a worker runs or a message waits, and else a note: nothing runs.
fn receivers(handling: &Handling) -> Finding {
    let Handling { workers, receive, apis, waiting } = *handling;
    let told = format!("{receive} of {workers} workers receive");
    let waits = match waiting {
        0 => String::new(),
        1 => "; 1 message waits".to_owned(),
        waiting => format!("; {waiting} messages wait"),
    };
    let todo = match (receive, workers, apis, waiting) {
        (1.., ..) => return Finding::fine(QUEUES, told),
        (0, 1.., ..) => {
            "Look at /readyz and the log of a worker, and at the lines above: paused, table, clock."
        }
        (0, 0, 1.., _) => "An API runs, and no worker: start one (infra/docs/RUNBOOK.md, Nothing works).",
        (0, 0, 0, 1..) => "No worker runs to handle them: start one (infra/docs/RUNBOOK.md, Nothing works).",
        (0, 0, 0, 0) => {
            return Finding::note(QUEUES, format!("{told}: no process runs, and no message waits"));
        }
    };
    Finding::wrong(QUEUES, format!("{told}{waits}"), todo)
}

pub(super) async fn queues(context: &Context, table_is_fine: bool) -> [Finding; 2] {
    let seen = match inspect::queues(&context.aws, &context.names, context.config.visibility).await {
        Ok(seen) => seen,
        Err(error) => {
            return [not_found(&error), Finding::wrong("redrive", "not checked", "Repair the queues first.")];
        }
    };
    let missing: Vec<_> =
        seen.iter().filter(|queue| !queue.exists).map(|queue| queue.queue.as_str()).collect();
    let missing = (!missing.is_empty()).then(|| {
        let found = format!("missing: {}", missing.join(", "));
        (found, "Run `broker init`, or set BROKER_PREFIX to the prefix of the queues' names.".to_owned())
    });
    let differs = |of_redrive: bool| {
        let told: Vec<_> = seen.iter().filter_map(|queue| different(queue, of_redrive)).collect();
        (!told.is_empty()).then(|| told.join("; "))
    };
    let missing = match missing {
        None => differing(context, "BROKER_PREFIX").await,
        missing => missing,
    };
    let missing = missing.or_else(|| {
        let todo = "Wanted are the settings of this shell (BROKER_VISIBILITY_S) and what the broker needs. If they are the processes' too: \
                    `broker init` (on AWS: terraform apply), or messages come too late or are too large.";
        Some((differs(false)?, todo.to_owned()))
    });
    let differs = differs(true).map(|found| {
        let todo = "Run `broker init` (on AWS: terraform apply), or messages that fail are lost too early or never kept.";
        (found, todo.to_owned())
    });
    let names = seen.iter().map(|queue| queue.queue.as_str()).collect::<Vec<_>>().join(", ");
    let absent = seen.iter().any(|queue| !queue.exists);
    let redrive = match (absent, differs) {
        (true, None) => Some(("queues are missing".to_owned(), "Repair the queues first.".to_owned())),
        (true | false, differs) => differs,
    };
    let mut queues = received(context, table_is_fine, &names).await;
    if let Some((found, todo)) = missing {
        queues = match queues.ok {
            true => Finding::wrong(QUEUES, found, todo),
            false => Finding::wrong(
                QUEUES,
                format!("{found}; {}", queues.found),
                format!("{todo} {}", queues.todo),
            ),
        };
    }
    let kept = Finding::of("redrive", redrive, "messages that fail too often are kept for 14 days");
    [queues, kept]
}

/// The line of queues that are as they should be: whether a worker receives from them.
async fn received(context: &Context, table_is_fine: bool, names: &str) -> Finding {
    let finding = match handling(context).await {
        Ok(handling) => receivers(&handling),
        Err(error) if table_is_fine => {
            let found = format!("whether a worker receives cannot be read: {}", chain(&error));
            return Finding::wrong(QUEUES, found, OF_PERMISSIONS);
        }
        // The table's own line says why.
        Err(_) => Finding::fine(QUEUES, "whether a worker receives is not known"),
    };
    match finding.ok {
        true => Finding { found: format!("{names}; {}", finding.found), ..finding },
        false => finding,
    }
}

/// The attributes in which a queue is another than ours: of what keeps dead letters, or of the rest.
fn different(queue: &inspect::QueueInspection, of_redrive: bool) -> Option<String> {
    const OF_REDRIVE: [&str; 3] = ["MessageRetentionPeriod", "RedriveAllowPolicy", "RedrivePolicy"];
    let is_of = |one: &&Difference| OF_REDRIVE.contains(&one.attribute()) == of_redrive;
    let told: Vec<_> = queue.differs.iter().filter(is_of).map(ToString::to_string).collect();
    (!told.is_empty()).then(|| format!("{} has another {}", queue.queue, told.join(" and another ")))
}

fn not_found(error: &QueueError) -> Finding {
    let todo =
        "Check AWS_ENDPOINT_URL_SQS (if it is set), the region, the network, and the role's permissions.";
    Finding::wrong(QUEUES, chain(error), todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_receiver_is_wrong_where_something_runs_or_waits_and_a_note_where_nothing_does() {
        let of = |(workers, receive, apis, waiting)| {
            let finding = receivers(&Handling { workers, receive, apis, waiting });
            (finding.ok, finding.note, finding.found)
        };
        let found = |text: &str| text.to_owned();
        assert_eq!(of((2, 1, 0, 9)), (true, false, found("1 of 2 workers receive")));
        assert_eq!(of((2, 0, 1, 0)), (false, false, found("0 of 2 workers receive")));
        assert_eq!(of((0, 0, 1, 0)), (false, false, found("0 of 0 workers receive")));
        assert_eq!(of((0, 0, 0, 1)), (false, false, found("0 of 0 workers receive; 1 message waits")));
        assert_eq!(of((0, 0, 0, 7)), (false, false, found("0 of 0 workers receive; 7 messages wait")));
        let (ok, note, found) = of((0, 0, 0, 0));
        assert!(ok && note && found.contains("no process runs"), "{found}");
    }
}
