//! How the four queues stand there, for whoever asks what is wrong.
//!
//! What it does not do: change anything (that is [`topology`](super::topology)).

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName as Attribute;

use super::topology::{arn, differences, wanted, words};
use super::urls::find;
use super::{QueueError, QueueKind, QueueNames};
use broker_runtime::aws::Aws;

/// How one of the four stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its name.
    pub queue: String,
    /// Whether it is there.
    pub exists: bool,
    /// What is not as [`ensure`](super::topology::ensure) makes it of what keeps dead letters: redrive, and how long messages are kept. How long
    /// they stay hidden is a setting of each deployment.
    pub differs: Vec<String>,
}

/// Looks at the four queues, each dead-letter queue before its source; changes nothing.
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
