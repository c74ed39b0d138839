//! Places of a line: read with their messages, and ended by their keys' leases or at their deadlines. One that can never be
//! served becomes a dead letter ([`bury`]).

use broker_domain::waiting::{Line, Place};
use broker_domain::{AllocateRequest, Lease, LeaseVerdict, Outcome, Reason, RequestId, Timestamp, judge};
use broker_messages::{Request, RequestMessage};
use broker_queue::ReplyQueueName;
use broker_store::{PlaceItem, PlaceRows, StoreError};

use super::bury::{self, Why};
use super::parked::{ParkedRequest, end, waited};
use crate::jobs::Jobs;

/// Places that are read at a time behind those that are passed over.
const PASSED_OVER: u16 = 200;

/// The decoded message of a place, or why it cannot be decoded.
fn read(jobs: &Jobs, place: &Place) -> Result<(RequestMessage, AllocateRequest, ReplyQueueName), Why> {
    let message = RequestMessage::decode(&place.message)
        .map_err(|error| (bury::reason(error.reason_code()), error.to_string()))?;
    let reply_to = jobs
        .urls
        .names()
        .parse_reply(&message.reply_to)
        .map_err(|error| (Reason::ForeignReplyQueue, error.to_string()))?;
    match Request::from(&message) {
        Request::Allocate(ask) if ask.request_id == place.request_id => Ok((message, ask, reply_to)),
        Request::Allocate(_) | Request::Return(_) => {
            Err((Reason::Malformed, "its place is another request's".to_owned()))
        }
    }
}

/// The places of a page that can be served, with their messages, in their order. The others become dead letters; a place of a newer
/// version is kept until its deadline. One that the table does not let go for the moment is met by the next who reads it, and is
/// in no other's way.
pub(super) async fn readable(jobs: &Jobs, rows: PlaceRows) -> Vec<ParkedRequest> {
    let buried = async |item: &PlaceItem, why: Why| {
        if let Err(error) = bury::item(jobs, item, why).await {
            tracing::warn!(place = item.key, line = %item.line, "unreadable, and no dead letter yet: {error}");
        }
    };
    for item in rows.unreadable {
        let why =
            (Reason::MalformedItem, format!("the place {} of line {}: {}", item.key, item.line, item.why));
        buried(&item, why).await;
    }
    let now = jobs.clock.now();
    let mut readable = Vec::with_capacity(rows.places.len());
    for place in rows.places {
        match read(jobs, &place) {
            Ok((message, ask, reply_to)) => readable.push(ParkedRequest { place, message, ask, reply_to }),
            Err((Reason::NewerVersion, _)) if now <= place.deadline => {}
            Err(why) => buried(&PlaceItem::from(&place), why).await,
        }
    }
    readable
}

/// Whether a place stands in one of `lines`: one that emptied is listed as long as its last request might have waited.
pub(super) async fn stand_in(jobs: &Jobs, lines: &[Line]) -> Result<bool, StoreError> {
    for line in lines {
        let rows = jobs.store.waiting.places(line, None, 1).await?.items;
        if !rows.places.is_empty() || !rows.unreadable.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first places of `line`, read so many at a time, without those past their deadline and those that are passed over: at least one if
/// there is one. With them the last request that was read, if others may stand behind it.
pub(super) async fn heads(
    jobs: &Jobs,
    line: &Line,
    at_a_time: u16,
    is_passed_over: impl Fn(&RequestId) -> bool,
) -> Result<(Vec<ParkedRequest>, Option<RequestId>), StoreError> {
    let (mut heads, mut after, now) = (Vec::new(), None, jobs.clock.now());
    let mut at_a_time = at_a_time;
    loop {
        let page = jobs.store.waiting.places(line, after, at_a_time).await?;
        // Behind a page of which nothing is to be served there may be many more.
        at_a_time = PASSED_OVER;
        let last = page.items.places.last().map(|place| place.request_id);
        for waiter in readable(jobs, page.items).await {
            if waiter.place.deadline < now {
                // It is ended in a task of its own: if that fails now, it does not stop the dealing.
                jobs.soon.note(&waiter.place, now);
            } else if !is_passed_over(&waiter.place.request_id) {
                heads.push(waiter);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((heads, None));
        }
        // What was settled or set aside hid what stands behind it.
        if !heads.is_empty() {
            return Ok((heads, last));
        }
    }
}

/// The outcome that its key's lease has for a request that waits; `None` if it needs a sandbox.
pub(super) fn outcome_by(lease: Option<&Lease>, ask: &AllocateRequest, now: Timestamp) -> Option<Outcome> {
    match judge(lease, ask, now) {
        LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => None,
        LeaseVerdict::Mine(grant) => Some(Outcome::Created(grant)),
        LeaseVerdict::Existing(grant) => Some(Outcome::Existing(grant)),
        LeaseVerdict::KeyReused => Some(Outcome::KeyReused),
        LeaseVerdict::Superseded => Some(Outcome::Superseded),
    }
}

/// Stores and tells what its key's lease says to a request that waits, or that its time is over, and deletes the place; nothing,
/// if it waits on.
pub(super) async fn end_if_answered(jobs: &Jobs, waiter: &ParkedRequest) -> Result<(), StoreError> {
    let lease = jobs.store.leases.get(&waiter.ask.lease_key).await?;
    let now = jobs.clock.now();
    let over = (waiter.place.deadline < now).then_some(Outcome::Expired);
    let Some(outcome) = outcome_by(lease.as_ref(), &waiter.ask, now).or(over) else { return Ok(()) };
    // Who granted it counted it. That one may have died before it told it.
    let counted = (!matches!(outcome, Outcome::Created(_))).then(|| outcome.as_str());
    if end(jobs, waiter, outcome).await?
        && let Some(counted) = counted
    {
        waited(jobs, waiter, counted);
    }
    Ok(())
}
