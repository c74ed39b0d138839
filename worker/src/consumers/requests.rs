//! Handler of the requests queue: a request → its outcome → the reply.

use std::time::Duration;

use broker_domain::{Outcome, Reason, SandboxId, Timestamp, TrackName};
use broker_messages::{Request, RequestMessage};
use broker_queue::{Delivery, QueueKind, QueueNames, ReplyQueueName};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::trace;

use super::disposition::Disposition;
use super::{Consumer, Description, Handler, Intake, Services};
use crate::finality::HandlerError;
use crate::handlers::Handlers;
use crate::reply::ReplySender;
use crate::shares::Party;

/// The most concurrent polls; SQS returns ten messages a poll.
const MAX_POLLS: usize = 8;
/// How long a message of a newer version waits for a newer worker at first.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(5);

/// Handles requests.
#[derive(Debug)]
pub(crate) struct RequestHandler {
    names: QueueNames,
    handlers: Handlers,
    replies: ReplySender,
    clock: Clock,
}

/// A decoded request.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    message: RequestMessage,
    request: Request,
    reply_to: ReplyQueueName,
}

impl RequestHandler {
    /// The consumer of the requests queue.
    pub(crate) fn consumer(services: &Services, handlers: Handlers) -> Consumer<Self> {
        let Services { aws, urls, store, config, clock, .. } = services;
        let names = urls.names().clone();
        let replies = ReplySender::new(aws, urls, store.clone(), clock.clone());
        let handler = Self { names, handlers, replies, clock: clock.clone() };
        let at_once = config.worker_concurrency;
        Consumer::new(services, Intake { queue: QueueKind::Requests, at_once, max_polls: MAX_POLLS }, handler)
    }

    async fn reply(
        &self,
        delivery: &Delivery,
        IncomingRequest { message, request, reply_to }: &IncomingRequest,
        outcome: Outcome,
    ) -> Result<(), HandlerError> {
        let (word, grant) = (outcome.as_str(), outcome.grant().cloned());
        let returned = outcome.returned().cloned();
        if !self.replies.reply(message, request, reply_to, outcome).await? {
            let request_id = message.request_id;
            tracing::info!(%request_id, outcome = word, "its request waits on: nothing is told");
            return Ok(());
        }
        metrics::counter!("broker_requests_handled_total", "kind" => message.body.kind(), "outcome" => word)
            .increment(1);
        let age = self.clock.now().since(message.times().enqueued_at);
        // What a table that was restored does not know is read from this line (`broker_domain::reconcile::HandedOut`).
        let sandbox_id = grant.as_ref().map(|grant| &grant.sandbox_id).or(returned.as_ref());
        let track_name = grant.as_ref().and_then(|grant| grant.track_name.as_ref());
        tracing::info!(
            request_id = %message.request_id,
            sandbox_id = sandbox_id.map(SandboxId::as_str),
            external_id = grant.as_ref().map(|grant| grant.external_id.as_str()),
            name = grant.as_ref().map(|grant| grant.name.as_str()),
            idempotency_key = message.body.idempotency_key(),
            track_name = track_name.map(TrackName::as_str),
            allocated_at = grant.as_ref().map(|grant| grant.allocated_at.as_secs()),
            expires_at = grant.as_ref().map(|grant| grant.expires_at.as_secs()),
            returned = returned.is_some(),
            trace_id = trace::current().map(|context| context.trace_id()),
            kind = message.body.kind(),
            track = %message.body.track(),
            outcome = word,
            receives = delivery.receive_count,
            age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            "handled"
        );
        Ok(())
    }
}

impl Handler for RequestHandler {
    type Message = IncomingRequest;

    fn decode(&self, delivery: &Delivery, now: Timestamp) -> Result<IncomingRequest, Disposition> {
        crash_points::point(Point::Received);
        let message = RequestMessage::decode_taken(&delivery.body, delivery.sent_at.max(now))
            .map_err(|error| Disposition::of_unreadable(&error, delivery, NEWER_VERSION_WAITS, now))?;
        let reply_to =
            self.names.parse_reply(&message.reply_to).map_err(|error| Disposition::of_foreign(&error))?;
        Ok(IncomingRequest { request: Request::from(&message), message, reply_to })
    }

    fn describe<'m>(&self, IncomingRequest { message, .. }: &'m IncomingRequest) -> Option<Description<'m>> {
        let (kind, request_id) = (message.body.kind(), Some(message.request_id));
        Some(Description { kind, request_id, traceparent: message.traceparent.as_deref() })
    }

    fn party(
        &self,
        _delivery: &Delivery,
        IncomingRequest { message, request, .. }: &IncomingRequest,
    ) -> Party {
        Party::of(request, message.tenant.clone())
    }

    async fn handle(
        &self,
        delivery: &Delivery,
        decoded: &IncomingRequest,
    ) -> Result<Disposition, HandlerError> {
        let handled = self.handlers.handle(&decoded.request, &delivery.body).await?;
        let Some(outcome) = handled else { return Ok(Disposition::Done) };
        let disposition = disposition_of(&outcome);
        self.reply(delivery, decoded, outcome).await?;
        Ok(disposition)
    }

    async fn reply_dead(
        &self,
        delivery: &Delivery,
        decoded: &IncomingRequest,
        code: &'static str,
    ) -> Result<(), HandlerError> {
        self.reply(delivery, decoded, Outcome::DeadLettered { reason: code.to_owned() }).await
    }

    fn acknowledged(&self, after: Duration) {
        metrics::histogram!("broker_message_handling_seconds").record(after);
    }
}

/// The disposition of a message whose request ended so. If the stored outcome is a dead letter, the copy is sent again: the
/// worker that stored it may have died before it sent the copy.
fn disposition_of(outcome: &Outcome) -> Disposition {
    match outcome {
        Outcome::DeadLettered { reason } => Disposition::DeadLetter {
            code: Reason::parse(reason).unwrap_or(Reason::Unknown).as_str(),
            reason: "its record says that it is a dead letter".to_owned(),
        },
        Outcome::Created(_)
        | Outcome::Existing(_)
        | Outcome::NoSandboxes
        | Outcome::QuotaExceeded(_)
        | Outcome::KeyReused
        | Outcome::Superseded
        | Outcome::Marked { .. }
        | Outcome::NotOwner
        | Outcome::AllocationExpired
        | Outcome::SandboxNotFound
        | Outcome::Expired
        | Outcome::Cancelled
        | Outcome::Ran(_)
        | Outcome::Unknown(_) => Disposition::Done,
    }
}
