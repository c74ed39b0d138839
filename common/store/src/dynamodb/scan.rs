//! Scans of the whole table, and transactional reads of a few items.

use std::time::Duration;

use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{self, Config};
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::types::{Get, TransactGetItem};

use super::accounts::read_account;
use super::attributes::{self as a, Item, Reader};
use super::errors::{built_wrong, unread};
use super::keys::{
    self, ACCOUNT_PREFIX, Key, LEASE_PREFIX, PERMIT_PREFIX, PK, REQUEST_PREFIX, SANDBOX_PREFIX, STATE_KEY,
    STATE_SHARD, TICKET_PREFIX,
};
use super::permits::read_permit;
use super::records::{read_cause, read_record};
use super::refill::read_ticket;
use super::reservation_items::read_reserved_for;
use super::{ScanStore, TableClient, s};
use crate::{Page, PageKey, Scanned, StoreError};
use broker_domain::{AccountKey, LeaseKey, Permit, ReservationId, Sandbox, SandboxId, Status, Timestamp};

/// Timeout of one attempt to read a page of a scan, or to describe or change a table.
const PAGE_ATTEMPT: Duration = Duration::from_secs(10);

/// A page is up to 1 MB, and a table is changed by another part of AWS: both need a longer timeout than a claim.
pub(super) fn long_timeout() -> config::Builder {
    let long_timeout = TimeoutConfig::builder().operation_attempt_timeout(PAGE_ATTEMPT).build();
    Config::builder().timeout_config(long_timeout)
}

impl ScanStore {
    /// One page of the sandboxes, leases and account records of segment `segment` of `segments` (a consistent read). The
    /// pages together are no snapshot: a change during the scan may be seen before or after.
    pub async fn page(
        &self,
        segment: i32,
        segments: i32,
        after: Option<PageKey>,
    ) -> Result<Page<Scanned>, StoreError> {
        let page = self.table.scan_items(segment, segments, after).await?;
        Ok(page.map(|items| self.sort_out(&items)))
    }

    /// The sandboxes, leases, account records and permits of these keys (at most 100 together) at one instant; absent ones are
    /// left out.
    pub async fn together(
        &self,
        sandboxes: &[SandboxId],
        leases: &[LeaseKey],
        accounts: &[AccountKey],
        permits: &[Permit],
    ) -> Result<Scanned, StoreError> {
        let wanted = sandboxes.iter().map(keys::sandbox).chain(leases.iter().map(keys::lease));
        let wanted = wanted.chain(accounts.iter().map(keys::account)).chain(permits.iter().map(keys::permit));
        let items = wanted.map(|key| self.get_of(key)).collect::<Result<_, _>>()?;
        let answer = match self.table.client.transact_get_items().set_transact_items(Some(items)).send().await
        {
            Ok(answer) => answer,
            Err(error) => {
                return Err(match error.as_service_error() {
                    Some(TransactGetItemsError::TransactionCanceledException(_)) => StoreError::Conflict,
                    _ => unread("TransactGetItems", &self.table.name, error),
                });
            }
        };
        let items: Vec<Item> =
            answer.responses.unwrap_or_default().into_iter().filter_map(|response| response.item).collect();
        Ok(self.sort_out(&items))
    }

    fn get_of(&self, key: Key) -> Result<TransactGetItem, StoreError> {
        let get = Get::builder().table_name(&self.table.name).set_key(Some(key.into_map())).build();
        Ok(TransactGetItem::builder()
            .get(get.map_err(|error| built_wrong("TransactGetItems", error))?)
            .build())
    }

    fn sort_out(&self, items: &[Item]) -> Scanned {
        let mut page = Scanned::default();
        for item in items {
            let pk = item.get(PK).and_then(|pk| pk.as_s().ok()).map(String::as_str).unwrap_or_default();
            let read = if let Some(id) = pk.strip_prefix(SANDBOX_PREFIX) {
                let sandbox = a::read_sandbox(item);
                page.left_out.extend(sandbox.is_err().then(|| id.to_owned()));
                sandbox.and_then(|sandbox| {
                    let misplaced = self.misplaced(item, &sandbox);
                    // Jobs read more of it. What the index has wrong is told already, and another program reads its own.
                    let is_read = misplaced.is_none() && sandbox.status != Status::Unknown;
                    let whole = if is_read { read_record(item).map(drop) } else { Ok(()) };
                    page.misplaced.extend(misplaced);
                    page.arriving.extend(arriving(item, &sandbox));
                    page.quarantined.extend(read_cause(item, sandbox.status));
                    page.reserved.extend(reserved(item, &sandbox));
                    page.seeds.extend(item.contains_key(a::SEEDED).then(|| sandbox.id.clone()));
                    page.sandboxes.push(sandbox);
                    whole
                })
            } else if pk.starts_with(LEASE_PREFIX) {
                a::read_lease(item).map(|lease| page.leases.push(lease))
            } else if pk.starts_with(REQUEST_PREFIX) {
                a::read_request(item)
                    .map(|request| page.parked.extend(request.parked.map(|line| (line, request.request_id))))
            } else if pk.starts_with(PERMIT_PREFIX) {
                read_permit(item).map(|record| page.permits.push(record))
            } else if pk.starts_with(ACCOUNT_PREFIX) {
                read_account(item).map(|record| page.accounts.push(record))
            } else if pk.starts_with(TICKET_PREFIX) {
                let problem = read_ticket(item).err();
                page.unreadable_tickets.extend(problem.map(|error| error.to_string()));
                Ok(())
            } else {
                Ok(())
            };
            page.unreadable.extend(read.err().map(|error| error.to_string()));
        }
        page
    }

    /// Why the index would not list a sandbox as it is. One item, so no other read can tell otherwise.
    fn misplaced(&self, item: &Item, sandbox: &Sandbox) -> Option<String> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
        let (shard, key) = (text(STATE_SHARD), text(STATE_KEY));
        let (id, status) = (&sandbox.id, sandbox.status);
        let is_time = |key: &str| key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_digit());
        let fits = match status {
            Status::Deleted => {
                return (shard.or(key).is_some()).then(|| format!("tombstone {id} has index keys"));
            }
            // Where it belongs, its own program knows.
            Status::Unknown => return None,
            Status::Available => key == Some(sandbox.name.as_str()),
            Status::Reserved => {
                let reservation = read_reserved_for(&Reader(item)).ok().flatten();
                let own = reservation.map(|id| keys::reserved_key(id, sandbox.name.as_str()));
                own.is_some() && key == own.as_deref()
            }
            Status::Allocated => {
                let until = sandbox.allocation.as_ref().map(|held| keys::time_key(held.expires_at));
                until.is_none_or(|until| key == Some(until.as_str()))
            }
            Status::Arriving
            | Status::PendingDeletion
            | Status::Stale
            | Status::Quarantined
            | Status::DeletionFailed => key.is_some_and(is_time),
        };
        let own = self.table.shard(status, id);
        if shard != Some(own.as_str()) {
            let stands = shard.unwrap_or("no shard");
            return Some(format!(
                "sandbox {id} is {status} and stands in {stands} of the index, not in {own}"
            ));
        }
        (!fits).then(|| {
            format!("sandbox {id} is {status} and stands under {:?} in the index", key.unwrap_or_default())
        })
    }
}

/// A sandbox that is put aside, with its reservation and its version.
fn reserved(item: &Item, sandbox: &Sandbox) -> Option<(ReservationId, SandboxId, u64)> {
    let reservation = read_reserved_for(&Reader(item)).ok().flatten()?;
    (sandbox.status == Status::Reserved).then(|| (reservation, sandbox.id.clone(), sandbox.version))
}

/// An arriving sandbox, and since when it may be admitted.
fn arriving(item: &Item, sandbox: &Sandbox) -> Option<(SandboxId, Timestamp)> {
    let since = item.get(STATE_KEY)?.as_s().ok()?.parse().ok()?;
    (sandbox.status == Status::Arriving).then(|| (sandbox.id.clone(), Timestamp::from_secs(since)))
}

impl TableClient {
    /// The same page, as raw items.
    pub(super) async fn scan_items(
        &self,
        segment: i32,
        segments: i32,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<Item>>, StoreError> {
        let call = self
            .client
            .scan()
            .table_name(&self.name)
            .consistent_read(true)
            .segment(segment)
            .total_segments(segments)
            .set_exclusive_start_key(after.map(|key| key.0))
            .filter_expression(
                "begins_with(PK, :sandbox) or begins_with(PK, :lease) or begins_with(PK, :account) or begins_with(PK, :permit) \
                 or begins_with(PK, :ticket) or (begins_with(PK, :request) and #state = :queued and attribute_exists(parked))",
            )
            .expression_attribute_names("#state", a::STATE)
            .expression_attribute_values(":queued", s(a::QUEUED))
            .expression_attribute_values(":request", s(REQUEST_PREFIX))
            .expression_attribute_values(":account", s(ACCOUNT_PREFIX))
            .expression_attribute_values(":permit", s(PERMIT_PREFIX))
            .expression_attribute_values(":ticket", s(TICKET_PREFIX))
            .expression_attribute_values(":sandbox", s(SANDBOX_PREFIX))
            .expression_attribute_values(":lease", s(LEASE_PREFIX));
        let call = call.customize().config_override(long_timeout());
        let answer = Box::pin(call.send()).await.map_err(|error| unread("Scan", &self.name, error))?;
        Ok(Page { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key.map(PageKey) })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::BehaviorVersion;

    use super::*;

    #[test]
    fn a_page_may_take_longer_than_a_claim() {
        let long_timeout = long_timeout().behavior_version(BehaviorVersion::latest()).build();
        let attempt = long_timeout.timeout_config().and_then(TimeoutConfig::operation_attempt_timeout);
        assert_eq!(attempt, Some(PAGE_ATTEMPT));
    }
}
