//! Resend after the loss of embedded queues: sends the queued requests again, from their records in the table.
//!
//! Invariant: a message that is sent twice claims once, so this may be repeated at any time. A request past its deadline is
//! sent, too: the worker that gets it stores `expired`. A synchronous call has no record and is not sent again; its caller
//! saw the connection break, and may repeat it.

use broker_messages::tenant_of;
use broker_queue::{Outgoing, QueueKind, QueueNames, QueueUrls, Sender};
use broker_runtime::aws::Aws;
use broker_store::{Pages, Store};
use tokio::task::JoinSet;

/// Sends every queued request again and returns their number.
pub(super) async fn queued_requests(aws: &Aws, names: &QueueNames, store: &Store) -> anyhow::Result<usize> {
    let urls = QueueUrls::resolve(aws, names).await?;
    let sender = Sender::new(aws.sqs.clone(), urls.get(QueueKind::Requests), Sender::MAX_IN_FLIGHT);
    let mut sent = 0;
    let mut pages = Pages::new(|after| store.requests.queued(after));
    while let Some(requests) = pages.next().await? {
        let mut sends = JoinSet::new();
        for message in requests.into_iter().filter_map(|request| request.message) {
            let sender = sender.clone();
            let tenant = tenant_of(&message);
            sends.spawn(async move { sender.send(Outgoing::from(message).of_tenant(tenant)).await });
        }
        while let Some(ended) = sends.join_next().await {
            ended??;
            sent += 1;
        }
    }
    Ok(sent)
}
