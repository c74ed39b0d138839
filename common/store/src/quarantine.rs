//! Operators' acts on the quarantine: the same code for `broker quarantine` and `/v1/admin/quarantine`.
//!
//! Invariant: what was ever handed out, or was to be deleted, leaves the quarantine for its deletion only. What is released is arriving; a worker
//! serves it, or it is offered at once where no gate is asked. One that cannot be read stays, is named, and stops no other.

mod listing;

use std::fmt;
use std::ops::ControlFlow;

use broker_domain::{Quarantine, QuarantineCause, SandboxId, Status, Timestamp};
use broker_runtime::crash_points::{self, Point};
use serde::Serialize;
use uuid::Uuid;

use crate::pool_list::LookedUp;
use crate::{AuditLine, Candidate, NotDone, Record, Seen, Store, StoreError, Write, arrivals};
pub use listing::{InQuarantine, list, longest};
use listing::{in_quarantine, look_up};

/// How often an act is decided on anew when the sandbox changed at the same moment.
const TRIES: usize = 5;

/// An act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuarantineAct {
    /// Take a sandbox out of the pool.
    Add {
        /// Who.
        by: String,
        /// Why, as [`reason`](broker_domain::quarantine::reason) accepts it.
        why: String,
    },
    /// Let one go that was never handed out or to be deleted.
    Release,
    /// Have one deleted.
    Retire,
}

/// What became of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quarantined {
    /// Done, or it was so already: the sandbox as it was found.
    Done(Box<Record>),
    /// There is no such sandbox.
    NotFound,
    /// It cannot be read: why.
    Unreadable(String),
    /// Not from this state.
    NotPossible(Status),
    /// It was handed out before: it can only be retired.
    Used,
    /// The provider was asked to delete it: it can only be retired.
    ToBeDeleted,
    /// It changed each time.
    Busy,
}

impl QuarantineAct {
    /// What stands in the way of it; `None` if nothing does.
    fn refusal(&self, record: &Record) -> Option<Quarantined> {
        let (status, used) = (record.sandbox.status, record.sandbox.allocation.is_some());
        let is_to_be_deleted = record.sandbox.deletion_requested_at.is_some();
        match (self, status) {
            (Self::Add { .. }, Status::Quarantined) => Some(Quarantined::Done(Box::new(record.clone()))),
            (Self::Release, Status::Quarantined) if used => Some(Quarantined::Used),
            (Self::Release, Status::Quarantined) if is_to_be_deleted => Some(Quarantined::ToBeDeleted),
            (Self::Add { .. }, Status::Arriving | Status::Available | Status::Reserved)
            | (Self::Release | Self::Retire, Status::Quarantined) => None,
            (Self::Add { .. } | Self::Release | Self::Retire, status) => {
                Some(Quarantined::NotPossible(status))
            }
        }
    }

    /// Of a sandbox that is in quarantine: since when and by whom, if this act at `now` did not put it there.
    fn already(&self, record: &Record, now: Timestamp) -> Option<String> {
        let Self::Add { by, .. } = self else { return None };
        let stands = record.quarantine.as_ref().filter(|_| record.sandbox.status == Status::Quarantined)?;
        let is_mine = stands.by == *by && stands.at == now.floor_to_second();
        let since = stands.at.date_and_time();
        (!is_mine).then(|| {
            format!("it is in quarantine already, by {} since {since}: {}", stands.by, stands.reason)
        })
    }

    /// What became of a sandbox without a write; its record if a write decides.
    fn look(
        &self,
        found: Result<Option<Record>, StoreError>,
    ) -> Result<ControlFlow<Quarantined, Record>, StoreError> {
        match found {
            Ok(Some(record)) => Ok(match self.refusal(&record) {
                Some(refusal) => ControlFlow::Break(refusal),
                None => ControlFlow::Continue(record),
            }),
            Ok(None) => Ok(ControlFlow::Break(Quarantined::NotFound)),
            Err(error @ StoreError::Malformed { .. }) => {
                Ok(ControlFlow::Break(Quarantined::Unreadable(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    /// Does it with the sandbox that was read as `record`, at `now`.
    async fn perform(
        &self,
        store: &Store,
        mut record: Record,
        now: Timestamp,
    ) -> Result<Quarantined, StoreError> {
        for _ in 0..TRIES {
            match self.write(store, &record, now).await {
                Ok(Write::Applied) => return Ok(Quarantined::Done(Box::new(record))),
                // Read it again.
                Ok(Write::Rejected(())) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
            record = match self.look(store.sandboxes.record(&record.sandbox.id).await)? {
                ControlFlow::Continue(record) => record,
                ControlFlow::Break(became) => return Ok(became),
            };
        }
        Ok(Quarantined::Busy)
    }

    async fn write(&self, store: &Store, record: &Record, now: Timestamp) -> Result<Write, StoreError> {
        let (sandboxes, sandbox) = (&store.sandboxes, &record.sandbox);
        let seen = Seen { id: &sandbox.id, version: sandbox.version };
        match self {
            Self::Add { by, why } => {
                let (by, reason) = (by.clone(), why.clone());
                let quarantine = Quarantine { at: now, cause: QuarantineCause::Operator, by, reason };
                sandboxes.quarantine(seen, sandbox.status, &quarantine).await
            }
            Self::Retire => sandboxes.retire_quarantined(seen, now).await,
            Self::Release => {
                let released = sandboxes.release_quarantined(seen, now).await?;
                if released.is_applied() {
                    crash_points::point(Point::Arrived);
                    let arrival = Candidate {
                        sandbox_id: sandbox.id.clone(),
                        name: sandbox.name.clone(),
                        external_id: sandbox.external_id.clone(),
                        attributes: None,
                        version: sandbox.version + 1,
                    };
                    // It is released, and a worker serves what is arriving.
                    if let Err(error) = arrivals::offer(store, vec![arrival], now).await {
                        tracing::warn!("{} is released and not offered yet: {error}", sandbox.id);
                    }
                }
                Ok(released)
            }
        }
    }
}

/// Which sandboxes an act is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuarantineSelection {
    /// These.
    Ids(Vec<SandboxId>),
    /// Every one in quarantine, of this cause if one is named.
    All(Option<QuarantineCause>),
}

/// As the audit names it.
impl fmt::Display for QuarantineSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids(ids) => f.write_str(&ids.iter().map(SandboxId::as_str).collect::<Vec<_>>().join(",")),
            Self::All(None) => f.write_str("all"),
            Self::All(Some(cause)) => write!(f, "all by {cause}"),
        }
    }
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuarantineReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The number of sandboxes that were selected.
    pub selected: u64,
    /// The number of those that it was done with, or would be; what was so already counts.
    pub done: u64,
    /// Those of them that were so already, the first of them: by whom and since when.
    pub already: Vec<QuarantineRefusal>,
    /// Why nothing was done with the others, the first of them.
    pub refused: Vec<QuarantineRefusal>,
    /// Whether there are more that it can be done with: the same act goes on with those.
    pub more: bool,
}

impl QuarantineReport {
    /// Counts what became of one sandbox; returns why nothing was done with it, for its own line of the audit.
    fn count(
        &mut self,
        act: &QuarantineAct,
        id: &SandboxId,
        became: Quarantined,
        now: Timestamp,
    ) -> Option<NotDone> {
        let told = |why: &str| QuarantineRefusal { sandbox_id: id.to_string(), why: why.to_owned() };
        let why = match became {
            Quarantined::Done(record) => {
                self.done += 1;
                let why = act.already(&record, now)?;
                if self.already.len() < TOLD {
                    self.already.push(told(&why));
                }
                return Some(NotDone::Unchanged(why));
            }
            Quarantined::NotFound => "there is no such sandbox".to_owned(),
            Quarantined::Unreadable(why) => why,
            Quarantined::NotPossible(status) => format!("it is {status}"),
            Quarantined::Used => "it was handed out before: it can only be retired".to_owned(),
            Quarantined::ToBeDeleted => {
                "the provider was asked to delete it: it can only be retired".to_owned()
            }
            Quarantined::Busy => "it changes all the time".to_owned(),
        };
        if self.refused.len() < TOLD {
            self.refused.push(told(&why));
        }
        Some(NotDone::Refused(why))
    }

    /// That the table did not answer after so many.
    const fn stopped(&self, source: StoreError) -> QuarantineStopped {
        QuarantineStopped { done: self.done, selected: self.selected, source }
    }

    /// What the audit says of it, as JSON: its counts, or why it was done with none.
    pub fn result(&self) -> String {
        match self.refused.first() {
            Some(first) if self.done == 0 && !self.more => {
                let why = if self.selected == 1 {
                    first.why.clone()
                } else {
                    format!("all {}; {}: {}", self.selected, first.sandbox_id, first.why)
                };
                serde_json::json!(NotDone::Refused(why)).to_string()
            }
            None if self.done > 0 && self.already.len() as u64 == self.done => {
                let why = self.already.first().map(|first| first.why.clone()).unwrap_or_default();
                serde_json::json!(NotDone::Unchanged(why)).to_string()
            }
            None | Some(_) => {
                let not_done = self.selected.saturating_sub(self.done);
                serde_json::json!({ "selected": self.selected, "done": self.done, "not_done": not_done })
                    .to_string()
            }
        }
    }
}

/// Why nothing was done with a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuarantineRefusal {
    /// The sandbox.
    pub sandbox_id: String,
    /// Why.
    pub why: String,
}

/// So many refusals are told.
const TOLD: usize = 100;

/// The table did not answer before an act on many was over.
#[derive(Debug, thiserror::Error)]
#[error("{done} of {selected} were done before this")]
pub struct QuarantineStopped {
    /// How many were done.
    pub done: u64,
    /// How many were selected.
    pub selected: u64,
    /// What the table said.
    pub source: StoreError,
}

/// Tells what `act` would do with every sandbox of the selection; nothing is written.
///
/// # Errors
///
/// When the table does not answer.
pub async fn foresee(
    store: &Store,
    act: &QuarantineAct,
    selection: QuarantineSelection,
    now: Timestamp,
) -> Result<QuarantineReport, QuarantineStopped> {
    let mut report = QuarantineReport { dry_run: true, ..QuarantineReport::default() };
    let found = selected(store, selection).await.map_err(|source| report.stopped(source))?;
    report.selected = found.len() as u64;
    for (id, found) in found {
        let became = match act.look(found).map_err(|source| report.stopped(source))? {
            ControlFlow::Break(became) => became,
            ControlFlow::Continue(record) => Quarantined::Done(Box::new(record)),
        };
        report.count(act, &id, became, now);
    }
    Ok(report)
}

/// Does `act` with every sandbox of the selection, under the audit line `of_all`. Where that one does not name the sandbox alone,
/// each has a line of its own besides, which its history shows; not one that was not named, and that nothing can be done with.
/// `goes_on` is asked before each that was not named but the first, with how many were begun: if it says no, the report says that
/// there are more. So each act does something, however long it took to read what there is.
///
/// # Errors
///
/// When the table does not answer; what was done by then stays, and is counted.
pub async fn act_under(
    store: &Store,
    of_all: &AuditLine,
    act: &QuarantineAct,
    selection: QuarantineSelection,
    now: Timestamp,
    goes_on: impl Fn(u64) -> bool,
) -> Result<QuarantineReport, QuarantineStopped> {
    let are_named = matches!(selection, QuarantineSelection::Ids(_));
    let (mut report, mut begun) = (QuarantineReport::default(), 0);
    let found = selected(store, selection).await.map_err(|source| report.stopped(source))?;
    report.selected = found.len() as u64;
    for ((id, found), number) in found.into_iter().zip(1..) {
        let looked = act.look(found).map_err(|source| report.stopped(source))?;
        if !are_named {
            if let ControlFlow::Break(became) = looked {
                report.count(act, &id, became, now);
                continue;
            }
            report.more = report.more || (begun > 0 && !goes_on(begun));
            if report.more {
                continue;
            }
            begun += 1;
        }
        let own = (of_all.target != id.as_str()).then(|| AuditLine {
            id: Uuid::from_u128(of_all.id.as_u128().wrapping_add(number)),
            target: id.to_string(),
            ..of_all.clone()
        });
        if let Some(own) = &own {
            store.audit.record(own).await.map_err(|source| report.stopped(source))?;
        }
        let became = match looked {
            ControlFlow::Break(became) => Ok(became),
            ControlFlow::Continue(record) => act.perform(store, record, now).await,
        };
        let (not_done, stopped) = match became.map_err(|source| report.stopped(source)) {
            Ok(became) => (report.count(act, &id, became, now), None),
            Err(stopped) => (Some(NotDone::Failed(stopped.source.to_string())), Some(stopped)),
        };
        if let (Some(own), Some(how)) = (own, not_done)
            && let Err(error) = store.audit.record_not_done(&own, &how).await
        {
            tracing::warn!("the audit does not tell what became of {id}: {error}");
        }
        stopped.map_or(Ok(()), Err)?;
    }
    Ok(report)
}

/// The sandboxes of a selection. One that cannot be read may be of any cause.
async fn selected(store: &Store, selection: QuarantineSelection) -> Result<Vec<LookedUp>, StoreError> {
    let cause = match selection {
        QuarantineSelection::Ids(ids) => return look_up(store, &ids).await,
        QuarantineSelection::All(cause) => cause,
    };
    in_quarantine(store, |record| {
        cause.is_none_or(|cause| record.quarantine.as_ref().is_some_and(|q| q.cause == cause))
    })
    .await
}
