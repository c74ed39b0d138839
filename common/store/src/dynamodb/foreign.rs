//! Lenient reader of rows that another tool wrote: null and empty are absent, a number may have a fraction, a time of 0 is
//! none.
//!
//! A sandbox's row is foreign as long as it has no index keys (a tombstone: as long as it is not in our form). Invariant:
//! anything that may be the trace of an owner counts as one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use aws_sdk_dynamodb::types::AttributeValue;

use super::attributes::{self as a, Item, Reader};
use super::keys::{PK, SANDBOX_PREFIX, STATE_KEY, STATE_SHARD};
use super::records;
use crate::StoreError;
use broker_domain::{
    ExternalId, ForeignSandbox, IdempotencyKey, LabDuration, LeaseKey, SandboxId, SandboxName, Status,
    Tenancy, Timestamp, TrackId, TrackName,
};

/// Every attribute of our rows that another tool's may have in another form.
pub(super) const KNOWN: [&str; 24] = [
    a::SANDBOX_ID,
    a::NAME,
    a::EXTERNAL_ID,
    a::STATUS,
    a::VERSION,
    a::TRACK,
    a::IDEMPOTENCY_KEY,
    a::ALLOCATION_ID,
    a::TRACK_NAME,
    a::LAB_DURATION_HOURS,
    a::ALLOCATED_AT,
    a::EXPIRES_AT,
    a::DELETION_REQUESTED_AT,
    a::DELETION_RETRY_COUNT,
    a::DELETION_REASON,
    a::DELETION_ERROR,
    a::DELETED_AT,
    a::LAST_SYNCED,
    a::CREATED_AT,
    a::UPDATED_AT,
    a::TTL,
    a::PERMIT,
    STATE_SHARD,
    STATE_KEY,
];

/// Of these, what only a sandbox has that was handed out, or is on its way out.
pub(super) const TRACES: [&str; 12] = [
    a::TRACK,
    a::IDEMPOTENCY_KEY,
    a::ALLOCATION_ID,
    a::TRACK_NAME,
    a::ALLOCATED_AT,
    a::EXPIRES_AT,
    a::DELETION_REQUESTED_AT,
    a::DELETION_RETRY_COUNT,
    a::DELETION_REASON,
    a::DELETION_ERROR,
    a::DELETED_AT,
    a::PERMIT,
];

/// A row of another tool, with every known attribute as it was read.
#[derive(Clone, Debug)]
pub struct ForeignRow {
    pub(super) item: Item,
    pub(super) version: u64,
    pub(super) lab_duration: LabDuration,
    /// Times that are kept as they are.
    pub(super) created_at: Option<Timestamp>,
    pub(super) last_synced: Option<Timestamp>,
    pub(super) deletion_requested_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
}

impl ForeignRow {
    /// The version of the row once it is adopted.
    pub const fn adopted_version(&self) -> u64 {
        self.version + 1
    }
}

/// What a scan reads of a table that another tool may have filled.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Sandboxes in the form of the other tool.
    pub foreign: Vec<(ForeignSandbox, ForeignRow)>,
    /// The number of sandboxes that are in our form.
    pub ours: u64,
    /// Their accounts.
    pub accounts: Vec<ExternalId>,
    /// The keys that hold a live lease.
    pub held: Vec<LeaseKey>,
    /// Every sandbox's partition key, and the digest of its row.
    pub digests: Vec<(String, u64)>,
    /// The errors of sandboxes that cannot be adopted.
    pub unreadable: Vec<String>,
}

/// Whether a sandbox's row is not in our form.
pub(super) fn is_foreign(item: &Item) -> bool {
    let is_tombstone = records::read_status(item).is_ok_and(|status| status == Status::Deleted);
    if is_tombstone { records::read_record(item).is_err() } else { !item.contains_key(STATE_SHARD) }
}

/// A digest of the row, to detect changes.
pub(super) fn digest(item: &Item) -> u64 {
    let mut hasher = DefaultHasher::new();
    let sorted: BTreeMap<_, _> = item.iter().collect();
    // Sets and maps, which no row of ours has, may print in another order: then it counts as changed.
    format!("{sorted:?}").hash(&mut hasher);
    hasher.finish()
}

/// A row in any form.
struct Lenient<'a>(&'a Item);

impl<'a> Lenient<'a> {
    fn malformed(&self, attribute: &'static str) -> StoreError {
        Reader(self.0).malformed(attribute)
    }

    fn text<T, E>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<Option<T>, StoreError> {
        match self.0.get(name) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(AttributeValue::S(text)) if text.is_empty() => Ok(None),
            Some(AttributeValue::S(text)) => parse(text).map(Some).map_err(|_| self.malformed(name)),
            Some(_) => Err(self.malformed(name)),
        }
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>, StoreError> {
        match self.0.get(name) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(AttributeValue::N(text)) => whole(text).parse().map(Some).map_err(|_| self.malformed(name)),
            Some(_) => Err(self.malformed(name)),
        }
    }

    /// Whether the row says anything: neither null, nor empty, nor 0.
    fn says(&self, name: &str) -> bool {
        match self.0.get(name) {
            None | Some(AttributeValue::Null(_)) => false,
            Some(AttributeValue::S(text)) => !text.is_empty(),
            Some(AttributeValue::N(number)) => whole(number).parse() != Ok(0_u64),
            Some(_) => true,
        }
    }

    fn time(&self, name: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.number(name)?.filter(|secs| *secs > 0).map(Timestamp::from_secs))
    }
}

/// A number without its fraction.
fn whole(number: &str) -> &str {
    number.split_once('.').map_or(number, |(whole, _)| whole)
}

pub(super) fn read(
    item: &Item,
    lab_duration: LabDuration,
    now: Timestamp,
) -> Result<(ForeignSandbox, ForeignRow), StoreError> {
    let read = Lenient(item);
    let id = item.get(PK).and_then(|pk| pk.as_s().ok()).and_then(|pk| pk.strip_prefix(SANDBOX_PREFIX));
    let id = SandboxId::new(id.unwrap_or_default()).map_err(|_| read.malformed(PK))?;
    let told = read.number(a::LAB_DURATION_HOURS)?.and_then(|hours| LabDuration::new(hours).ok());
    let lab_duration = told.unwrap_or(lab_duration);
    let allocated_at = read.time(a::ALLOCATED_AT)?;
    let tenancy = match read.text(a::TRACK, TrackId::new)? {
        None => None,
        Some(track) => {
            let key = read.text(a::IDEMPOTENCY_KEY, IdempotencyKey::new)?;
            let key = key.unwrap_or_else(|| IdempotencyKey::from(&track));
            let allocated_at = allocated_at.unwrap_or(now).floor_to_second();
            Some(Tenancy {
                lease_key: LeaseKey { track, key },
                track_name: read.text(a::TRACK_NAME, TrackName::new)?,
                allocated_at,
                expires_at: read
                    .time(a::EXPIRES_AT)?
                    .unwrap_or(allocated_at.plus(lab_duration.as_duration())),
            })
        }
    };
    let row = ForeignRow {
        version: read.number(a::VERSION)?.unwrap_or(0),
        lab_duration,
        created_at: read.time(a::CREATED_AT)?,
        last_synced: read.time(a::LAST_SYNCED)?,
        deletion_requested_at: read.time(a::DELETION_REQUESTED_AT)?,
        deleted_at: read.time(a::DELETED_AT)?,
        item: item.clone(),
    };
    let sandbox = ForeignSandbox {
        id,
        name: read.text(a::NAME, SandboxName::new)?.ok_or_else(|| read.malformed(a::NAME))?,
        external_id: read
            .text(a::EXTERNAL_ID, ExternalId::new)?
            .ok_or_else(|| read.malformed(a::EXTERNAL_ID))?,
        status: read
            .text(a::STATUS, |text| Status::parse(text).ok_or(()))?
            .ok_or_else(|| read.malformed(a::STATUS))?,
        used: TRACES.iter().any(|name| read.says(name)),
        tenancy,
    };
    Ok((sandbox, row))
}

#[cfg(test)]
mod tests {
    use super::super::{n, s};
    use super::*;

    fn row(attributes: &[(&str, AttributeValue)]) -> Item {
        let base = [(PK, s("SBX#a")), ("SK", s("META")), (a::NAME, s("name")), (a::EXTERNAL_ID, s("x"))];
        let all = base.into_iter().chain(attributes.iter().cloned());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn sandbox(attributes: &[(&str, AttributeValue)]) -> Result<ForeignSandbox, StoreError> {
        read(&row(attributes), LabDuration::new(4).unwrap(), Timestamp::from_secs(1_000))
            .map(|(sandbox, _)| sandbox)
    }

    #[test]
    fn null_empty_and_zero_are_no_trace_of_an_owner() {
        let free = sandbox(&[
            (a::STATUS, s("available")),
            (a::TRACK, AttributeValue::Null(true)),
            (a::IDEMPOTENCY_KEY, s("")),
            (a::ALLOCATED_AT, n(0)),
            (a::DELETION_REQUESTED_AT, AttributeValue::Null(true)),
            (a::DELETION_RETRY_COUNT, n(0)),
            (a::DELETION_REASON, s("")),
        ]);
        assert_eq!(free.map(|free| (free.used, free.tenancy)).unwrap(), (false, None));
        for name in TRACES {
            let is_text = matches!(
                name,
                a::TRACK
                    | a::IDEMPOTENCY_KEY
                    | a::ALLOCATION_ID
                    | a::TRACK_NAME
                    | a::DELETION_REASON
                    | a::DELETION_ERROR
            );
            let trace = (name, if is_text { s("x") } else { n(7) });
            assert!(sandbox(&[(a::STATUS, s("available")), trace.clone()]).unwrap().used, "{trace:?}");
        }
    }

    #[test]
    fn what_a_row_does_not_say_is_what_a_request_would_not_say() {
        let held =
            sandbox(&[(a::STATUS, s("allocated")), (a::TRACK, s("t")), (a::ALLOCATED_AT, n("500.25"))]);
        let tenancy = held.unwrap().tenancy.unwrap();
        assert_eq!(tenancy.lease_key.key.as_str(), "t");
        assert_eq!((tenancy.allocated_at.as_secs(), tenancy.expires_at.as_secs()), (500, 500 + 4 * 3_600));
    }

    #[test]
    fn a_row_is_foreign_until_it_has_its_place_in_the_index_and_a_grave_until_it_is_as_we_write_it() {
        let available = row(&[(a::STATUS, s("available"))]);
        assert!(is_foreign(&available));
        assert!(!is_foreign(&row(&[(a::STATUS, s("available")), (STATE_SHARD, s("available#00"))])));
        let grave = [(a::STATUS, s("deleted"))];
        assert!(is_foreign(&row(&grave)));
        let ours =
            [(a::SANDBOX_ID, s("a")), (a::VERSION, n(3)), (a::CREATED_AT, n(1)), (a::UPDATED_AT, n(2))];
        assert!(!is_foreign(&row(&[&grave[..], &ours].concat())));
    }

    #[test]
    fn a_row_that_changed_in_anything_has_another_digest() {
        let of = |attributes: &[(&str, AttributeValue)]| digest(&row(attributes));
        let (status, at) = ((a::STATUS, s("available")), (a::UPDATED_AT, n(7)));
        assert_eq!(of(&[status.clone(), at.clone()]), of(&[at.clone(), status.clone()]));
        let all = [
            of(&[status.clone(), at.clone()]),
            of(std::slice::from_ref(&status)),
            of(&[status.clone(), (a::UPDATED_AT, n(8))]),
            of(&[status.clone(), (a::UPDATED_AT, s("7"))]),
            of(&[(a::STATUS, s("stale")), at.clone()]),
            of(&[status, at, ("notes", s(""))]),
        ];
        assert_eq!(std::collections::BTreeSet::from(all).len(), all.len());
    }

    #[test]
    fn what_cannot_be_ours_is_named() {
        for wrong in [(a::TRACK, s("a b")), (a::VERSION, s("1")), (a::EXPIRES_AT, n("-1")), (a::NAME, n(1))] {
            let attributes = [(a::STATUS, s("allocated")), (a::TRACK, s("t")), wrong.clone()];
            let error = sandbox(&attributes).unwrap_err();
            assert!(error.to_string().contains(wrong.0), "{error}");
        }
        assert!(sandbox(&[(a::STATUS, s("AVAILABLE"))]).is_err());
        assert!(sandbox(&[]).is_err());
    }
}
