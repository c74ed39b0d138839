//! Arriving sandboxes: known, and not offered yet.
//!
//! Invariant: every way into the pool leaves a sandbox `arriving`, in the write that brings it; only
//! [`SandboxStore::admit`] offers one, as it was seen. Its index key is the time from which it may be admitted.

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use super::attributes as a;
use super::change::ItemChange;
use super::deletion::next;
use super::errors::unread;
use super::keys::{self, STATE_INDEX, STATE_KEY, STATE_SHARD};
use super::pool::readable;
use super::{SandboxStore, count_capacity, n, s};
use crate::{Candidate, GateQuestion, Page, StoreError, SweepKey, Write};
use broker_domain::{Event, Status, Timestamp};

/// [`Event::Admit`] of an arriving one; and what is noted of it meanwhile.
const ADMIT: &str = "#status = :arriving and version = :seen";

impl SandboxStore {
    /// At most `limit` arriving sandboxes of all shards that may be admitted by `until`, with one call. A page may be empty
    /// and still not the last. The next page must be asked for with the same `until`: DynamoDB refuses a token with other
    /// parameters.
    pub async fn arriving(
        &self,
        until: Timestamp,
        after: Option<SweepKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>, SweepKey>, StoreError> {
        self.since(Status::Arriving, until, after, limit).await
    }

    /// The same of sandboxes in quarantine, since `until` or longer.
    pub async fn quarantined(
        &self,
        until: Timestamp,
        after: Option<SweepKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>, SweepKey>, StoreError> {
        self.since(Status::Quarantined, until, after, limit).await
    }

    async fn since(
        &self,
        status: Status,
        until: Timestamp,
        after: Option<SweepKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>, SweepKey>, StoreError> {
        let mut parameters: Vec<_> =
            (0..self.table.shards).map(|shard| s(keys::state_shard(status, shard))).collect();
        parameters.push(s(keys::time_key(until)));
        let call = self
            .table
            .client
            .execute_statement()
            .statement(self.since_statement())
            .set_parameters(Some(parameters))
            .limit(i32::from(limit))
            .set_next_token(after.map(|key| key.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer =
            call.send().await.map_err(|error| unread("ExecuteStatement", &self.table.name, error))?;
        count_capacity("since", answer.consumed_capacity());
        Ok(Page { items: readable(answer.items()), next: answer.next_token.map(SweepKey) })
    }

    fn since_statement(&self) -> String {
        let columns =
            [a::SANDBOX_ID, a::NAME, a::EXTERNAL_ID, a::VERSION].map(|name| format!("\"{name}\"")).join(", ");
        let shards = vec!["?"; usize::from(self.table.shards)].join(", ");
        let table = &self.table.name;
        format!(
            "SELECT {columns} FROM \"{table}\".\"{STATE_INDEX}\" WHERE \"{STATE_SHARD}\" IN [{shards}] AND \
             \"{STATE_KEY}\" <= ?"
        )
    }

    /// Notes that the gate of an arriving sandbox is asked `question`, and that it is asked again at `again_at` at the earliest: the
    /// sandbox is at the next version from now on.
    pub async fn ask_gate(
        &self,
        arrival: &Candidate,
        question: GateQuestion,
        again_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table
            .change(ItemChange {
                operation: "ask_gate",
                key: keys::sandbox(&arrival.sandbox_id).into_map(),
                condition: ADMIT,
                update: "SET version = :next, state_key = :again, gate_check = :check, gate_attempts = :attempts, \
                         updated_at = :now",
                values: vec![
                    (":arriving", s(Status::Arriving.as_str())),
                    (":seen", n(arrival.version)),
                    (":next", n(arrival.version + 1)),
                    (":again", s(keys::time_key(again_at))),
                    (":check", s(question.id.to_string())),
                    (":attempts", n(question.attempts)),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }

    /// Offers an arriving sandbox, if it is as it was seen.
    pub async fn admit(&self, arrival: &Candidate, now: Timestamp) -> Result<Write, StoreError> {
        let to = next(Status::Arriving, Event::Admit)?;
        self.table
            .change(ItemChange {
                operation: "admit",
                key: keys::sandbox(&arrival.sandbox_id).into_map(),
                condition: ADMIT,
                update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :name, updated_at = :now \
                         REMOVE gate_check, gate_attempts",
                values: vec![
                    (":arriving", s(Status::Arriving.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(arrival.version)),
                    (":next", n(arrival.version + 1)),
                    (":shard", s(self.table.shard(to, &arrival.sandbox_id))),
                    (":name", s(arrival.name.as_str())),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }
}
