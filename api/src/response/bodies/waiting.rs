//! Bodies of responses about requests that wait.

use broker_domain::TrackId;
use broker_domain::policy::Policy;
use broker_domain::waiting::{Line, Place, minted_at};
use broker_store::ListedLine;
use schemars::JsonSchema;
use serde::Serialize;

/// Where a request stands that waits in a line.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Waiting")]
pub(crate) struct WaitingBody {
    /// How many requests of its line are before it, about: from a look that is a minute old at most.
    pub(crate) ahead: u64,
    /// How many requests its line has, about.
    pub(crate) length: u64,
    /// Since when it waits, in seconds since the epoch.
    pub(crate) since: u64,
    /// Until when it waits, in seconds since the epoch.
    pub(crate) deadline: u64,
    /// Why it waits: nothing is free (`empty`), its tenant has as many as it may (`limit`), more were asked for
    /// (`refill_running`), or nothing more is asked for, since refill is paused or its hook fails (`refill_stopped`).
    #[schemars(extend("enum" = ["empty", "limit", "refill_running", "refill_stopped"]))]
    pub(crate) reason: &'static str,
    /// In how many seconds it may be served, about, at the rate of the last ten minutes; null where nothing was granted, and while
    /// the tenant's limit or a stopped refill is in the way.
    pub(crate) estimate_s: Option<u64>,
    /// What the estimate is by; null without one.
    pub(crate) estimate_basis: Option<EstimateBasisBody>,
}

/// The rate that an estimate is by.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EstimateBasis")]
pub(crate) struct EstimateBasisBody {
    /// So many waiting requests of the flavour were granted a sandbox
    pub(crate) granted: u64,
    /// in the last so many seconds.
    pub(crate) within_s: u64,
}

/// A page of the requests that wait.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WaitingList {
    /// Line by line, each in the order of asking.
    pub(crate) waiting: Vec<WaitingRequestBody>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    /// The lines that match, the longest first, 100 of them at most.
    pub(crate) lines: Vec<LineBody>,
    /// How many lines match.
    pub(crate) lines_total: u64,
}

/// A request that waits.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WaitingRequest")]
pub(crate) struct WaitingRequestBody {
    /// The id of the request.
    #[schemars(extend("format" = "uuid"))]
    request_id: String,
    /// Whose request it is.
    tenant: String,
    /// The owner for whom it asks; null if its message cannot be read.
    track_id: Option<String>,
    /// What the name of its sandbox must begin with; null if any will do.
    name_prefix: Option<String>,
    /// The flavour of that prefix; null if it is of none.
    flavour: Option<String>,
    /// Where it stands.
    #[serde(flatten)]
    waiting: WaitingBody,
}

impl WaitingRequestBody {
    pub(crate) fn new(place: &Place, track: Option<TrackId>, waiting: WaitingBody, policy: &Policy) -> Self {
        let Line { tenant, prefix } = &place.line;
        Self {
            request_id: place.request_id.to_string(),
            tenant: tenant.to_string(),
            track_id: track.map(|track| track.to_string()),
            name_prefix: prefix.as_ref().map(ToString::to_string),
            flavour: flavour(&place.line, policy),
            waiting,
        }
    }
}

/// A line: the requests of one tenant that want names with the same beginning.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WaitingLine")]
pub(crate) struct LineBody {
    /// Whose requests they are.
    tenant: String,
    /// What the names of their sandboxes must begin with; null if any will do.
    name_prefix: Option<String>,
    /// The flavour of that prefix; null if it is of none.
    flavour: Option<String>,
    /// How many waited at the last look, a minute ago at most.
    length: u64,
    /// Since when the first of them waits, in seconds since the epoch; null if the line was empty then.
    oldest_since: Option<u64>,
    /// Why they wait.
    #[schemars(extend("enum" = ["empty", "limit", "refill_running", "refill_stopped"]))]
    reason: &'static str,
}

impl LineBody {
    pub(crate) fn new(listed: &ListedLine, reason: &'static str, policy: &Policy) -> Self {
        let Line { tenant, prefix } = &listed.line;
        Self {
            tenant: tenant.to_string(),
            name_prefix: prefix.as_ref().map(ToString::to_string),
            flavour: flavour(&listed.line, policy),
            length: listed.marks.length,
            oldest_since: listed.marks.first().map(|first| minted_at(first).as_secs()),
            reason,
        }
    }
}

fn flavour(line: &Line, policy: &Policy) -> Option<String> {
    policy.flavour_with(line.prefix.as_ref()).map(|(name, _)| name.to_string())
}

/// What a cancellation did, or would do.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct CancelledWaiting {
    /// Whether nothing was written.
    pub(crate) dry_run: bool,
    /// How many were found.
    pub(crate) found: u64,
    /// Of these, how many are cancelled.
    pub(crate) cancelled: u64,
    /// Of these, how many had ended, or were served at the same moment.
    pub(crate) ended: u64,
    /// How many of the named ones have a record that cannot be read: nothing was done with them.
    pub(crate) unreadable: u64,
    /// Whether there are more than one call takes: the same call continues, with its `next_cursor` as `cursor`.
    pub(crate) more: bool,
    /// Where it ended, if there are more: `cursor` of the call that goes on there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}
