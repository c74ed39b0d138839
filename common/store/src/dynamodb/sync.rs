//! Writes of the sync job: inserts, refreshed names, stale and back, and deletions to repeat.
//!
//! Invariant: a sandbox that was ever handed out stays out of the pool: each way in requires that there is no allocation, or
//! that the provider created another resource after the old one was deleted.

use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};

use super::accounts::{AccountChange, Entered, replaced};
use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::deletion::{Seen, next};
use super::errors::built_wrong;
use super::keys::{self, STATE_KEY, STATE_SHARD};
use super::refill::OpenTicket;
use super::reservation_items::read_reserved_for;
use super::{SandboxStore, n, records, s};
use crate::{EntryConflict, NewSandbox, Record, StoreError, Write};
use broker_domain::{AccountKey, Event, ExternalId, ReservationId, Sandbox, SandboxName, Status, Timestamp};

const SANDBOX_IS_NEW: &str = "attribute_not_exists(PK)";
/// The id was reused for another resource, which the provider created after ours was deleted.
const ANOTHER_RESOURCE: &str =
    "#status = :deleted and version = :seen and external_id <> :external_id and deleted_at < :created_at";
/// [`Event::Found`] of a tombstone: the provider still lists it.
const STILL_LISTED: &str = "#status = :deleted and version = :seen";
/// [`Event::Found`] of one that was never handed out.
const FOUND_UNUSED: &str = "#status = :from and version = :seen and attribute_not_exists(allocation_id)";
/// [`Event::Missing`] of one that is offered, or is to be.
const MISSING: &str = "#status = :from and version = :seen";

/// An unused sandbox as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Unused<'a> {
    /// Arriving, available, put aside, stale, or in quarantine.
    pub status: Status,
    /// The version at which it is changed.
    pub version: u64,
    /// Its name until then.
    pub name: &'a SandboxName,
    /// Its account until then.
    pub external_id: &'a ExternalId,
}

impl Unused<'_> {
    /// Whether `listed` is another account than it was, or has another name: what is known of it, of its gate too, is not known of that.
    pub fn is_remade(&self, listed: &NewSandbox) -> bool {
        self.name != &listed.name || !is_account(listed, self.external_id)
    }
}

impl SandboxStore {
    /// Puts a sandbox that the provider lists into the pool, if no item has its id and no sandbox its account; else returns
    /// the item in its way.
    pub async fn insert(
        &self,
        sandbox: &NewSandbox,
        now: Timestamp,
    ) -> Result<Write<EntryConflict<Box<Record>>>, StoreError> {
        Ok(match self.put_new(sandbox, now, synced(now), Vec::new()).await? {
            Write::Applied => Write::Applied,
            Write::Rejected(EntryConflict::AccountTaken { by }) => {
                Write::Rejected(EntryConflict::AccountTaken { by })
            }
            Write::Rejected(EntryConflict::MovedOn(current)) => {
                let record = records::read_record(&current.ok_or(StoreError::Conflict)?)?;
                Write::Rejected(EntryConflict::MovedOn(Box::new(record)))
            }
        })
    }

    /// The same for a sandbox that was asked for: it takes `ticket` in the same transaction. `None` if that is not open any
    /// more.
    pub async fn insert_with_ticket(
        &self,
        sandbox: &NewSandbox,
        ticket: &OpenTicket,
        now: Timestamp,
    ) -> Result<Option<Write<EntryConflict<Box<Record>>>>, StoreError> {
        let ticket = vec![self.table.take_ticket(ticket, &sandbox.id, now)?];
        Ok(match self.put_new(sandbox, now, synced(now), ticket).await? {
            Write::Applied => Some(Write::Applied),
            Write::Rejected(EntryConflict::AccountTaken { by }) => {
                Some(Write::Rejected(EntryConflict::AccountTaken { by }))
            }
            Write::Rejected(EntryConflict::MovedOn(Some(current))) => {
                let record = records::read_record(&current)?;
                Some(Write::Rejected(EntryConflict::MovedOn(Box::new(record))))
            }
            Write::Rejected(EntryConflict::MovedOn(None)) => None,
        })
    }

    /// Puts a sandbox with its account's record if both keys are free, and writes `others` with it; else returns the existing
    /// item.
    pub(super) async fn put_new(
        &self,
        sandbox: &NewSandbox,
        now: Timestamp,
        whence: (&'static str, AttributeValue),
        others: Vec<(keys::Key, TransactWriteItem)>,
    ) -> Result<Entered, StoreError> {
        const OPERATION: &str = "insert";
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(self.fresh(sandbox, NewSandbox::first_version(now), now, whence)))
            .condition_expression(SANDBOX_IS_NEW)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let put = TransactWriteItem::builder().put(put).build();
        let accounts = [AccountChange::Hold(&sandbox.external_id)];
        self.table.write_with_accounts(OPERATION, &sandbox.id, put, &accounts, others).await
    }

    /// Puts another resource of the provider into the pool in place of a tombstone of the same id. The version continues, so
    /// everything that was read of the old one is void; the account of the old one is never offered again.
    pub async fn insert_over_tombstone(
        &self,
        sandbox: &NewSandbox,
        tombstone: &Record,
        created_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        if is_account(sandbox, &tombstone.sandbox.external_id) {
            return Ok(Write::Rejected(EntryConflict::MovedOn(())));
        }
        self.put_over(sandbox, tombstone, created_at, now, Vec::new()).await.map(Write::without_current)
    }

    /// The same for a sandbox that was asked for: it takes `ticket` in the same transaction. `None` if that is not open any
    /// more.
    pub async fn insert_over_tombstone_with_ticket(
        &self,
        sandbox: &NewSandbox,
        tombstone: &Record,
        created_at: Timestamp,
        ticket: &OpenTicket,
        now: Timestamp,
    ) -> Result<Option<Write<EntryConflict>>, StoreError> {
        if is_account(sandbox, &tombstone.sandbox.external_id) {
            return Ok(Some(Write::Rejected(EntryConflict::MovedOn(()))));
        }
        let ticket = vec![self.table.take_ticket(ticket, &sandbox.id, now)?];
        let entered = self.put_over(sandbox, tombstone, created_at, now, ticket).await?;
        let ticket_is_gone = matches!(entered, Write::Rejected(EntryConflict::MovedOn(None)));
        Ok((!ticket_is_gone).then(|| entered.without_current()))
    }

    async fn put_over(
        &self,
        sandbox: &NewSandbox,
        tombstone: &Record,
        created_at: Timestamp,
        now: Timestamp,
        others: Vec<(keys::Key, TransactWriteItem)>,
    ) -> Result<Entered, StoreError> {
        const OPERATION: &str = "insert_over_tombstone";
        let (seen, was) = (tombstone.sandbox.version, &tombstone.sandbox.external_id);
        let version = NewSandbox::version_over(seen, now);
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(self.fresh(sandbox, version, now, synced(now))))
            .condition_expression(ANOTHER_RESOURCE)
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":deleted", s(Status::Deleted.as_str()))
            .expression_attribute_values(":seen", n(seen))
            .expression_attribute_values(":external_id", s(sandbox.external_id.as_str()))
            .expression_attribute_values(":created_at", n(created_at.as_secs()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let put = TransactWriteItem::builder().put(put).build();
        let accounts = replaced(was, &sandbox.external_id, AccountChange::Retire(was, now));
        self.table.write_with_accounts(OPERATION, &sandbox.id, put, &accounts, others).await
    }

    /// Makes a tombstone that the provider still lists pending again, under the external id that it lists now. For another
    /// account that is another deletion, asked for now.
    pub async fn revive_deletion(
        &self,
        tombstone: &Sandbox,
        listed: &NewSandbox,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        const OPERATION: &str = "revive_deletion";
        let to = next(Status::Deleted, Event::Found)?;
        let Sandbox { version, external_id: was, deletion_requested_at, .. } = tombstone;
        let requested_at = match *deletion_requested_at {
            Some(before) if is_account(listed, was) => before,
            Some(before) => asked_anew(before, now),
            None => now,
        };
        let update = self.table.change_item(ItemChange {
            operation: OPERATION,
            key: keys::sandbox(&listed.id).into_map(),
            condition: STILL_LISTED,
            update: "SET #status = :to, version = :next, external_id = :external_id, deletion_retry_count = :none, \
                     deletion_requested_at = :requested_at, state_shard = :shard, state_key = :due, updated_at = :now \
                     REMOVE #ttl, deleted_at",
            values: vec![
                (":deleted", s(Status::Deleted.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(version)),
                (":next", n(version + 1)),
                (":external_id", s(listed.external_id.as_str())),
                (":none", n(0)),
                (":requested_at", n(requested_at.as_secs())),
                (":shard", s(self.table.shard(to, &listed.id))),
                (":due", s(keys::time_key(now))),
                (":now", n(now.as_secs())),
            ],
        })?;
        let accounts = replaced(was, &listed.external_id, AccountChange::Retire(was, now));
        self.table
            .write_with_accounts(OPERATION, &listed.id, update, &accounts, Vec::new())
            .await
            .map(Write::without_current)
    }

    /// Sets name, external id and attributes of an unused sandbox as the provider lists them. A stale one arrives again, and so does
    /// one that is another account or has another name now, unless it is in quarantine: its gate has not seen that one, and its
    /// reservation, which counts it no more, may not take that name. An account that was to be deleted stays so under any name, and
    /// does not come back once another one has its place.
    pub async fn found(
        &self,
        from: Unused<'_>,
        listed: &NewSandbox,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        const OPERATION: &str = "found";
        let Some(place) = self.found_place(from, listed).await? else {
            return Ok(Write::Rejected(EntryConflict::MovedOn(())));
        };
        let mut values = vec![
            (":from", s(from.status.as_str())),
            (":to", s(place.to.as_str())),
            (":seen", n(from.version)),
            (":next", n(from.version + 1)),
            (":name", s(listed.name.as_str())),
            (":external_id", s(listed.external_id.as_str())),
            (":now", n(now.as_secs())),
        ];
        let (set, remove) = self.found_changes(&place, from.external_id, listed, &mut values, now);
        let update = self.table.change_item(ItemChange {
            operation: OPERATION,
            key: keys::sandbox(&listed.id).into_map(),
            condition: FOUND_UNUSED,
            update: &format!(
                "SET #status = :to, version = :next, #name = :name, external_id = :external_id, last_synced = :now, \
                 updated_at = :now{set}{remove}"
            ),
            values,
        })?;
        let others = match place.leaves {
            Some(left) => vec![(keys::reservation(left), self.table.one_less(left, now)?)],
            None => Vec::new(),
        };
        let old = match place.deletion_requested_at {
            Some(_) => AccountChange::Retire(from.external_id, now),
            None => AccountChange::Release(from.external_id),
        };
        let accounts = replaced(from.external_id, &listed.external_id, old);
        self.table
            .write_with_accounts(OPERATION, &listed.id, update, &accounts, others)
            .await
            .map(Write::without_current)
    }

    /// What else changes in a sandbox that is found: what is set, and what is removed.
    fn found_changes(
        &self,
        place: &FoundPlace,
        was: &ExternalId,
        listed: &NewSandbox,
        values: &mut Vec<(&'static str, AttributeValue)>,
        now: Timestamp,
    ) -> (String, String) {
        let (mut set, mut remove) = (String::new(), Vec::new());
        if place.arrives {
            values.extend([
                (":since", s(keys::time_key(now))),
                (":shard", s(self.table.shard(place.to, &listed.id))),
            ]);
            set.push_str(", state_shard = :shard, state_key = :since");
        }
        if place.is_remade {
            // What hooks were asked, or are to be asked, is asked about that one.
            remove.extend([a::GATE_CHECK, a::GATE_ATTEMPTS]);
        }
        if !is_account(listed, was) {
            remove.push(a::DELETION_REQUESTED_AT);
        } else if let (true, Some(before)) = (place.is_remade, place.deletion_requested_at) {
            values.push((":requested_at", n(asked_anew(before, now).as_secs())));
            set.push_str(", deletion_requested_at = :requested_at");
        }
        match &listed.attributes {
            None => {}
            Some(attributes) if attributes.is_empty() => remove.push(a::PROVIDER_ATTRIBUTES),
            Some(attributes) => {
                values.push((":attributes", s(attributes.to_json())));
                set.push_str(", provider_attributes = :attributes");
            }
        }
        remove.extend(place.leaves.map(|_| a::RESERVED_FOR));
        let remove = if remove.is_empty() { String::new() } else { format!(" REMOVE {}", remove.join(", ")) };
        (set, remove)
    }

    /// Where a sandbox goes that is found; `None` if it is not put aside any more, or was used before it went into quarantine.
    async fn found_place(
        &self,
        from: Unused<'_>,
        listed: &NewSandbox,
    ) -> Result<Option<FoundPlace>, StoreError> {
        let is_remade = from.is_remade(listed);
        let to = next(from.status, if is_remade { Event::Remade } else { Event::Found })?;
        // An arriving one that is as it was goes on waiting as it did.
        let arrives = to == Status::Arriving && (is_remade || from.status != Status::Arriving);
        let mut deletion_requested_at = None;
        if from.status == Status::Quarantined {
            let item = self.table.get(keys::sandbox(&listed.id)).await?;
            let unused = item.filter(|item| !item.contains_key(a::ALLOCATION_ID));
            let Some(item) = unused else { return Ok(None) };
            deletion_requested_at = Reader(&item).optional_time(a::DELETION_REQUESTED_AT)?;
        }
        let mut leaves = None;
        if from.status == Status::Reserved && arrives {
            let Some(item) = self.table.get(keys::sandbox(&listed.id)).await? else { return Ok(None) };
            let Some(reservation) = read_reserved_for(&Reader(&item))? else { return Ok(None) };
            leaves = Some(reservation);
        }
        Ok(Some(FoundPlace { to, is_remade, arrives, leaves, deletion_requested_at }))
    }

    /// Makes a sandbox that the provider does not list stale: an available or an arriving one.
    pub async fn missing(&self, from: Status, seen: Seen<'_>, now: Timestamp) -> Result<Write, StoreError> {
        let to = next(from, Event::Missing)?;
        let change = ItemChange {
            operation: "missing",
            key: keys::sandbox(seen.id).into_map(),
            condition: MISSING,
            update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :now \
                     REMOVE gate_check, gate_attempts, reserved_for",
            values: vec![
                (":from", s(from.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(seen.version)),
                (":next", n(seen.version + 1)),
                (":shard", s(self.table.shard(to, seen.id))),
                (":since", s(keys::time_key(now))),
                (":now", n(now.as_secs())),
            ],
        };
        if from == Status::Reserved {
            self.table.leave_reservation(seen, change, now).await
        } else {
            self.table.change(change).await
        }
    }

    /// The item of a new sandbox, arriving, with its origin.
    pub(super) fn fresh(
        &self,
        sandbox: &NewSandbox,
        version: u64,
        now: Timestamp,
        whence: (&'static str, AttributeValue),
    ) -> Item {
        let mut item = keys::sandbox(&sandbox.id).into_map();
        item.extend(
            [
                (a::SANDBOX_ID, s(sandbox.id.as_str())),
                (a::NAME, s(sandbox.name.as_str())),
                (a::EXTERNAL_ID, s(sandbox.external_id.as_str())),
                (a::STATUS, s(Status::Arriving.as_str())),
                (a::VERSION, n(version)),
                (a::CREATED_AT, n(now.as_secs())),
                (a::UPDATED_AT, n(now.as_secs())),
                (STATE_SHARD, s(self.table.shard(Status::Arriving, &sandbox.id))),
                (STATE_KEY, s(keys::time_key(now))),
                whence,
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if let Some(attributes) = sandbox.attributes.as_ref().filter(|attributes| !attributes.is_empty()) {
            item.insert(a::PROVIDER_ATTRIBUTES.to_owned(), s(attributes.to_json()));
        }
        item
    }
}

/// Where a sandbox goes that is found.
struct FoundPlace {
    to: Status,
    /// Whether it is another account now, or has another name.
    is_remade: bool,
    /// Whether it arrives now, and so has another place in the index.
    arrives: bool,
    /// The reservation that it leaves.
    leaves: Option<ReservationId>,
    /// When the provider was asked to delete the account that it was, if it was.
    deletion_requested_at: Option<Timestamp>,
}

/// The time of another deletion than that of `before`: the hook before a deletion tells them apart by this second.
fn asked_anew(before: Timestamp, now: Timestamp) -> Timestamp {
    now.max(before.plus(Duration::from_secs(1)))
}

/// Whether what is listed is the account that it `was`.
fn is_account(listed: &NewSandbox, was: &ExternalId) -> bool {
    AccountKey::of(was) == AccountKey::of(&listed.external_id)
}

/// The origin of a sandbox that the provider listed.
fn synced(now: Timestamp) -> (&'static str, AttributeValue) {
    (a::LAST_SYNCED, n(now.as_secs()))
}
