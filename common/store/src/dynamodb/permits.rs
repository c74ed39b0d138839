//! Permits in the table: an item for each slot that is held, put by the claim and deleted by the end, each in its transaction.
//!
//! Invariant: the item and its lease change together, so a slot is free exactly when its item does not exist. Exceptions are
//! left by a program that knows no permits, or by a backup taken in the middle of a transaction; sweep and reconciliation
//! repair them.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use aws_sdk_dynamodb::types::{ConditionCheck, Delete, Put, TransactWriteItem};

use super::attributes::{self as a, Item, Reader};
use super::errors::built_wrong;
use super::keys::{self, PERMIT_PREFIX, PK, SK};
use super::partition::Parts;
use super::pool::passable;
use super::{PermitStore, TableClient, s};
use crate::{Page, PageKey, StoreError, Write};
use broker_domain::{AllocationId, Lease, Limit, Permit, PermitRecord};

/// No allocation holds it.
const PERMIT_IS_FREE: &str = "attribute_not_exists(PK)";
/// The allocation that ends holds it, or none.
const PERMIT_IS_OURS: &str = "attribute_not_exists(PK) or allocation_id = :seen";
/// The allocation that was read holds it.
const PERMIT_IS_AS_READ: &str = "allocation_id = :seen";
/// The lease is that allocation's, live.
const LEASE_IS_LIVE: &str = "allocation_id = :seen and attribute_not_exists(ended_at)";

impl TableClient {
    /// Takes a permit that is free, or that the allocation `over` holds.
    pub(super) fn put_permit(
        &self,
        record: &PermitRecord,
        over: Option<AllocationId>,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.name).set_item(Some(write_permit(record)));
        let put = match over {
            None => put.condition_expression(PERMIT_IS_FREE),
            Some(over) => put
                .condition_expression(PERMIT_IS_OURS)
                .expression_attribute_values(":seen", s(over.to_string())),
        };
        let put = put.build().map_err(|error| built_wrong("permit", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Gives back the permit of an allocation that ends.
    pub(super) fn delete_permit(
        &self,
        permit: &Permit,
        allocation: AllocationId,
    ) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.name)
            .set_key(Some(keys::permit(permit).into_map()))
            .condition_expression(PERMIT_IS_OURS)
            .expression_attribute_values(":seen", s(allocation.to_string()))
            .build()
            .map_err(|error| built_wrong("permit", error))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }
}

impl PermitStore {
    /// The permits of `limit` that are held (consistent reads). One that cannot be read is left out: `pool verify` names it.
    pub async fn held(&self, limit: &Limit) -> Result<Vec<PermitRecord>, StoreError> {
        let items = self.table.all_of("permits", &keys::permits(limit)).await?;
        Ok(items.iter().filter_map(|item| passable(read_permit(item))).collect())
    }

    /// The slots of `limit` that are held (consistent reads), whatever else their items say.
    pub async fn slots(&self, limit: &Limit) -> Result<BTreeSet<u32>, StoreError> {
        let items = self.table.all_parts_of("permits", (&keys::permits(limit), Parts::SortKey)).await?;
        Ok(items.iter().filter_map(|item| passable(slot_of(item))).collect())
    }

    /// At most `count` slots of `limit` that are held, of those behind `slot` in the order of their keys, which are texts: `10`
    /// comes before `9` (a consistent read). Behind `next` of the page nothing was looked at.
    pub async fn slots_after(
        &self,
        limit: &Limit,
        slot: u32,
        count: u16,
    ) -> Result<Page<BTreeSet<u32>, u32>, StoreError> {
        let after = PageKey(keys::permit(&Permit { limit: limit.clone(), slot }).into_map());
        let of = keys::permits(limit);
        let page = self.table.page_of("permits", (&of, Parts::SortKey), Some(after), Some(count)).await?;
        let next = page.next.map(|PageKey(last)| slot_of(&last)).transpose()?;
        Ok(Page { items: page.items.iter().filter_map(|item| passable(slot_of(item))).collect(), next })
    }

    /// Frees a permit whose allocation is not live, if it is still that one's: an allocation that ended never lives again.
    pub async fn free(&self, record: &PermitRecord) -> Result<Write, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::permit(&record.permit).into_map()))
            .condition_expression(PERMIT_IS_AS_READ)
            .expression_attribute_values(":seen", s(record.allocation_id.to_string()))
            .build()
            .map_err(|error| built_wrong("free_permit", error))?;
        let items = vec![TransactWriteItem::builder().delete(delete).build()];
        self.table.transactions.transact("free_permit", vec![keys::permit(&record.permit)], items).await
    }

    /// Puts the permit of a live lease where it is missing, as after a backup that has the one and not the other.
    pub async fn restore(&self, lease: &Lease, permit: &Permit) -> Result<Write, StoreError> {
        let record = PermitRecord {
            permit: permit.clone(),
            allocation_id: lease.allocation_id,
            lease_key: lease.key.clone(),
        };
        let check = ConditionCheck::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::lease(&lease.key).into_map()))
            .condition_expression(LEASE_IS_LIVE)
            .expression_attribute_values(":seen", s(lease.allocation_id.to_string()))
            .build()
            .map_err(|error| built_wrong("restore_permit", error))?;
        let keys = vec![keys::permit(permit), keys::lease(&lease.key)];
        let items = vec![
            self.table.put_permit(&record, None)?,
            TransactWriteItem::builder().condition_check(check).build(),
        ];
        self.table.transactions.transact("restore_permit", keys, items).await
    }
}

fn slot_of(item: &Item) -> Result<u32, StoreError> {
    Reader(item).text(SK, u32::from_str)
}

fn write_permit(record: &PermitRecord) -> Item {
    let mut item = keys::permit(&record.permit).into_map();
    item.insert(a::ALLOCATION_ID.to_owned(), s(record.allocation_id.to_string()));
    item.insert(a::TRACK.to_owned(), s(record.lease_key.track.as_str()));
    item.insert(a::IDEMPOTENCY_KEY.to_owned(), s(record.lease_key.key.as_str()));
    item
}

pub(super) fn read_permit(item: &Item) -> Result<PermitRecord, StoreError> {
    let read = Reader(item);
    let limit = read.text(PK, |text| Ok::<_, ()>(text.strip_prefix(PERMIT_PREFIX).unwrap_or_default()))?;
    let slot = slot_of(item)?;
    let permit = Permit::parse(&format!("{limit}#{slot}")).ok_or_else(|| read.malformed(PK))?;
    Ok(PermitRecord {
        permit,
        allocation_id: read.text(a::ALLOCATION_ID, AllocationId::parse)?,
        lease_key: read.lease_key()?,
    })
}
