//! Writes of the quarantine.
//!
//! Invariant: each write is at the version that was read, so it excludes a claim of the same moment; what was ever handed
//! out leaves the quarantine for its deletion only.

use aws_sdk_dynamodb::types::AttributeValue;

use super::attributes::{self as a, Item, Reader};
use super::change::ItemChange;
use super::deletion::{Seen, next};
use super::{SandboxStore, keys, n, s};
use crate::{StoreError, Write};
use broker_domain::{Event, Quarantine, QuarantineCause, Status, Timestamp};

/// [`Event::Quarantine`].
const MAY_BE_QUARANTINED: &str = "#status = :from and version = :seen";
/// [`Event::Release`] of one that was never handed out.
const MAY_BE_RELEASED: &str =
    "#status = :quarantined and version = :seen and attribute_not_exists(allocation_id)";
/// [`Event::Retire`].
const MAY_BE_RETIRED: &str = "#status = :quarantined and version = :seen";

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
        self.table
            .change(ItemChange {
                operation: "quarantine",
                key: keys::sandbox(seen.id).into_map(),
                condition: MAY_BE_QUARANTINED,
                update: &format!(
                    "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :at, \
                     {QUARANTINE_SET}"
                ),
                values,
            })
            .await
    }

    /// Lets a sandbox that was never handed out go: it is arriving again.
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
