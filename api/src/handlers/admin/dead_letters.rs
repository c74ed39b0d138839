//! `/v1/admin/dead-letters`: list, show, replay, discard. The same code as `broker dead-letters`.
//!
//! A replay or discard acts on at most `limit` letters and takes no longer than its caller waits; if the response has `more`,
//! the same call continues, behind its `next_cursor` if it has one. A page may hold fewer than `limit`, even none, and still have
//! a `next_cursor`. Letters that another operator is replaying are skipped.

use std::time::Duration;

use broker_dead_letters::{
    Action, ActionOptions, DeadLetterListing, DeadLetters, PageView, Selection, View, WholeView,
};
use broker_domain::{DeadLetterFilter, DeadLetterId, DeadLetterState, Reason, Source, Timestamp, TrackId};
use broker_store::DeadLetterOrder;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use super::Operator;
use crate::handlers;
use crate::request::parameters::{
    self as parameter, ACTION_OPTIONS, LETTER_FILTERS, LETTER_PAGE, LETTER_SELECTION, Number,
};
use crate::request::prefer::Preferences;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The most reads of the table for one page.
const READS: usize = 12;
/// The most letters of one read: they are read whole, and a page shows few.
const READ_AT_ONCE: usize = 200;
/// The longest kind in a filter.
const LONGEST_KIND: usize = 64;
/// The longest reason of a discard.
const LONGEST_WHY: usize = 500;

impl Operator {
    pub(super) async fn dead_letters(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[LETTER_FILTERS, LETTER_PAGE])?;
        let filter = filter(query, self.rpc.clock.now())?;
        let limit = query.number(&parameter::LETTER_LIMIT)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let cursor = query.checked(&parameter::LETTER_CURSOR, DeadLetterId::parse)?;
        let order = match query.flag(&parameter::NEWEST_FIRST)? {
            true => DeadLetterOrder::NewestFirst,
            false => DeadLetterOrder::OldestFirst,
        };
        let listing = DeadLetterListing::new(self.rpc.store.clone(), filter, order, cursor.as_ref());
        let mut listing = listing.bounded(READ_AT_ONCE, READS);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(letter) = listing.next().await?
        {
            found.push(View::from(&letter));
        }
        let body = PageView { dead_letters: found, next_cursor: listing.cursor().cloned() };
        Ok(Response::json(StatusCode::OK, json!(body), "listed"))
    }

    pub(super) async fn dead_letter(&self, id: &str) -> Result<Response, Problem> {
        let not_found = || Problem::new(Code::NotFound, "There is no such dead letter.");
        let id = DeadLetterId::parse(id).map_err(|_| not_found())?;
        let letter = self.rpc.store.dead_letters.get(&id).await?;
        let view = letter.as_ref().map(WholeView::from).ok_or_else(not_found)?;
        Ok(Response::json(StatusCode::OK, json!(view), "shown"))
    }

    pub(super) async fn replay(&self, query: &Query, head: &Parts, by: &str) -> Result<Response, Problem> {
        let own = [parameter::RENEW_DEADLINE.parameter()];
        query.only(&[LETTER_FILTERS, LETTER_SELECTION, ACTION_OPTIONS, &own])?;
        let action = Action::Replay { renew_deadline: query.flag(&parameter::RENEW_DEADLINE)? };
        self.perform(action, query, head, by).await
    }

    pub(super) async fn discard(&self, query: &Query, head: &Parts, by: &str) -> Result<Response, Problem> {
        query.only(&[LETTER_FILTERS, LETTER_SELECTION, ACTION_OPTIONS, &[parameter::WHY]])?;
        let why = query.get(parameter::WHY.name).map(str::trim).unwrap_or_default();
        if why.is_empty() || why.chars().count() > LONGEST_WHY {
            return Err(Problem::invalid(format!(
                "why must give the reason in 1 to {LONGEST_WHY} characters."
            )));
        }
        self.perform(Action::Discard { why: why.to_owned() }, query, head, by).await
    }

    async fn perform(
        &self,
        action: Action,
        query: &Query,
        head: &Parts,
        by: &str,
    ) -> Result<Response, Problem> {
        let rpc = &self.rpc;
        let dry_run = query.flag(&parameter::DRY_RUN)?;
        // Counting changes nothing: without a limit it counts all that match, as far as it comes within the wait.
        let counts_all = dry_run && query.get(parameter::ACTION_LIMIT.name).is_none();
        let limit = query.number(&parameter::ACTION_LIMIT)?;
        let options = ActionOptions {
            dry_run,
            rate: query.maybe_number(&parameter::RATE)?,
            limit: (!counts_all).then_some(limit.into()),
            within: Some(
                handlers::wait(Preferences::of(&head.headers), self.wait).max(Duration::from_secs(1)),
            ),
        };
        let selection = selection(query, rpc.clock.now())?;
        let channel =
            rpc.link.channel().ok_or_else(|| Problem::unavailable("The queues cannot be reached."))?;
        let letters = DeadLetters::new(
            rpc.store.clone(),
            channel.requests.clone(),
            channel.maintenance.clone(),
            rpc.clock.clone(),
            self.entropy.clone(),
        );
        let stop = &rpc.lifecycle.hard;
        let tally = letters.perform(action, selection, options, by, stop, |_| ()).await?;
        Ok(Response::json(StatusCode::OK, json!(tally), "done"))
    }
}

/// The selection of the query: ids, or a filter, or all; never all by omission.
fn selection(query: &Query, now: Timestamp) -> Result<Selection, Problem> {
    let filters = LETTER_FILTERS.iter().any(|filter| query.get(filter.name).is_some());
    let behind = query.checked(&parameter::ACTION_CURSOR, DeadLetterId::parse)?;
    match (query.get(parameter::IDS.name), filters, query.flag(&parameter::ALL)?) {
        (Some(_), ..) if behind.is_some() => {
            Err(Problem::invalid("cursor goes on with filters or all=true, not with id."))
        }
        (Some(ids), false, false) => {
            let ids = ids.split(',').map(DeadLetterId::parse).collect::<Result<_, _>>();
            ids.map(Selection::These).map_err(|error| Problem::invalid(format!("id: {error}.")))
        }
        (None, true, false) | (None, false, true) => {
            let filter = filter(query, now)?;
            Ok(match behind {
                Some(id) => Selection::Behind(id, filter),
                None => Selection::Matching(filter),
            })
        }
        (Some(_), _, _) | (None, true, true) | (None, false, false) => {
            Err(Problem::invalid("Select letters: id (one or more, with commas), or filters, or all=true."))
        }
    }
}

/// A possible kind of a message.
fn kind(text: &str) -> Result<String, ()> {
    let fits = (1..=LONGEST_KIND).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or(())
}

fn filter(query: &Query, now: Timestamp) -> Result<DeadLetterFilter, Problem> {
    let ago = |age: &Number<()>| {
        let seconds = query.maybe_number(age)?;
        Ok::<_, Problem>(seconds.map(|seconds| now.minus(Duration::from_secs(seconds.into()))))
    };
    Ok(DeadLetterFilter {
        source: query.checked(&parameter::QUEUE, |text| Source::parse(text).ok_or(()))?,
        kind: query.checked(&parameter::KIND, kind)?,
        reason: query.checked(&parameter::REASON, |text| Reason::parse(text).ok_or(()))?,
        track: query.checked(&parameter::LETTER_TRACK, |text| TrackId::new(text))?,
        since: ago(&parameter::NEWER_THAN)?,
        before: ago(&parameter::OLDER_THAN)?,
        state: query.checked(&parameter::STATE, |text| DeadLetterState::parse(text).ok_or(()))?,
    })
}
