//! Inspection of the four queues, for `broker doctor` and `broker init`.
//!
//! It changes nothing (that is [`topology`](super::topology)).

use std::time::Duration;

use super::topology::{Difference, arn, differences, wanted};
use super::urls::find;
use super::{QueueError, QueueKind, QueueNames};
use broker_runtime::aws::Aws;

/// The state of one of the four queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInspection {
    /// Its name.
    pub queue: String,
    /// Whether it exists.
    pub exists: bool,
    /// What is not as [`ensure`](super::topology::ensure) makes it, by name.
    pub differs: Vec<Difference>,
}

/// Looks at the four queues, each dead-letter queue before its source; changes nothing. `visibility` is the visibility timeout
/// that the sources should have.
pub async fn queues(
    aws: &Aws,
    names: &QueueNames,
    visibility: Duration,
) -> Result<Vec<QueueInspection>, QueueError> {
    let mut found = Vec::new();
    let mut dlq_arn: Option<String> = None;
    for kind in QueueKind::ALL {
        let queue = names.name(kind);
        let dlq = dlq_arn.take();
        let Some(url) = find(aws, &queue).await? else {
            found.push(QueueInspection { queue, exists: false, differs: Vec::new() });
            continue;
        };
        let wanted = wanted(kind, visibility, kind.dlq().and(dlq.as_deref()));
        let differs = differences(aws, names, kind, &url, wanted).await?;
        dlq_arn = Some(arn(aws, &queue, &url).await?);
        found.push(QueueInspection { queue, exists: true, differs });
    }
    Ok(found)
}
