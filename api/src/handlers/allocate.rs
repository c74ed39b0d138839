//! `POST /v1/allocate`: allocates a sandbox for a track.
//!
//! Choosing a sandbox, or finding the one that the track holds, is the worker's task, in one write.

use std::time::Duration;

use broker_domain::policy::{ANY_FLAVOUR, Policy};
use broker_domain::waiting::Line;
use broker_domain::{
    AllocateRequest, Fingerprint, IdempotencyKey, LabDuration, Lease, LeaseKey, NamePrefix, Outcome,
    RequestId, Times, TrackName,
};
use broker_messages::Request;
use broker_store::{FollowedPolicy, StoreError};
use http::HeaderMap;
use http::request::Parts;

use crate::handlers::request::{RequestRecords, line_in_words};
use crate::metrics;
use crate::request::auth::TrackCaller;
use crate::request::body::{AllocateBody, MaxWait};
use crate::request::prefer::Preferences;
use crate::request::{flavour, headers};
use crate::response::problem::Problem;
use crate::response::{Content, Response, outcome};
use crate::rpc::{Progress, RequestReply};
use crate::waiting::CachedLines;

/// The shortest wait that the backlog is compared with.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
/// The word in logs and metrics of a 409 to a caller that asked for names with a prefix: the pool may be full of others.
const NO_PREFIX_MATCH: &str = "no_prefix_match";

/// The handler of allocate.
pub(crate) struct Allocate {
    pub(crate) rpc: RequestReply,
    pub(crate) wait: Duration,
    pub(crate) lab_duration: LabDuration,
    /// The longest that an allocate may say.
    pub(crate) longest: LabDuration,
    pub(crate) policy: FollowedPolicy,
    pub(crate) lines: CachedLines,
    pub(crate) records: RequestRecords,
}

impl Allocate {
    pub(crate) async fn handle(
        &self,
        id: RequestId,
        caller: TrackCaller,
        head: &Parts,
        template: &str,
        body: &[u8],
    ) -> Result<Response, Problem> {
        let TrackCaller { track, tenant } = caller;
        let policy = self.policy.now()?;
        let track_name = headers::track_name(&head.headers)?;
        let key = headers::idempotency_key(&head.headers)?;
        let key_is_explicit = key.is_some();
        let lease_key = LeaseKey { key: key.unwrap_or_else(|| IdempotencyKey::from(&track)), track };
        let held = async || self.held(&lease_key).await;
        let Wanted { body, said_prefix, prefix, flavour, only_held } =
            Wanted::of(&policy, &head.headers, body, held).await?;
        let lab_duration = self.lab_duration(&body, &lease_key).await?;
        let mut preferences = Preferences::of(&head.headers);
        let mut times = if preferences.respond_async {
            self.rpc.times_of_async()
        } else {
            self.rpc.times(super::wait(preferences, self.wait))
        };
        let line = Line { tenant: tenant.clone(), prefix: prefix.clone() };
        // A client that knows lines knows 202.
        preferences.said |= body.max_wait_s.is_some();
        let may_wait = !only_held && self.may_wait(&body, &line, &policy, &lease_key, &mut times).await?;
        let request = AllocateRequest {
            request_id: id,
            key_is_explicit,
            fingerprint: fingerprint(
                head.method.as_str(),
                template,
                track_name.as_ref(),
                said_prefix.as_ref(),
                &body,
            ),
            lease_key,
            track_name,
            prefix,
            lab_duration,
            heartbeat: body.heartbeat_s,
            may_wait,
            limited: policy.limits_of(&tenant).next().is_some(),
            tenant: Some(tenant.clone()),
            asynchronous: preferences.respond_async,
            times,
        };
        // A flavour that is empty is an empty pool, not a prefix that matches nothing.
        let by_prefix = request.prefix.is_some() && flavour == ANY_FLAVOUR;
        // A caller that knows 202 may get its sandbox after its wait.
        let until = if preferences.said { times.deadline } else { times.reply_by };
        self.rpc.backlog.admit(until.since(times.enqueued_at).max(LEAST_PATIENCE))?;
        let request = Request::Allocate(request);
        let (called, stood_in) = if preferences.respond_async {
            (self.rpc.enqueue(&request, &tenant).await, None)
        } else {
            let called = self.rpc.call(&request, &tenant).await;
            if may_wait { self.at_the_end_of_its_wait(called, id).await } else { (called, None) }
        };
        let answered = called.and_then(|answered| {
            let mut answer = super::answer(&answered, id, preferences)?;
            answer.may_wait = may_wait;
            if let (Progress::Ended(Outcome::Expired), Some(line)) = (&answered, &stood_in) {
                let told = outcome::in_vain(&line_in_words(line, &policy));
                answer.content = Content::Problem(told.body(id));
                answer.outcome = outcome::WAITED_IN_VAIN.into();
            }
            if by_prefix && matches!(answered, Progress::Ended(Outcome::NoSandboxes)) {
                answer.outcome = NO_PREFIX_MATCH.into();
            }
            Ok(answer)
        });
        if !policy.flavours().is_empty() {
            metrics::allocated_of(flavour, &answered);
        }
        answered
    }

    /// The progress of the request `id`, which is recorded, when its call waits no more; and in which line it stood, if it has
    /// ended without a reply: the reply is late or lost, an operator cancelled it, or its time in the line is over.
    async fn at_the_end_of_its_wait(
        &self,
        called: Result<Progress, Problem>,
        id: RequestId,
    ) -> (Result<Progress, Problem>, Option<Line>) {
        if !matches!(called, Ok(Progress::StillQueued)) {
            return (called, None);
        }
        match self.records.end_of(id).await {
            Ok(Some((outcome, stood_in))) => (Ok(Progress::Ended(outcome)), stood_in),
            Ok(None) => (called, None),
            Err(error) => {
                tracing::info!(request_id = %id, "the record was not read when the wait was over: {error}");
                (called, None)
            }
        }
    }

    /// The live lease of `lease_key`. What is refused because of settings or the policy is not refused to a key that holds a
    /// sandbox: it is the repeat of a request from before they changed, and must find that sandbox.
    async fn held(&self, lease_key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let lease = self.rpc.store.leases.get(lease_key).await?;
        let now = self.rpc.clock.now();
        Ok(lease.filter(|lease| lease.end.is_none() && now < lease.grant.expires_at))
    }

    /// Whether the request may wait in `line`; then its deadline is the end of that wait.
    async fn may_wait(
        &self,
        body: &AllocateBody,
        line: &Line,
        policy: &Policy,
        lease_key: &LeaseKey,
        times: &mut Times,
    ) -> Result<bool, Problem> {
        let Some(max_wait) = body.max_wait_s.and_then(MaxWait::time) else { return Ok(false) };
        let holds = async || Ok::<_, StoreError>(self.held(lease_key).await?.is_some());
        if !self.lines.admit(line, policy, holds).await? {
            return Ok(false);
        }
        times.deadline = times.enqueued_at.plus(max_wait);
        times.reply_by = times.reply_by.min(times.deadline);
        Ok(true)
    }

    /// For how long the sandbox of `lease_key` is lent. What is longer than this broker lends is a 400, unless the key holds a
    /// sandbox. If its lease ends at that moment, the next one is as long as the bound.
    async fn lab_duration(&self, body: &AllocateBody, lease_key: &LeaseKey) -> Result<LabDuration, Problem> {
        match (body.lab_duration_hours, body.heartbeat_s) {
            (Some(hours), _) if hours <= self.longest => Ok(hours),
            (Some(_), _) => self.held(lease_key).await?.map(|_| self.longest).ok_or_else(|| {
                Problem::invalid(format!(
                    "lab_duration_hours must be a whole number from 1 to {}: this broker lends no sandbox for longer.",
                    self.longest.hours()
                ))
            }),
            (None, Some(_)) => Ok(self.longest),
            (None, None) => Ok(self.lab_duration),
        }
    }
}

/// What a request says of the sandbox that it wants, and what that means now.
struct Wanted {
    /// The body, with the flavour wherever it was named.
    body: AllocateBody,
    /// The prefix as it was said: the fingerprint has this one, so that a policy that changes makes no other request of a
    /// repeated one.
    said_prefix: Option<NamePrefix>,
    /// The prefix that the sandbox must have.
    prefix: Option<NamePrefix>,
    /// The flavour's name in metrics.
    flavour: String,
    /// Whether the policy has no such flavour, and the request is only for the sandbox that its key holds.
    only_held: bool,
}

impl Wanted {
    /// Of a request whose key has the live lease `held`.
    async fn of(
        policy: &Policy,
        headers: &HeaderMap,
        body: &[u8],
        held: impl AsyncFnOnce() -> Result<Option<Lease>, StoreError>,
    ) -> Result<Self, Problem> {
        let mut body = AllocateBody::parse(body)?;
        let said_prefix = headers::name_prefix(headers)?;
        body.flavour = flavour::named(headers::flavour(headers)?, body.flavour)?;
        let (prefix, only_held) = match flavour::prefix(policy, body.flavour.as_ref(), said_prefix.clone()) {
            Ok(prefix) => (prefix, false),
            // If the lease ends at that moment, the request is for none.
            Err(refused) => (Some(held().await?.and_then(|_| of_no_name()).ok_or(refused)?), true),
        };
        let flavour = flavour::label(policy, prefix.as_ref());
        Ok(Self { body, said_prefix, prefix, flavour, only_held })
    }
}

/// A prefix that no sandbox has: as long as a prefix may be, and the same for all, so that workers look for it once.
fn of_no_name() -> Option<NamePrefix> {
    NamePrefix::new("~".repeat(128)).ok()
}

/// The fingerprint: it distinguishes two uses of one explicit key.
fn fingerprint(
    method: &str,
    template: &str,
    track_name: Option<&TrackName>,
    prefix: Option<&NamePrefix>,
    body: &AllocateBody,
) -> Fingerprint {
    let body = body.canonical();
    let (track_name, prefix) = (track_name.map(TrackName::as_str), prefix.map(NamePrefix::as_str));
    Fingerprint::of([Some(method), Some(template), track_name, prefix, Some(body.as_str())])
}
