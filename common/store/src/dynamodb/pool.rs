//! The pool: queries of available sandboxes, and seeds.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::attributes as a;
use super::errors::unread;
use super::keys::{self, STATE_INDEX, STATE_KEY, STATE_SHARD};
use super::partition::IndexKeys;
use super::{SandboxStore, count_capacity, s};
use crate::{
    Candidate, CandidateFilter, EntryConflict, NewSandbox, Page, PageKey, StoreError, SweepKey, Write,
};
use broker_domain::{NamePrefix, ReservationId, Status, Timestamp};

const SEEDED_AND_UNUSED: &str = "attribute_exists(seeded) and #status in (:arriving, :available, :stale, :quarantined) \
                                 and version = :seen and attribute_not_exists(allocation_id) \
                                 and attribute_not_exists(deletion_requested_at)";
const SEEDED_AND_PUT_ASIDE: &str =
    "attribute_exists(seeded) and #status = :reserved and version = :seen and reserved_for = :reservation";

impl SandboxStore {
    /// A page of at most `limit` available sandboxes of `shard`, by name, from `after` on. The index is eventually consistent:
    /// a candidate is claimed at the version that it lists, or not at all.
    pub async fn available(
        &self,
        shard: u8,
        prefix: Option<&NamePrefix>,
        after: Option<PageKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>>, StoreError> {
        self.candidates(shard, &CandidateFilter::available(prefix), after, limit).await
    }

    /// The same of any candidates.
    pub async fn candidates(
        &self,
        shard: u8,
        filter: &CandidateFilter,
        after: Option<PageKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>>, StoreError> {
        let partition = keys::state_shard(filter.status(), shard);
        let which = beginning(filter).map_or(IndexKeys::All, IndexKeys::Beginning);
        let limit = Some(i32::from(limit));
        let page = self.table.page_of_index("candidates", (partition, which), after, limit).await?;
        Ok(page.map(|items| readable(&items)))
    }

    /// At most `limit` available sandboxes of all shards, with one call. A page may be empty and still not the last.
    ///
    /// A PartiQL `SELECT` that names its partitions with `IN` is a query of each of them, never a scan ("PartiQL select
    /// statements for DynamoDB", AWS documentation); it takes 50 partitions at most.
    pub async fn sweep(
        &self,
        prefix: Option<&NamePrefix>,
        after: Option<SweepKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>, SweepKey>, StoreError> {
        self.sweep_candidates(&CandidateFilter::available(prefix), after, limit).await
    }

    /// The same of any candidates.
    pub async fn sweep_candidates(
        &self,
        filter: &CandidateFilter,
        after: Option<SweepKey>,
        limit: u16,
    ) -> Result<Page<Vec<Candidate>, SweepKey>, StoreError> {
        let beginning = beginning(filter);
        let mut parameters: Vec<_> =
            (0..self.table.shards).map(|shard| s(keys::state_shard(filter.status(), shard))).collect();
        parameters.extend(beginning.as_ref().map(s));
        let call = self
            .table
            .client
            .execute_statement()
            .statement(self.sweep_statement(beginning.is_some()))
            .set_parameters(Some(parameters))
            .limit(i32::from(limit))
            .set_next_token(after.map(|key| key.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer =
            call.send().await.map_err(|error| unread("ExecuteStatement", &self.table.name, error))?;
        count_capacity("candidates", answer.consumed_capacity());
        let candidates = readable(answer.items());
        Ok(Page { items: candidates, next: answer.next_token.map(SweepKey) })
    }

    fn sweep_statement(&self, with_prefix: bool) -> String {
        let columns =
            [a::SANDBOX_ID, a::NAME, a::EXTERNAL_ID, a::VERSION].map(|name| format!("\"{name}\"")).join(", ");
        let shards = vec!["?"; usize::from(self.table.shards)].join(", ");
        let begins =
            if with_prefix { format!(" AND begins_with(\"{STATE_KEY}\", ?)") } else { String::new() };
        let table = &self.table.name;
        format!(
            "SELECT {columns} FROM \"{table}\".\"{STATE_INDEX}\" WHERE \"{STATE_SHARD}\" IN [{shards}]{begins}"
        )
    }

    /// Puts a seed into the pool, arriving; it moved on if its id exists.
    pub async fn seed(
        &self,
        sandbox: &NewSandbox,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        let seeded = (a::SEEDED, AttributeValue::Bool(true));
        self.put_new(sandbox, now, seeded, Vec::new()).await.map(Write::without_current)
    }

    /// Removes an unused seed at the version that was read. It moved on if it is no seed, was used or to be deleted, or changed; then it
    /// stays.
    pub async fn remove_unused_seed(&self, seed: &Candidate) -> Result<Write, StoreError> {
        let values = [
            (":arriving", s(Status::Arriving.as_str())),
            (":available", s(Status::Available.as_str())),
            (":stale", s(Status::Stale.as_str())),
            (":quarantined", s(Status::Quarantined.as_str())),
        ];
        self.remove_unused("remove_unused_seed", seed, SEEDED_AND_UNUSED, values, Vec::new()).await
    }

    /// Removes a seed that is put aside, at the version that was read; its reservation counts it no more. It moved on also if
    /// that is not there any more: the next sweep gives it back.
    pub async fn remove_reserved_seed(
        &self,
        seed: &Candidate,
        reservation: ReservationId,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let values =
            [(":reserved", s(Status::Reserved.as_str())), (":reservation", s(reservation.to_string()))];
        let one_less = (keys::reservation(reservation), self.table.one_less(reservation, now)?);
        self.remove_unused("remove_reserved_seed", seed, SEEDED_AND_PUT_ASIDE, values, vec![one_less]).await
    }
}

/// What the index's sort key of these candidates begins with.
fn beginning(filter: &CandidateFilter) -> Option<String> {
    let prefix = filter.prefix.as_ref().map(NamePrefix::as_str);
    match filter.reservation {
        Some(id) => Some(keys::reserved_key(id, prefix.unwrap_or_default())),
        None => prefix.map(str::to_owned),
    }
}

/// The candidates that can be read.
pub(super) fn readable(items: &[a::Item]) -> Vec<Candidate> {
    items.iter().filter_map(|item| passable(a::read_candidate(item))).collect()
}

/// The value, if it can be read. An unreadable item is skipped: it must not stop every allocation or a whole job, and
/// `broker pool verify` names it.
pub(super) fn passable<T>(read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| {
        metrics::counter!("broker_unreadable_items_total").increment(1);
        tracing::error!("unreadable item skipped: {error}");
    })
    .ok()
}
