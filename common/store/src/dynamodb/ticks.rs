//! Ticks: when each job runs next, and which worker is about to send it (ARCHITECTURE.md, "Schedule").
//!
//! Invariant: `next_run_at` moves only after the message was sent, so a run is sent at least once, wherever its worker dies.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::keys;
use super::pool::passable;
use super::{ScheduleStore, n, records, s};
use crate::{ComparedLists, StoreError, Tick, Trouble, Write};
use broker_domain::refill::AppliedList;
use broker_domain::{CLOCKS_DIFFER, Job, Pause, Timestamp};

/// It is due, not taken (for no longer than anybody takes it), and not paused.
const TICK_IS_FREE: &str = "next_run_at_ms = :seen and (attribute_not_exists(taken_until_ms) or taken_until_ms <= :now \
                            or taken_until_ms > :beyond) and attribute_not_exists(paused_at)";
/// It is still taken by this worker.
const TICK_IS_MINE: &str = "next_run_at_ms = :seen and taken_until_ms = :mine";
/// It says nothing of the trouble of a later run, but of one of a clock that was wrong.
const TICK_TELLS_OF_NO_LATER_RUN: &str = "attribute_exists(PK) and (attribute_not_exists(trouble_of_ms) or trouble_of_ms <= :began or trouble_of_ms > :beyond)";
/// It tells of trouble, which is not that of a later run.
const TICK_TELLS_OF_TROUBLE: &str = "attribute_exists(trouble_ms) and (attribute_not_exists(trouble_of_ms) or trouble_of_ms <= :began or trouble_of_ms > :beyond)";
const TICK_IS_NOT_PAUSED: &str = "attribute_exists(PK) and attribute_not_exists(paused_at)";
const TICK_IS_PAUSED: &str = "attribute_exists(paused_at)";
/// No later list is noted, but one of a clock that was wrong.
const LIST_BEGAN_BEFORE: &str = "attribute_exists(PK) and (attribute_not_exists(listed_at_ms) or listed_at_ms < :began or listed_at_ms > :beyond)";
/// No later comparison is noted, but one of a clock that was wrong.
const COMPARED_BEFORE: &str = "attribute_exists(PK) and (attribute_not_exists(compared_at_ms) or compared_at_ms < :began or compared_at_ms > :beyond)";
/// No run for a later trigger is noted, but one of a clock that was wrong.
const TICK_RAN_BEFORE: &str = "attribute_exists(PK) and (attribute_not_exists(ran_for_ms) or ran_for_ms < :ran_for or ran_for_ms > :beyond)";

impl ScheduleStore {
    /// The tick of a job. A job without one gets it, due `first_run` from now.
    pub async fn tick(&self, job: Job, first_run: Duration, now: Timestamp) -> Result<Tick, StoreError> {
        if let Some(item) = self.table.get(keys::tick(job)).await? {
            return records::read_tick(&item);
        }
        let mut item: Item = keys::tick(job).into_map();
        let due = now.plus(first_run);
        item.insert(a::NEXT_RUN_AT_MS.to_owned(), n(due.as_ms()));
        self.table.put_if_new("tick", item).await?;
        // Another worker may have written it first.
        let item = self.table.get(keys::tick(job)).await?;
        item.map_or(Err(StoreError::Conflict), |item| records::read_tick(&item))
    }

    /// The tick of every job as it stands, none of a job that no worker has seen yet or whose tick cannot be read (one batched,
    /// consistent read).
    pub async fn look(&self) -> Result<Vec<(Job, Option<Tick>)>, StoreError> {
        let mut looks = JoinSet::new();
        for job in Job::ALL {
            let table = Arc::clone(&self.table);
            looks.spawn(async move {
                let item = table.reads.get(keys::tick(job)).await?;
                Ok::<_, StoreError>((job, item.and_then(|item| passable(records::read_tick(&item)))))
            });
        }
        let mut ticks = looks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        ticks.sort_by_key(|(job, _)| *job);
        Ok(ticks)
    }

    /// Takes a due tick until `until`; also one that is taken for longer than that, by a clock that was wrong.
    pub async fn take(
        &self,
        job: Job,
        tick: &Tick,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "take_tick",
                key: keys::tick(job).into_map(),
                condition: TICK_IS_FREE,
                update: "SET taken_until_ms = :until",
                values: vec![
                    (":seen", n(tick.next_run_at.as_ms())),
                    (":now", n(now.as_ms())),
                    (":until", n(until.as_ms())),
                    (":beyond", n(until.plus(CLOCKS_DIFFER).as_ms())),
                ],
            })
            .await
    }

    /// Moves a tick that is taken until `mine` to its next run, after its message was sent.
    pub async fn move_on(
        &self,
        job: Job,
        tick: &Tick,
        mine: Timestamp,
        next_run_at: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "move_tick",
                key: keys::tick(job).into_map(),
                condition: TICK_IS_MINE,
                update: "SET next_run_at_ms = :next REMOVE taken_until_ms",
                values: vec![
                    (":seen", n(tick.next_run_at.as_ms())),
                    (":mine", n(mine.as_ms())),
                    (":next", n(next_run_at.as_ms())),
                ],
            })
            .await
    }

    /// Notes that all external triggers up to `ran_for` have had their run. It never goes back.
    pub async fn note_ran_for(
        &self,
        job: Job,
        ran_for: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "ran_for",
                key: keys::tick(job).into_map(),
                condition: TICK_RAN_BEFORE,
                update: "SET ran_for_ms = :ran_for",
                values: vec![
                    (":ran_for", n(ran_for.as_ms())),
                    (":beyond", n(now.plus(CLOCKS_DIFFER).as_ms())),
                ],
            })
            .await
    }

    /// Notes that a sync applied a list of the provider. It never goes back.
    pub async fn note_listed(&self, list: AppliedList, now: Timestamp) -> Result<Write, StoreError> {
        let update = "SET listed_at_ms = :began, list_hides = :hidden";
        let hidden = vec![(":hidden", n(list.hidden))];
        self.note_sync("listed", LIST_BEGAN_BEFORE, update, (list.began, now), hidden).await
    }

    /// Notes that a sync that began at `began` compared the provider's list, whatever became of it, and whether it counted what is
    /// missing there. It never goes back.
    pub async fn note_compared(
        &self,
        began: Timestamp,
        counts_missing: bool,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let update = match counts_missing {
            true => "SET compared_at_ms = :began, counted_missing_at_ms = :began",
            false => "SET compared_at_ms = :began",
        };
        self.note_sync("compared", COMPARED_BEFORE, update, (began, now), Vec::new()).await
    }

    async fn note_sync(
        &self,
        operation: &'static str,
        condition: &'static str,
        update: &'static str,
        (began, now): (Timestamp, Timestamp),
        mut values: Vec<(&'static str, AttributeValue)>,
    ) -> Result<Write, StoreError> {
        // A sync that only operators and schedulers outside start has no tick yet.
        self.tick(Job::Sync, Duration::ZERO, now).await?;
        let key = keys::tick(Job::Sync).into_map();
        values.extend([(":began", n(began.as_ms())), (":beyond", n(now.plus(CLOCKS_DIFFER).as_ms()))]);
        self.table.change(ItemChange { operation, key, condition, update, values }).await
    }

    /// The last list that a sync applied, if one is known (a consistent read).
    pub async fn listed(&self) -> Result<Option<AppliedList>, StoreError> {
        let Some(item) = self.table.get(keys::tick(Job::Sync)).await? else { return Ok(None) };
        let item = Reader(&item);
        let hidden = item.optional_number(a::LIST_HIDES)?.unwrap_or(0);
        let began = item.optional_number(a::LISTED_AT_MS)?.map(Timestamp::from_ms);
        Ok(began.map(|began| AppliedList { began, hidden }))
    }

    /// When the last syncs began that compared the provider's list (a consistent read).
    pub async fn compared(&self) -> Result<ComparedLists, StoreError> {
        let Some(item) = self.table.get(keys::tick(Job::Sync)).await? else {
            return Ok(ComparedLists::default());
        };
        let at = |attribute| Ok(Reader(&item).optional_number(attribute)?.map(Timestamp::from_ms));
        Ok(ComparedLists {
            last: at(a::COMPARED_AT_MS)?,
            last_that_counts_missing: at(a::COUNTED_MISSING_AT_MS)?,
        })
    }

    /// Notes what was wrong with the run of a job that began at `began`, or that nothing was; one of which that is known, or of
    /// which a later run told, moved on. A run of which nothing was wrong writes only where trouble is told: an earlier one that
    /// fails after it tells its trouble, until the next run.
    pub async fn note_trouble(
        &self,
        job: Job,
        trouble: Option<&Trouble>,
        (began, now): (Timestamp, Timestamp),
    ) -> Result<Write, StoreError> {
        let mut values = vec![(":began", n(began.as_ms())), (":beyond", n(now.plus(CLOCKS_DIFFER).as_ms()))];
        let (condition, update) = match trouble {
            Some(Trouble { at, why }) => {
                // A job that only operators and schedulers outside start has none yet.
                self.tick(job, Duration::ZERO, now).await?;
                values.extend([(":at", n(at.as_ms())), (":why", s(why))]);
                (TICK_TELLS_OF_NO_LATER_RUN, "SET trouble_ms = :at, trouble = :why, trouble_of_ms = :began")
            }
            None => (TICK_TELLS_OF_TROUBLE, "SET trouble_of_ms = :began REMOVE trouble_ms, trouble"),
        };
        let key = keys::tick(job).into_map();
        self.table.change(ItemChange { operation: "job_trouble", key, condition, update, values }).await
    }

    /// Pauses a job for `by`, at `now`: its schedule does not start it. One that is paused stays so for whom it is, who is told.
    pub async fn pause(&self, job: Job, by: &str, now: Timestamp) -> Result<Write<Pause>, StoreError> {
        loop {
            if let Some(pause) = self.tick(job, Duration::ZERO, now).await?.paused {
                let is_applied = pause.is_of(by, now);
                return Ok(if is_applied { Write::Applied } else { Write::Rejected(pause) });
            }
            let paused = self
                .table
                .change(ItemChange {
                    operation: "pause_job",
                    key: keys::tick(job).into_map(),
                    condition: TICK_IS_NOT_PAUSED,
                    update: "SET paused_at = :now, paused_by = :by",
                    values: vec![(":now", n(now.as_secs())), (":by", s(by))],
                })
                .await?;
            if paused.is_applied() {
                return Ok(Write::Applied);
            }
        }
    }

    /// Resumes a paused job; one that is not paused stays as it is.
    pub async fn resume(&self, job: Job, now: Timestamp) -> Result<Write, StoreError> {
        self.tick(job, Duration::ZERO, now).await?;
        self.table
            .change(ItemChange {
                operation: "resume_job",
                key: keys::tick(job).into_map(),
                condition: TICK_IS_PAUSED,
                update: "REMOVE paused_at, paused_by",
                values: Vec::new(),
            })
            .await
    }
}
