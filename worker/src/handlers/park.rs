//! Parking: a request that may wait and found nothing gets its place in a line.
//!
//! A line that is new is listed only while its tenant has fewer than [`MOST_LINES`]; that write is conditional on no other line
//! of the tenant having been listed since they were counted. Lines of one tenant are listed one after the other.
//!
//! Order: **list the line → place and mark on the record → delete the message**. A worker that dies in between leaves a message
//! that comes back and parks at the same place: a place is the request's, however often it is parked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use broker_domain::waiting::{Line, MOST_LINES, Place};
use broker_domain::{AllocateRequest, Outcome, TenantName, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_store::{StoreError, Write};

use super::key_turns::{KeyTurn, KeyTurns};
use super::{HandlerError, Handlers};

/// The most lines that are remembered.
const REMEMBERED: usize = 4_096;

/// The lines that this process has listed.
#[derive(Debug, Default)]
pub(super) struct ListedLines {
    /// Until when.
    until: Mutex<HashMap<Line, Timestamp>>,
    /// Who lists a new line of a tenant.
    turns: KeyTurns<TenantName, ()>,
}

impl ListedLines {
    /// Until when it has listed `line`.
    fn until(&self, line: &Line) -> Option<Timestamp> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).get(line).copied()
    }

    fn remember(&self, line: &Line, until: Timestamp) {
        let mut listed = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() >= REMEMBERED {
            listed.clear();
        }
        listed.insert(line.clone(), until);
    }
}

impl Handlers {
    /// Parks `request`, whose message is `text`; its outcome if it has ended, and `nothing` if its tenant has too many lines. A copy
    /// that is older than the request's deadline parks nothing: the message that renewed it does.
    pub(super) async fn park(
        &self,
        request: &AllocateRequest,
        text: &str,
        nothing: Outcome,
    ) -> Result<Option<Outcome>, HandlerError> {
        // Every message that may wait says whose it is.
        let Some(tenant) = request.tenant.clone() else { return Ok(Some(nothing)) };
        let line = Line { tenant, prefix: request.prefix.clone() };
        let (request_id, deadline) = (request.request_id, request.times.deadline);
        let until = Line::listed_until(deadline);
        let place = Place { line, request_id, deadline, message: text.to_owned() };
        for attempt in 1.. {
            let parked = async {
                Ok(match self.list(&place.line, until).await? {
                    true => Some(self.store.waiting.park(&place).await?),
                    false => None,
                })
            };
            match parked.await {
                Ok(None) => {
                    metrics::counter!("broker_waiting_refused_total", "reason" => "too_many").increment(1);
                    return Ok(Some(nothing));
                }
                Ok(Some(Write::Applied)) => {
                    crash_points::point(Point::Parked);
                    metrics::counter!("broker_waiting_parked_total").increment(1);
                    self.soon.note(&place, self.clock.now());
                    return Ok(None);
                }
                Ok(Some(Write::Rejected(()))) => return self.ended_before(request).await,
                Err(StoreError::Conflict) => self.back_off(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Lists `line` until then at least; whether it is. Not if it is new and its tenant has too many.
    async fn list(&self, line: &Line, until: Timestamp) -> Result<bool, StoreError> {
        let mut place = self.listed.turns.place(&line.tenant);
        loop {
            let known = self.listed.until(line).filter(|known| *known > self.clock.now());
            if known.is_some_and(|known| known >= until) {
                return Ok(true);
            }
            if known.is_some() {
                self.store.waiting.list_line(line, until).await?;
                break;
            }
            // Nothing is learnt of another's line: each lists its own.
            let KeyTurn::Mine(_turn) = place.turn().await else { continue };
            if self.listed.until(line).is_some_and(|known| known > self.clock.now()) {
                continue;
            }
            let seen = self.store.waiting.tenant_lines(&line.tenant, self.clock.now()).await?;
            if seen.lines.iter().any(|listed| listed.line == *line) {
                self.store.waiting.list_line(line, until).await?;
                break;
            }
            if seen.lines.len() >= MOST_LINES {
                return Ok(false);
            }
            if self.store.waiting.list_new_line(line, until, &seen).await? == Write::Applied {
                break;
            }
        }
        self.listed.remember(line, until);
        crash_points::point(Point::LineListed);
        Ok(true)
    }
}
