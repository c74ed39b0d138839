//! Writes of the quarantine.
//!
//! Invariant: each write is at the version that was read, so it excludes a claim of the same moment; what was ever handed
//! out, or was to be deleted, leaves the quarantine for its deletion only.

use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, Put, TransactWriteItem};

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::deletion::{Seen, next};
use super::errors::{built_wrong, cancelled};
use super::transact::Group;
use super::{SandboxStore, keys, n, s};
use crate::{StoreError, Write};
use broker_domain::quarantine::QuarantineGuard;
use broker_domain::{Event, FlavourName, Quarantine, QuarantineCause, SandboxId, Status, Timestamp};

/// [`Event::Quarantine`].
const MAY_BE_QUARANTINED: &str = "#status = :from and version = :seen";
/// [`Event::Release`] of one that was never handed out, and that the provider was never asked to delete.
const MAY_BE_RELEASED: &str = "#status = :quarantined and version = :seen and attribute_not_exists(allocation_id) \
     and attribute_not_exists(deletion_requested_at)";
/// [`Event::Retire`].
const MAY_BE_RETIRED: &str = "#status = :quarantined and version = :seen";

/// The guard is as it was read, or there was none.
const GUARD_IS_AS_READ: &str = "attribute_not_exists(PK) or version = :seen";
/// What puts a sandbox into quarantine, but for why.
const INTO_QUARANTINE: &str =
    "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :at";

/// The assignments of a quarantine, of which [`quarantine_values`] are the values.
pub(super) const QUARANTINE_SET: &str =
    "quarantined_at = :at, quarantine_cause = :cause, quarantined_by = :by, quarantine_reason = :why";

/// The values of [`QUARANTINE_SET`].
pub(super) fn quarantine_values(quarantine: &Quarantine) -> [(&'static str, AttributeValue); 4] {
    [
        (":at", n(quarantine.at.as_secs())),
        (":cause", s(quarantine.cause.as_str())),
        (":by", s(&quarantine.by)),
        (":why", s(&quarantine.reason)),
    ]
}

/// Why a sandbox is, or was, in quarantine.
pub(super) fn read_quarantine(item: &Item) -> Result<Option<Quarantine>, StoreError> {
    let read = Reader(item);
    let text = |name| read.optional(name, |text| Ok::<_, ()>(text.to_owned()));
    let Some(at) = read.optional_time(a::QUARANTINED_AT)? else { return Ok(None) };
    Ok(Some(Quarantine {
        at,
        cause: text(a::QUARANTINE_CAUSE)?
            .map_or(QuarantineCause::Unknown, |word| QuarantineCause::from_stored(&word)),
        by: text(a::QUARANTINED_BY)?.unwrap_or_default(),
        reason: text(a::QUARANTINE_REASON)?.unwrap_or_default(),
    }))
}

impl SandboxStore {
    /// Puts a sandbox into quarantine that is `from`.
    pub async fn quarantine(
        &self,
        seen: Seen<'_>,
        from: Status,
        quarantine: &Quarantine,
    ) -> Result<Write, StoreError> {
        let update = format!("{INTO_QUARANTINE}, {QUARANTINE_SET} REMOVE reserved_for");
        let change = self.quarantine_change(&update, seen, from, quarantine)?;
        if from == Status::Reserved {
            self.table.leave_reservation(seen, change, quarantine.at).await
        } else {
            self.table.change(change).await
        }
    }

    /// The same of one that goes there by itself, if the guard of its flavour is as it was read: a process that counted before
    /// another one went there counts again ([`StoreError::Conflict`]).
    pub async fn quarantine_guarded(
        &self,
        seen: Seen<'_>,
        from: Status,
        quarantine: &Quarantine,
        (flavour, guard): (&FlavourName, &QuarantineGuard),
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        const OPERATION: &str = "quarantine_guarded";
        let update = format!("{INTO_QUARANTINE}, {QUARANTINE_SET}");
        let sandbox = self.table.change_item(self.quarantine_change(&update, seen, from, quarantine)?)?;
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(write_guard(flavour, &guard.with(seen.id, now))))
            .condition_expression(GUARD_IS_AS_READ)
            .expression_attribute_values(":seen", n(guard.version))
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let items = vec![sandbox, TransactWriteItem::builder().put(put).build()];
        let keys = vec![keys::sandbox(seen.id), keys::quarantine_guard(flavour)];
        match self.table.transactions.submit(OPERATION, Group { keys, items }).await? {
            Write::Applied => Ok(Write::Applied),
            Write::Rejected(reasons) => {
                let failed = |position: usize| {
                    let code = reasons.get(position).and_then(CancellationReason::code);
                    code == Some("ConditionalCheckFailed")
                };
                if failed(0) {
                    Ok(Write::Rejected(()))
                } else if failed(1) {
                    Err(StoreError::Conflict)
                } else {
                    Err(cancelled(OPERATION, &reasons))
                }
            }
        }
    }

    /// The guard of a flavour's quarantine (a consistent read).
    pub async fn quarantine_guard(&self, flavour: &FlavourName) -> Result<QuarantineGuard, StoreError> {
        let item = self.table.get(keys::quarantine_guard(flavour)).await?;
        item.map_or_else(|| Ok(QuarantineGuard::default()), |item| read_guard(&item))
    }

    fn quarantine_change<'a>(
        &self,
        update: &'a str,
        seen: Seen<'_>,
        from: Status,
        quarantine: &Quarantine,
    ) -> Result<ItemChange<'a>, StoreError> {
        let to = next(from, Event::Quarantine)?;
        let mut values = vec![
            (":from", s(from.as_str())),
            (":to", s(to.as_str())),
            (":seen", n(seen.version)),
            (":next", n(seen.version + 1)),
            (":shard", s(self.table.shard(to, seen.id))),
            (":since", s(keys::time_key(quarantine.at))),
        ];
        values.extend(quarantine_values(quarantine));
        Ok(ItemChange {
            operation: "quarantine",
            key: keys::sandbox(seen.id).into_map(),
            condition: MAY_BE_QUARANTINED,
            update,
            values,
        })
    }

    /// Lets a sandbox go that was never handed out or to be deleted: it is arriving again.
    pub async fn release_quarantined(&self, seen: Seen<'_>, now: Timestamp) -> Result<Write, StoreError> {
        let to = next(Status::Quarantined, Event::Release)?;
        self.table
            .change(ItemChange {
                operation: "release_quarantined",
                key: keys::sandbox(seen.id).into_map(),
                condition: MAY_BE_RELEASED,
                update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :now \
                         REMOVE quarantined_at, quarantine_cause, quarantined_by, quarantine_reason, gate_check, gate_attempts",
                values: vec![
                    (":quarantined", s(Status::Quarantined.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(seen.version)),
                    (":next", n(seen.version + 1)),
                    (":shard", s(self.table.shard(to, seen.id))),
                    (":since", s(keys::time_key(now))),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }

    /// Has a sandbox in quarantine deleted at the provider. Its reason stays.
    pub async fn retire_quarantined(&self, seen: Seen<'_>, now: Timestamp) -> Result<Write, StoreError> {
        let to = next(Status::Quarantined, Event::Retire)?;
        self.table
            .change(ItemChange {
                operation: "retire_quarantined",
                key: keys::sandbox(seen.id).into_map(),
                condition: MAY_BE_RETIRED,
                update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :due, \
                         deletion_requested_at = if_not_exists(deletion_requested_at, :now), deletion_retry_count = :none, \
                         updated_at = :now",
                values: vec![
                    (":quarantined", s(Status::Quarantined.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(seen.version)),
                    (":next", n(seen.version + 1)),
                    (":shard", s(self.table.shard(to, seen.id))),
                    (":due", s(keys::time_key(now))),
                    (":none", n(0)),
                    (":now", n(now.as_secs())),
                ],
            })
            .await
    }
}

fn write_guard(flavour: &FlavourName, guard: &QuarantineGuard) -> Item {
    let mut item = keys::quarantine_guard(flavour).into_map();
    let recent =
        guard.recent.iter().map(|(id, at)| (id.to_string(), AttributeValue::N(at.as_ms().to_string())));
    item.insert(a::VERSION.to_owned(), n(guard.version));
    item.insert(a::RECENT.to_owned(), AttributeValue::M(recent.collect()));
    item
}

fn read_guard(item: &Item) -> Result<QuarantineGuard, StoreError> {
    let read = Reader(item);
    let recent = item.get(a::RECENT).and_then(|recent| recent.as_m().ok());
    let entry = |(id, at): (&String, &AttributeValue)| {
        let at = at.as_n().ok()?.parse().ok()?;
        Some((SandboxId::new(id.as_str()).ok()?, Timestamp::from_ms(at)))
    };
    let recent: Option<_> = recent.ok_or_else(|| read.malformed(a::RECENT))?.iter().map(entry).collect();
    let recent = recent.ok_or_else(|| read.malformed(a::RECENT))?;
    Ok(QuarantineGuard { version: read.number(a::VERSION)?, recent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_reads_back_as_it_is_stored() {
        let (flavour, at) = (FlavourName::new("small").unwrap(), Timestamp::from_ms(5));
        let guard = QuarantineGuard::default().with(&SandboxId::new("a").unwrap(), at);
        assert_eq!(read_guard(&write_guard(&flavour, &guard)).unwrap(), guard);
        let mut broken = write_guard(&flavour, &guard);
        broken.insert(a::RECENT.to_owned(), s("what?"));
        assert!(read_guard(&broken).is_err());
    }
}
