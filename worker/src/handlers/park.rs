//! Parking: a request that may wait and found nothing gets its place in a line.
//!
//! Order: **list the line → place and mark on the record → delete the message**. A worker that dies in between leaves a message
//! that comes back and parks at the same place: a place is the request's, however often it is parked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use broker_domain::waiting::{Line, Place};
use broker_domain::{AllocateRequest, Outcome, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_store::{StoreError, Write};

use super::{HandlerError, Handlers};

/// The most lines that are remembered.
const REMEMBERED: usize = 4_096;

/// Until when this process has listed each line.
#[derive(Debug, Default)]
pub(super) struct ListedLines(Mutex<HashMap<Line, Timestamp>>);

impl ListedLines {
    fn is_listed(&self, line: &Line, until: Timestamp) -> bool {
        let listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listed.get(line).is_some_and(|listed| *listed >= until)
    }

    fn remember(&self, line: &Line, until: Timestamp) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() >= REMEMBERED {
            listed.clear();
        }
        listed.insert(line.clone(), until);
    }
}

impl Handlers {
    /// Parks `request`, whose message is `text`; its outcome if it has ended.
    pub(super) async fn park(
        &self,
        request: &AllocateRequest,
        text: &str,
    ) -> Result<Option<Outcome>, HandlerError> {
        // Every message that may wait says whose it is.
        let Some(tenant) = request.tenant.clone() else { return Ok(Some(Outcome::NoSandboxes)) };
        let line = Line { tenant, prefix: request.prefix.clone() };
        let (request_id, deadline) = (request.request_id, request.times.deadline);
        let until = Line::listed_until(deadline);
        let place = Place { line, request_id, deadline, message: text.to_owned() };
        for attempt in 1.. {
            let parked = async {
                if !self.listed.is_listed(&place.line, until) {
                    self.store.waiting.list_line(&place.line, until).await?;
                    self.listed.remember(&place.line, until);
                    crash_points::point(Point::LineListed);
                }
                self.store.waiting.park(&place).await
            };
            match parked.await {
                Ok(Write::Applied) => {
                    crash_points::point(Point::Parked);
                    metrics::counter!("broker_waiting_parked_total").increment(1);
                    self.soon.note(&place, self.clock.now());
                    return Ok(None);
                }
                Ok(Write::Rejected(())) => return self.ended_before(request).await,
                Err(StoreError::Conflict) => self.back_off(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}
