//! `/v1/admin/waiting`: who waits, and cancelling. The same code as `broker waiting`.
//!
//! A call reads and cancels a bounded number of places, and one that names no requests cancels for no longer than its caller
//! waits; a page may hold fewer than `limit`, even none, and still have a `next_cursor`, and a cancellation that says `more` is
//! continued by the same call with its `next_cursor`. A line stays listed for a while after it was emptied, so a call without a
//! cursor would read the same lines again.

use std::time::Duration;

use broker_domain::{FlavourName, NamePrefix, Outcome, RequestId, TenantName, TrackId};
use broker_messages::{Reply, summarize};
use broker_store::waiting::{self, WaitingFilter, WaitingPage};
use broker_store::{Act, AuditLine, PageKey, StoreError};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use super::Operator;
use super::cursor::Cursors;
use crate::handlers;
use crate::request::parameters::{
    ACTION_DRY_RUN, CURSOR, WAITING_ACTION, WAITING_ALL, WAITING_FILTERS, WAITING_FLAVOUR, WAITING_IDS,
    WAITING_LIMIT, WAITING_PAGE, WAITING_PREFIX, WAITING_TENANT, WAITING_TRACK,
};
use crate::request::prefer::Preferences;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::{CancelledWaiting, LineBody, WaitingList, WaitingRequestBody};
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::waiting::told;

/// The most reads of places for one list.
const READS: usize = 12;
/// The same for one call that cancels.
const READS_TO_CANCEL: usize = 32;
/// The most requests that one call cancels.
const MOST: usize = 1_000;
/// Lines of one page.
const MOST_LINES: usize = 100;

impl Operator {
    pub(super) async fn waiting(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[WAITING_FILTERS, WAITING_PAGE])?;
        let (store, now) = (&self.rpc.store, self.rpc.clock.now());
        let filter = self.waiting_filter(query)?;
        let most = usize::try_from(query.number(&WAITING_LIMIT)?).unwrap_or(usize::MAX);
        let (cursors, after) = self.waiting_after(query)?;
        let WaitingPage { places, next } = waiting::list(store, &filter, track, after, (most, READS)).await?;
        let (policy, known) = (self.policy.now()?, self.lines.now().await?);
        let mut lines: Vec<_> = known.listed.iter().filter(|listed| filter.takes(&listed.line)).collect();
        lines.sort_by_key(|listed| std::cmp::Reverse(listed.marks.length));
        let lines_total = lines.len();
        lines.truncate(MOST_LINES);
        let mut shown = Vec::with_capacity(places.len());
        for place in &places {
            let standing = known.standing(&place.line, place.request_id, now);
            let reason = self.lines.reason(&place.line, &policy).await?;
            let of = (&place.line, place.request_id);
            let estimate = self.lines.estimate(of, &known, &policy, reason).await;
            let told = told(standing, place.request_id, place.deadline, reason, estimate);
            shown.push(WaitingRequestBody::new(place, track(&place.message), told, &policy));
        }
        let mut bodies = Vec::with_capacity(lines.len());
        for listed in lines {
            let reason = self.lines.reason(&listed.line, &policy).await?;
            bodies.push(LineBody::new(listed, reason, &policy));
        }
        let list = WaitingList {
            waiting: shown,
            next_cursor: next.map(|key| cursors.encode(&key)),
            lines: bodies,
            lines_total: lines_total as u64,
        };
        Ok(Response::json(StatusCode::OK, json!(list), "listed"))
    }

    pub(super) async fn cancel_waiting(
        &self,
        id: RequestId,
        who: &str,
        query: &Query,
        head: &Parts,
    ) -> Result<Response, Problem> {
        query.only(&[WAITING_FILTERS, WAITING_ACTION])?;
        let wait = handlers::wait(Preferences::of(&head.headers), self.wait).max(Duration::from_secs(1));
        let until = self.rpc.clock.instant() + wait;
        let filter = self.waiting_filter(query)?;
        let (ids, dry_run) = (ids(query)?, query.flag(&ACTION_DRY_RUN)?);
        let (cursors, after) = self.waiting_after(query)?;
        let (are_named, mut unreadable) = (ids.is_some(), 0);
        let (page, target) = match (ids, filter.is_empty(), query.flag(&WAITING_ALL)?) {
            (Some(_), ..) if after.is_some() => {
                return Err(Problem::invalid("cursor goes on with filters or all=true, not with id."));
            }
            (Some(ids), true, false) => {
                let page;
                (page, unreadable) = self.named(&ids).await?;
                (page, format!("{} ids", ids.len()))
            }
            (None, false, false) => (self.matching(&filter, after).await?, filter.to_string()),
            (None, true, true) => (self.matching(&filter, after).await?, "all".to_owned()),
            _ => return Err(Problem::invalid("Select requests by one of id, filters and all=true.")),
        };
        let WaitingPage { places: found, next } = page;
        let mut report = CancelledWaiting {
            dry_run,
            found: found.len() as u64,
            unreadable,
            more: next.is_some(),
            next_cursor: next.map(|key| cursors.encode(&key)),
            ..CancelledWaiting::default()
        };
        if !dry_run && !found.is_empty() {
            let line = AuditLine {
                count: Some(report.found),
                ..AuditLine::new(self.rpc.clock.now(), *id.as_uuid(), who, Act::CancelWaiting, target)
            };
            let cancelled = Box::pin(async {
                let (mut handled, mut last) = (0, None);
                for place in &found {
                    if !are_named
                        && self.rpc.clock.instant() >= until
                        && let Some(last) = last
                    {
                        let next_cursor = Some(cursors.encode(&waiting::behind(last)));
                        report = CancelledWaiting { found: handled, more: true, next_cursor, ..report };
                        break;
                    }
                    (handled, last) = (handled + 1, Some(place));
                    let cancelled = waiting::cancel(&self.rpc.store, &self.entropy, place).await;
                    let before = |error| Problem::from(error).after(report.cancelled, report.found);
                    match cancelled.map_err(before)? {
                        true => {
                            // A call that this process holds for it; another process finds it at the end of the wait.
                            self.rpc.replies.deliver(Reply::new(place.request_id, Outcome::Cancelled));
                            report.cancelled += 1;
                        }
                        false => report.ended += 1,
                    }
                }
                let told = json!(report);
                self.done(&line, &told.to_string()).await;
                Ok(Response::json(StatusCode::OK, told, "done"))
            });
            return self.act(&line, cancelled).await;
        }
        Ok(Response::json(StatusCode::OK, json!(report), "done"))
    }

    /// Those of `ids` that wait, and how many cannot be read: they are in no other's way.
    async fn named(&self, ids: &[RequestId]) -> Result<(WaitingPage, u64), Problem> {
        let (mut page, mut unreadable) = (WaitingPage::default(), 0);
        for id in ids {
            match waiting::find(&self.rpc.store, *id).await {
                Err(error @ StoreError::Malformed { .. }) => {
                    tracing::error!(request_id = %id, "not cancelled: {error}");
                    unreadable += 1;
                }
                found => page.places.extend(found?),
            }
        }
        Ok((page, unreadable))
    }

    /// What one call cancels of those that match, behind `after`.
    async fn matching(&self, filter: &WaitingFilter, after: Option<PageKey>) -> Result<WaitingPage, Problem> {
        Ok(waiting::list(&self.rpc.store, filter, track, after, (MOST, READS_TO_CANCEL)).await?)
    }

    /// The cursors of the list that the query selects, and where it goes on.
    fn waiting_after(&self, query: &Query) -> Result<(Cursors, Option<PageKey>), Problem> {
        let cursors = Cursors::of("waiting", self.rpc.store.table(), query);
        let after = query.checked(&CURSOR, |text| cursors.parse(text).ok_or(()))?;
        Ok((cursors, after))
    }

    fn waiting_filter(&self, query: &Query) -> Result<WaitingFilter, Problem> {
        let prefix = query.checked(&WAITING_PREFIX, |text| NamePrefix::new(text))?;
        let prefix = match query.checked(&WAITING_FLAVOUR, |text| FlavourName::new(text))? {
            None => prefix,
            Some(flavour) => {
                let policy = self.policy.now()?;
                let of_flavour = policy.flavours().get(&flavour).map(|flavour| flavour.prefix.clone());
                let of_flavour = of_flavour.ok_or_else(|| {
                    Problem::new(Code::UnknownFlavour, format!("The policy names no flavour {flavour}."))
                })?;
                if prefix.is_some_and(|prefix| prefix != of_flavour) {
                    return Err(Problem::invalid("flavour and name_prefix say different things."));
                }
                Some(of_flavour)
            }
        };
        Ok(WaitingFilter {
            tenant: query.checked(&WAITING_TENANT, |text| TenantName::new(text))?,
            prefix,
            track: query.checked(&WAITING_TRACK, |text| TrackId::new(text))?,
        })
    }
}

fn track(message: &str) -> Option<TrackId> {
    summarize(message).track
}

/// The ids that the query names, if it names some. The longest path bounds their number.
fn ids(query: &Query) -> Result<Option<Vec<RequestId>>, Problem> {
    let Some(text) = query.get(WAITING_IDS.name) else { return Ok(None) };
    let ids = text.split(',').map(RequestId::parse).collect::<Result<Vec<_>, _>>();
    ids.map(Some).map_err(|error| Problem::invalid(format!("id: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PATH_BYTES;

    #[test]
    fn as_many_requests_are_named_as_fit_into_a_path() {
        let path = "/v1/admin/waiting/cancel";
        let one = "0197f1a0-0000-7000-8000-000000000000";
        let most = (PATH_BYTES - path.len() - "?id=".len() + 1) / (one.len() + 1);
        let query = format!("id={}", vec![one; most].join(","));
        assert!(most > 50 && path.len() + 1 + query.len() <= PATH_BYTES);
        assert_eq!(ids(&Query::parse(Some(&query)).unwrap()).unwrap().unwrap().len(), most);
        assert!(ids(&Query::parse(Some("id=x")).unwrap()).is_err());
    }
}
