//! Metrics of the API (ARCHITECTURE.md, "Metrics"); labels are templates and outcomes, never ids.

use std::borrow::Cow;
use std::time::Duration;

use crate::response::Response;
use crate::response::outcome::WAITED_IN_VAIN;
use crate::response::problem::Problem;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const ALLOCATE: &str = "broker_allocate_total";
const FLAVOUR_ALLOCATE: &str = "broker_flavour_allocate_total";
const IDEMPOTENT_HITS: &str = "broker_allocate_idempotent_hits_total";
const ALLOCATION_LATENCY: &str = "broker_allocation_latency_seconds";
const REQUEST_LATENCY: &str = "broker_request_latency_seconds";
const MARKED: &str = "broker_deletion_marked_total";
const RENEWED: &str = "broker_renew_total";
const PENDING: &str = "broker_pending_replies";
const SHED: &str = "broker_requests_shed_total";
const UNCLAIMED: &str = "broker_replies_unclaimed_total";
const REPLY_WAIT: &str = "broker_reply_wait_seconds";
const CLOCK_SKEW: &str = "broker_clock_skew_seconds";
const READY: &str = "broker_ready";
const WAITS: &str = "broker_reply_waits_total";

/// How a call's wait for its reply ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitEnd {
    /// With the reply.
    Answered,
    /// Without one, when its time was over.
    RanOut,
    /// The same of a request that may wait in a line: its caller asked for that.
    Waiting,
    /// Without one, because this process ends.
    Drained,
}

impl WaitEnd {
    const ALL: [Self; 4] = [Self::Answered, Self::RanOut, Self::Waiting, Self::Drained];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::RanOut => "ran_out",
            Self::Waiting => "waiting",
            Self::Drained => "drained",
        }
    }
}

/// Registers the descriptions.
pub(crate) fn describe() {
    describe_counter!(ALLOCATE, "allocate calls by outcome");
    describe_counter!(FLAVOUR_ALLOCATE, "allocate calls by the policy's flavour and outcome");
    describe_counter!(IDEMPOTENT_HITS, "allocate calls that got the sandbox their key already held");
    describe_histogram!(
        ALLOCATION_LATENCY,
        Unit::Seconds,
        "allocate calls that were answered with a sandbox, without those that might wait in a line"
    );
    describe_histogram!(REQUEST_LATENCY, Unit::Seconds, "HTTP requests by method, route and status");
    describe_counter!(MARKED, "mark-for-deletion calls by outcome");
    describe_counter!(RENEWED, "renewals of leases by outcome; unchanged ones were not worth a write");
    describe_gauge!(PENDING, "requests that wait for their replies in this process");
    describe_counter!(SHED, "requests refused because too many were pending or the queue was too long");
    describe_counter!(UNCLAIMED, "replies without a waiting request");
    describe_histogram!(REPLY_WAIT, Unit::Seconds, "from before the send to the reply");
    describe_gauge!(CLOCK_SKEW, Unit::Seconds, "correction of this machine's clock to follow AWS");
    describe_gauge!(READY, "1 while /readyz says ready, else 0");
    describe_counter!(WAITS, "waits for a reply by how they ended");
    // Created with 0: a counter that begins at 1 has not increased, for Prometheus, and triggers no alert.
    [SHED, IDEMPOTENT_HITS, UNCLAIMED].into_iter().for_each(|name| counter!(name).absolute(0));
    WaitEnd::ALL.into_iter().for_each(|end| counter!(WAITS, "outcome" => end.as_str()).absolute(0));
    ["created", "existing", "no_sandboxes", "no_prefix_match", "cancelled", WAITED_IN_VAIN]
        .into_iter()
        .for_each(|outcome| counter!(ALLOCATE, "outcome" => outcome).absolute(0));
}

/// Counts an allocate call; `latency` is how long it took, unless it might wait in a line.
pub(crate) fn allocated(outcome: Cow<'static, str>, latency: Option<Duration>) {
    if outcome == "existing" {
        counter!(IDEMPOTENT_HITS).increment(1);
    }
    if let Some(latency) = latency
        && matches!(&*outcome, "created" | "existing")
    {
        histogram!(ALLOCATION_LATENCY).record(latency);
    }
    counter!(ALLOCATE, "outcome" => outcome).increment(1);
}

/// The end of an allocate of a flavour, where a policy names flavours.
pub(crate) fn allocated_of(flavour: String, answered: &Result<Response, Problem>) {
    let outcome = match answered {
        Ok(answer) => answer.outcome.to_string(),
        Err(problem) => problem.outcome(),
    };
    counter!(FLAVOUR_ALLOCATE, "flavour" => flavour, "outcome" => outcome).increment(1);
}

pub(crate) fn returned(outcome: Cow<'static, str>) {
    counter!(MARKED, "outcome" => outcome).increment(1);
}

pub(crate) fn renewed(outcome: Cow<'static, str>) {
    counter!(RENEWED, "outcome" => outcome).increment(1);
}

pub(crate) fn answered(method: &'static str, route: &'static str, status: u16, latency: Duration) {
    histogram!(REQUEST_LATENCY, "method" => method, "route" => route, "status" => status.to_string())
        .record(latency);
}

pub(crate) fn shed() {
    counter!(SHED).increment(1);
}

pub(crate) fn unclaimed_reply() {
    counter!(UNCLAIMED).increment(1);
}

pub(crate) fn reply_waited(waited: Duration) {
    histogram!(REPLY_WAIT).record(waited);
}

pub(crate) fn wait_ended(end: WaitEnd) {
    counter!(WAITS, "outcome" => end.as_str()).increment(1);
}

/// Gauges are set at each scrape.
pub(crate) fn gauges(pending: usize, clock_correction_s: f64, is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
    gauge!(PENDING).set(u32::try_from(pending).unwrap_or(u32::MAX));
    gauge!(CLOCK_SKEW).set(clock_correction_s);
}
