//! `/v1/admin/quarantine`: list, add, release, retire. The same code as `broker quarantine`.
//!
//! A call that names no sandboxes lets go of a bounded number, for no longer than its caller waits; one that says `more` is
//! continued by the same call.

use std::time::Duration;

use broker_domain::quarantine::reason;
use broker_domain::{QuarantineCause, RequestId, SandboxId};
use broker_store::quarantine::{self, QuarantineAct, QuarantineSelection, QuarantineStopped};
use broker_store::{Act, AuditLine};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use super::Operator;
use crate::handlers;
use crate::request::parameters::{
    ACTION_DRY_RUN, LEAVING, QUARANTINE_ALL, QUARANTINE_CAUSE, QUARANTINE_IDS, QUARANTINE_LIMIT,
    QUARANTINE_WHY,
};
use crate::request::prefer::Preferences;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::{PooledSandbox, QuarantineList, QuarantineReportBody};
use crate::response::problem::Problem;

/// Sandboxes of one list.
const MOST_SHOWN: usize = 200;

impl Operator {
    pub(super) async fn quarantined(&self) -> Result<Response, Problem> {
        let policy = self.policy.now().unwrap_or_default();
        let (found, more) = quarantine::longest(&self.rpc.store, MOST_SHOWN).await?;
        let shown = |record| PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name));
        let list = QuarantineList { sandboxes: found.iter().map(shown).collect(), more };
        Ok(Response::json(StatusCode::OK, json!(list), "listed"))
    }

    pub(super) async fn add_to_quarantine(
        &self,
        id: RequestId,
        who: &str,
        query: &Query,
        head: &Parts,
    ) -> Result<Response, Problem> {
        query.only(&[&[QUARANTINE_IDS, QUARANTINE_WHY, ACTION_DRY_RUN.parameter()]])?;
        let why = query.get(QUARANTINE_WHY.name).and_then(reason);
        let why = why
            .ok_or_else(|| Problem::invalid("why must give the reason in 1 to 300 printable characters."))?;
        let ids = ids(query)?.ok_or_else(|| Problem::invalid("id must name one or more sandboxes."))?;
        let act = QuarantineAct::Add { by: who.to_owned(), why };
        self.act_on(id, who, (act, Act::Quarantine), QuarantineSelection::Ids(ids), query, head).await
    }

    /// Releases or retires.
    pub(super) async fn leave_quarantine(
        &self,
        id: RequestId,
        who: &str,
        act: (QuarantineAct, Act),
        query: &Query,
        head: &Parts,
    ) -> Result<Response, Problem> {
        query.only(&[LEAVING])?;
        let cause = query.checked(&QUARANTINE_CAUSE, |text| {
            QuarantineCause::ALL.into_iter().find(|cause| cause.as_str() == text).ok_or(())
        })?;
        let selection = match (ids(query)?, cause, query.flag(&QUARANTINE_ALL)?) {
            (Some(ids), None, false) => QuarantineSelection::Ids(ids),
            (None, Some(cause), false) => QuarantineSelection::All(Some(cause)),
            (None, None, true) => QuarantineSelection::All(None),
            _ => return Err(Problem::invalid("Select sandboxes by one of id, cause and all.")),
        };
        self.act_on(id, who, act, selection, query, head).await
    }

    async fn act_on(
        &self,
        id: RequestId,
        who: &str,
        (act, audited): (QuarantineAct, Act),
        selection: QuarantineSelection,
        query: &Query,
        head: &Parts,
    ) -> Result<Response, Problem> {
        let (store, clock, now) = (&self.rpc.store, &self.rpc.clock, self.rpc.clock.now());
        let wait = handlers::wait(Preferences::of(&head.headers), self.wait).max(Duration::from_secs(1));
        let until = clock.instant() + wait;
        let most = u64::from(query.number(&QUARANTINE_LIMIT)?);
        let goes_on = |begun| begun < most && clock.instant() < until;
        let dry_run = query.flag(&ACTION_DRY_RUN)?;
        let told =
            |report| Ok(Response::json(StatusCode::OK, json!(QuarantineReportBody::from(report)), "done"));
        if dry_run {
            let looked = Box::pin(quarantine::foresee(store, &act, selection, now)).await;
            return told(looked.map_err(stopped)?);
        }
        let why = match &act {
            QuarantineAct::Add { why, .. } => Some(why.clone()),
            QuarantineAct::Release | QuarantineAct::Retire => None,
        };
        let line =
            AuditLine { why, ..AuditLine::new(now, *id.as_uuid(), who, audited, selection.to_string()) };
        let performed = Box::pin(async {
            let acted = quarantine::act_under(store, &line, &act, selection, now, goes_on).await;
            let report = acted.map_err(stopped)?;
            self.done(&line, &report.result()).await;
            told(report)
        });
        self.act(&line, performed).await
    }
}

fn stopped(QuarantineStopped { done, selected, source }: QuarantineStopped) -> Problem {
    Problem::from(source).after(done, selected)
}

/// The ids that the query names, if it names some. The longest path bounds their number.
fn ids(query: &Query) -> Result<Option<Vec<SandboxId>>, Problem> {
    let Some(text) = query.get(QUARANTINE_IDS.name) else { return Ok(None) };
    let ids = text.split(',').map(SandboxId::new).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PATH_BYTES;

    #[test]
    fn as_many_sandboxes_are_named_as_fit_into_a_path() {
        for id in ["seed-000000", &"a".repeat(128)] {
            let most = (PATH_BYTES - "/v1/admin/quarantine/retire?id=".len() + 1) / (id.len() + 1);
            let query = format!("id={}", vec![id; most].join(","));
            assert_eq!(ids(&Query::parse(Some(&query)).unwrap()).unwrap().unwrap().len(), most);
        }
    }
}
