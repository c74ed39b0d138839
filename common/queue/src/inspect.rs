//! Inspection of the four queues, for `broker doctor`.
//!
//! It changes nothing (that is [`topology`](super::topology)).

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName as Attribute;

use super::topology::{arn, differences, wanted, words};
use super::urls::find;
use super::{QueueError, QueueKind, QueueNames};
use broker_runtime::aws::Aws;

/// The state of one of the four queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its name.
    pub queue: String,
    /// Whether it exists.
    pub exists: bool,
    /// The attributes about dead letters (redrive, retention) that differ from what [`ensure`](super::topology::ensure) sets.
    /// The visibility timeout is a setting of each deployment.
    pub differs: Vec<String>,
}

/// Inspects the four queues, each dead-letter queue before its source.
pub async fn queues(aws: &Aws, names: &QueueNames) -> Result<Vec<Inspection>, QueueError> {
    let mut found = Vec::new();
    let mut dlq_arn: Option<String> = None;
    for kind in QueueKind::ALL {
        let queue = names.name(kind);
        let dlq = dlq_arn.take();
        let Some(url) = find(aws, &queue).await? else {
            found.push(Inspection { queue, exists: false, differs: Vec::new() });
            continue;
        };
        let mut wanted = wanted(kind, Duration::ZERO, kind.dlq().and(dlq.as_deref()));
        wanted.retain(|name, _| [Attribute::RedrivePolicy, Attribute::MessageRetentionPeriod].contains(name));
        let differs = words(&differences(aws, &queue, &url, wanted).await?);
        dlq_arn = Some(arn(aws, &queue, &url).await?);
        found.push(Inspection { queue, exists: true, differs });
    }
    Ok(found)
}
