//! Adoption of a row that another tool wrote.
//!
//! Invariant: a row is changed only if every attribute is still as it was read, because the other tool need not count
//! versions; lease and index keys are written in one transaction, so a run that ends anywhere leaves rows that are fully
//! adopted or not at all. Lenient reading is in `foreign`, the decision in `domain::adoption`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};

use super::accounts::AccountChange;
use super::attributes as a;
use super::errors::built_wrong;
use super::foreign::{ForeignRow, KNOWN, Survey, digest, is_foreign, read};
use super::keys::{self, LEASE_PREFIX, PK, SANDBOX_PREFIX, STATE_KEY, STATE_SHARD};
use super::{AdoptionStore, n, s};
use crate::{EntryConflict, Page, PageKey, StoreError, Write};
use broker_domain::reconcile::Minted;
use broker_domain::{
    Adoption, EndReason, Fingerprint, ForeignSandbox, Grant, LabDuration, Lease, Status, Tenancy, Term,
    Timestamp,
};

/// No lease, or one that ended.
const LEASE_IS_NOT_LIVE: &str = "attribute_not_exists(PK) or attribute_exists(ended_at)";

impl AdoptionStore {
    /// One page of the whole table, as [`ScanStore::page`](super::ScanStore::page) reads it, for an adoption. Where a row
    /// does not say how long its owner has it, it is `lab_duration`.
    pub async fn survey(
        &self,
        segment: i32,
        segments: i32,
        after: Option<PageKey>,
        lab_duration: LabDuration,
        now: Timestamp,
    ) -> Result<Page<Survey>, StoreError> {
        let page = self.table.scan_items(segment, segments, after).await?;
        let mut survey = Survey::default();
        for item in page.items {
            let pk = item.get(PK).and_then(|pk| pk.as_s().ok()).map(String::as_str).unwrap_or_default();
            if pk.starts_with(LEASE_PREFIX) {
                let lease = a::read_lease(&item).ok().filter(|lease| lease.end.is_none());
                survey.held.extend(lease.map(|lease| lease.key));
            } else if pk.starts_with(SANDBOX_PREFIX) {
                survey.digests.push((pk.to_owned(), digest(&item)));
                if !is_foreign(&item) {
                    survey.ours += 1;
                    survey.accounts.extend(a::read_sandbox(&item).ok().map(|ours| ours.external_id));
                    continue;
                }
                match read(&item, lab_duration, now) {
                    Ok(sandbox) => survey.foreign.push(sandbox),
                    Err(error) => survey.unreadable.push(error.to_string()),
                }
            }
        }
        Ok(Page { items: survey, next: page.next })
    }

    /// Adopts a row, if it is still as it was read and no other sandbox has its account.
    pub async fn row(
        &self,
        sandbox: &ForeignSandbox,
        row: &ForeignRow,
        adoption: &Adoption,
        minted: Minted,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        let wanted = self.wanted(sandbox, row, adoption, minted, now);
        let rewrite = self.rewrite(sandbox, row, wanted)?;
        let mut others = Vec::new();
        if let Adoption::Lease(tenancy) = adoption {
            let lease = self.put_adopted_lease(sandbox, tenancy, minted)?;
            others.push((keys::lease(&tenancy.lease_key), lease));
        }
        let accounts = [AccountChange::Hold(&sandbox.external_id)];
        self.table
            .write_with_accounts("adopt", &sandbox.id, rewrite, &accounts, others)
            .await
            .map(Write::without_current)
    }

    /// The known attributes after the adoption; the others are removed.
    fn wanted(
        &self,
        sandbox: &ForeignSandbox,
        row: &ForeignRow,
        adoption: &Adoption,
        minted: Minted,
        now: Timestamp,
    ) -> BTreeMap<&'static str, AttributeValue> {
        let status = match adoption {
            Adoption::AsItIs if matches!(sandbox.status, Status::Available | Status::Reserved) => {
                Status::Arriving
            }
            Adoption::AsItIs | Adoption::Lease(_) => sandbox.status,
            Adoption::GiveUp(_) => Status::PendingDeletion,
        };
        let mut wanted = BTreeMap::from([
            (a::SANDBOX_ID, s(sandbox.id.as_str())),
            (a::NAME, s(sandbox.name.as_str())),
            (a::EXTERNAL_ID, s(sandbox.external_id.as_str())),
            (a::STATUS, s(status.as_str())),
            (a::VERSION, n(row.adopted_version())),
            (a::CREATED_AT, n(row.created_at.unwrap_or(now).as_secs())),
            (a::UPDATED_AT, n(now.as_secs())),
        ]);
        wanted.extend(row.last_synced.map(|at| (a::LAST_SYNCED, n(at.as_secs()))));
        if let Some(tenancy) = &sandbox.tenancy {
            wanted.extend([
                (a::TRACK, s(tenancy.lease_key.track.as_str())),
                (a::IDEMPOTENCY_KEY, s(tenancy.lease_key.key.as_str())),
                (a::ALLOCATION_ID, s(minted.allocation_id.to_string())),
                (a::LAB_DURATION_HOURS, n(row.lab_duration.hours())),
                (a::ALLOCATED_AT, n(tenancy.allocated_at.as_secs())),
                (a::EXPIRES_AT, n(tenancy.expires_at.as_secs())),
            ]);
            wanted.extend(tenancy.track_name.as_ref().map(|name| (a::TRACK_NAME, s(name.as_str()))));
        }
        let due = match status {
            Status::Available | Status::Reserved => s(sandbox.name.as_str()),
            Status::Allocated => {
                let expires_at = sandbox.tenancy.as_ref().map_or(now, |tenancy| tenancy.expires_at);
                s(keys::time_key(expires_at))
            }
            Status::Arriving
            | Status::PendingDeletion
            | Status::Stale
            | Status::Quarantined
            | Status::DeletionFailed => s(keys::time_key(now)),
            Status::Unknown => return wanted,
            Status::Deleted => {
                wanted.insert(a::DELETED_AT, n(row.deleted_at.unwrap_or(now).as_secs()));
                return wanted;
            }
        };
        wanted.insert(STATE_SHARD, s(self.table.shard(status, &sandbox.id)));
        wanted.insert(STATE_KEY, due);
        if matches!(status, Status::PendingDeletion | Status::DeletionFailed) {
            wanted.extend(deletion(row, adoption, now));
        }
        wanted
    }

    /// The update that sets the known attributes to `wanted`, on the condition that they are as they were read.
    fn rewrite(
        &self,
        sandbox: &ForeignSandbox,
        row: &ForeignRow,
        wanted: BTreeMap<&'static str, AttributeValue>,
    ) -> Result<TransactWriteItem, StoreError> {
        let (mut conditions, mut sets, mut removals) = (Vec::new(), Vec::new(), Vec::new());
        let mut update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(&sandbox.id).into_map()))
            .expression_attribute_names("#pk", PK);
        for (number, name) in KNOWN.into_iter().enumerate() {
            update = update.expression_attribute_names(format!("#a{number}"), name);
            match row.item.get(name) {
                Some(seen) => {
                    conditions.push(format!("#a{number} = :seen{number}"));
                    update = update.expression_attribute_values(format!(":seen{number}"), seen.clone());
                }
                None => conditions.push(format!("attribute_not_exists(#a{number})")),
            }
            match wanted.get(name) {
                Some(value) => {
                    sets.push(format!("#a{number} = :want{number}"));
                    update = update.expression_attribute_values(format!(":want{number}"), value.clone());
                }
                None => removals.push(format!("#a{number}")),
            }
        }
        let change = if removals.is_empty() {
            format!("SET {}", sets.join(", "))
        } else {
            format!("SET {} REMOVE {}", sets.join(", "), removals.join(", "))
        };
        let update = update
            .condition_expression(format!("attribute_exists(#pk) and {}", conditions.join(" and ")))
            .update_expression(change)
            .build()
            .map_err(|error| built_wrong("adopt", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn put_adopted_lease(
        &self,
        sandbox: &ForeignSandbox,
        tenancy: &Tenancy,
        minted: Minted,
    ) -> Result<TransactWriteItem, StoreError> {
        let lease = Lease {
            key: tenancy.lease_key.clone(),
            request_id: minted.request_id,
            allocation_id: minted.allocation_id,
            fingerprint: Fingerprint::unknown(),
            grant: Grant {
                sandbox_id: sandbox.id.clone(),
                name: sandbox.name.clone(),
                external_id: sandbox.external_id.clone(),
                track_name: tenancy.track_name.clone(),
                allocated_at: tenancy.allocated_at,
                expires_at: tenancy.expires_at,
                attributes: broker_domain::ProviderAttributes::default(),
            },
            term: Term::default(),
            tenant: None,
            permit: None,
            end: None,
        };
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(a::write_live_lease(&lease)))
            .condition_expression(LEASE_IS_NOT_LIVE)
            .build()
            .map_err(|error| built_wrong("adopt", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// The attributes of a pending deletion. The reasons of an older tool are not kept.
fn deletion(
    row: &ForeignRow,
    adoption: &Adoption,
    now: Timestamp,
) -> impl Iterator<Item = (&'static str, AttributeValue)> {
    let (asked, reason) = match adoption {
        Adoption::GiveUp(_) => (now, Some(EndReason::Released.as_str())),
        Adoption::AsItIs | Adoption::Lease(_) => {
            let text = row.item.get(a::DELETION_REASON).and_then(|value| value.as_s().ok());
            let reason = text.map(|text| EndReason::from_stored(text));
            let reason = reason.filter(|reason| *reason != EndReason::Unknown).map(EndReason::as_str);
            (row.deletion_requested_at.unwrap_or(now), reason)
        }
    };
    let reason = reason.map(|reason| (a::DELETION_REASON, s(reason)));
    [(a::DELETION_REQUESTED_AT, n(asked.as_secs())), (a::DELETION_RETRY_COUNT, n(0))]
        .into_iter()
        .chain(reason)
}
