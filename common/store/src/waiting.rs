//! Lines and places as they are read, and what operators do with them: the same code for `broker waiting` and
//! `/v1/admin/waiting`.

use std::fmt;

use broker_domain::waiting::{Line, Marks, Place};
use broker_domain::{Job, NamePrefix, RequestId, RequestState, TenantName, Timestamp, TrackId};
use broker_runtime::entropy::Entropy;

use crate::dynamodb::waiting::{cursor, line_of};
use crate::{PageKey, Store, StoreError, retry_on_conflict};

/// Places that are read at a time.
const READ: usize = 500;

/// A line, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedLine {
    /// The line.
    pub line: Line,
    /// Until when it is listed: later than any deadline in it.
    pub until: Timestamp,
    /// What the last walk found.
    pub marks: Marks,
    /// When that was, if there was one.
    pub as_of: Option<Timestamp>,
}

/// The lines of one tenant, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantLines {
    /// Those that were listed.
    pub lines: Vec<ListedLine>,
    /// The version of their guard, which was read before them; 0 if there is none.
    pub(crate) guard: u64,
}

/// Places of a line, in their order, as far as they can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceRows {
    /// Those that can be read.
    pub places: Vec<Place>,
    /// Those that cannot.
    pub unreadable: Vec<PlaceItem>,
}

/// The item of a place, as it was read: what a write names that buries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceItem {
    /// Its line.
    pub line: Line,
    /// Its sort key.
    pub key: String,
    /// Its message, if it has one.
    pub message: Option<String>,
    /// Why it cannot be read; empty if it can.
    pub why: String,
}

impl PlaceItem {
    /// The request whose place it is, if its key tells.
    pub fn request_id(&self) -> Option<RequestId> {
        RequestId::parse(&self.key).ok()
    }
}

impl From<&Place> for PlaceItem {
    fn from(place: &Place) -> Self {
        let (key, message) = (place.request_id.to_string(), Some(place.message.clone()));
        Self { line: place.line.clone(), key, message, why: String::new() }
    }
}

/// Why `job` may not be paused, if it may not. SERVE alone grants to those who wait: it runs on while waiting is on, as this
/// process is configured, and while a line stands: those who wait in it are ended by it, however late.
pub async fn keeps_running(
    store: &Store,
    job: Job,
    waiting_is_on: bool,
) -> Result<Option<&'static str>, StoreError> {
    if job != Job::Serve {
        return Ok(None);
    }
    if waiting_is_on {
        return Ok(Some(
            "serve cannot be paused while waiting is on (BROKER_WAITING): those who wait are served by it",
        ));
    }
    let stands = !store.waiting.lines_to_walk().await?.is_empty();
    Ok(stands.then_some("serve cannot be paused while a line is listed (until ten minutes after the last deadline in it, and until it was found empty then): those who wait are served by it"))
}

/// Which of those that wait: everything that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingFilter {
    /// The tenant.
    pub tenant: Option<TenantName>,
    /// The name prefix that they asked for, exactly.
    pub prefix: Option<NamePrefix>,
    /// The track.
    pub track: Option<TrackId>,
}

impl WaitingFilter {
    /// Whether nothing is set.
    pub const fn is_empty(&self) -> bool {
        self.tenant.is_none() && self.prefix.is_none() && self.track.is_none()
    }

    /// Whether a line may have places that match.
    pub fn takes(&self, line: &Line) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == line.tenant)
            && self.prefix.as_ref().is_none_or(|prefix| Some(prefix) == line.prefix.as_ref())
    }
}

/// As the audit names it.
impl fmt::Display for WaitingFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.tenant.as_ref().map(|tenant| format!("tenant={tenant}")),
            self.prefix.as_ref().map(|prefix| format!("prefix={prefix}")),
            self.track.as_ref().map(|track| format!("track={track}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// A page of those that wait.
#[derive(Clone, Debug, Default)]
pub struct WaitingPage {
    /// Line by line, each in the order of asking.
    pub places: Vec<Place>,
    /// Where the next page begins; none at the end.
    pub next: Option<PageKey>,
}

/// The places that match `filter`, behind `after`: at most `most`, found with at most `reads` calls. `track_of` is the track that
/// a message names. Those past their deadline are among them as long as they stand.
///
/// # Errors
///
/// When the table does not answer.
pub async fn list(
    store: &Store,
    filter: &WaitingFilter,
    track_of: impl Fn(&str) -> Option<TrackId>,
    after: Option<PageKey>,
    (most, mut reads): (usize, usize),
) -> Result<WaitingPage, StoreError> {
    let begin = after.as_ref().and_then(line_of).map(|line| line.to_string());
    let (mut page, mut after) = (WaitingPage::default(), after);
    for listed in store.waiting.lines_to_walk().await? {
        let line = &listed.line;
        let text = line.to_string();
        if !filter.takes(line) || begin.as_ref().is_some_and(|begin| text < *begin) {
            continue;
        }
        let mut from = after.take().filter(|_| begin.as_ref() == Some(&text));
        loop {
            if page.places.len() >= most || reads == 0 {
                page.next = Some(from.unwrap_or_else(|| cursor(line, "")));
                return Ok(page);
            }
            reads -= 1;
            let wanted = if filter.track.is_some() { READ } else { (most - page.places.len()).min(READ) };
            let limit = u16::try_from(wanted).unwrap_or(u16::MAX);
            let read = store.waiting.places(line, from, limit).await?;
            let matches = |place: &Place| filter.track.is_none() || track_of(&place.message) == filter.track;
            for place in read.items.places.into_iter().filter(matches) {
                if page.places.len() >= most {
                    let last = page.places.last().map(|place| place.request_id.to_string());
                    page.next = Some(cursor(line, &last.unwrap_or_default()));
                    return Ok(page);
                }
                page.places.push(place);
            }
            from = read.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(page)
}

/// Where the page begins that goes on behind `place`.
pub fn behind(place: &Place) -> PageKey {
    cursor(&place.line, &place.request_id.to_string())
}

/// The place of a request, if it waits. Where the place was lost, as a restored table may have it, it is what the record tells of
/// it: the request waits in vain, and can be cancelled.
///
/// # Errors
///
/// When the table does not answer.
pub async fn find(store: &Store, id: RequestId) -> Result<Option<Place>, StoreError> {
    let Some(record) = store.requests.get(id).await? else { return Ok(None) };
    let Some(line) = record.parked else { return Ok(None) };
    let place = match store.waiting.place(&line, id).await {
        // Its request says what the cancellation needs.
        Err(StoreError::Malformed { .. }) => None,
        read => read?,
    };
    let (is_queued, deadline) = (record.state == RequestState::Queued, record.deadline);
    let lost = || is_queued.then(|| Place { line, request_id: id, deadline, message: String::new() });
    Ok(place.or_else(lost))
}

/// Cancels a request that waits; whether it was not too late. A place that stays grants nothing, and the next that meets it deletes
/// it.
///
/// # Errors
///
/// When the table refuses.
pub async fn cancel(store: &Store, entropy: &Entropy, place: &Place) -> Result<bool, StoreError> {
    let id = place.request_id;
    let cancelled = retry_on_conflict(entropy, || store.requests.cancel(id)).await?.is_applied();
    // Another end may be a dead letter's, which a replay takes back: the reader of the place knows.
    if cancelled && let Err(error) = store.waiting.leave(&place.line, id).await {
        tracing::info!(request_id = %id, "the place of a cancelled request was not deleted, a worker will: {error}");
    }
    Ok(cancelled)
}
