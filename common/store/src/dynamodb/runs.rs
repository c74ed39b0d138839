//! Storage of the records of runs.

use std::time::Duration;

use super::attributes::{self as a, Item};
use super::change::written;
use super::{RunStore, keys, n, records, s};
use crate::{Run, StoreError, Write};
use broker_domain::{JobReport, RequestId, Timestamp};

/// The run has no report yet, or no record at all.
const RUN_IS_OPEN: &str = "attribute_not_exists(PK) or attribute_not_exists(report)";
/// The run is recorded and has no report.
const RUN_IS_ASKED_FOR: &str = "attribute_exists(PK) and attribute_not_exists(report)";
/// How long the record of a run is kept.
const RUN_IS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

impl RunStore {
    /// The record of a run, if there is one.
    pub async fn get(&self, id: RequestId) -> Result<Option<Run>, StoreError> {
        let item = self.table.get(keys::run(id)).await?;
        item.map(|item| records::read_run(&item)).transpose()
    }

    /// Records a run that outlasted its caller's wait. An existing record stays.
    pub async fn record(&self, id: RequestId, job: &str, now: Timestamp) -> Result<(), StoreError> {
        self.table.put_if_new("record_run", run_item(id, job, now)).await.map(drop)
    }

    /// Stores the report of a run; the first one stays. With `only_if_asked`, a run without a record stores nothing.
    pub async fn complete(
        &self,
        id: RequestId,
        report: &JobReport,
        only_if_asked: bool,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let mut item = run_item(id, &report.job, now);
        item.insert(a::REPORT.to_owned(), s(serde_json::to_string(report).unwrap_or_default()));
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression(if only_if_asked { RUN_IS_ASKED_FOR } else { RUN_IS_OPEN });
        written(Box::pin(call.send()).await, "complete_run", &self.table.name)
    }
}

fn run_item(id: RequestId, job: &str, now: Timestamp) -> Item {
    let mut item = keys::run(id).into_map();
    item.insert(a::JOB.to_owned(), s(job));
    item.insert(a::CREATED_AT.to_owned(), n(now.as_secs()));
    item.insert(a::TTL.to_owned(), n(now.plus(RUN_IS_KEPT).as_secs()));
    item
}
