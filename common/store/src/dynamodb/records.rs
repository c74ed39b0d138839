//! Conversion of the jobs' items to values.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::keys::{SK, STATE_KEY};
use super::quarantine::read_quarantine;
use super::reservation_items::read_reserved_for;
use crate::{
    Census, GateQuestion, Instance, ProviderAway, Received, Record, Role, Run, SeenEmpty, StoreError, Tick,
    Trouble,
};
use broker_domain::policy::ByCause;
use broker_domain::{DeadLetterCount, JobReport, Pause, QuarantineCause, SandboxName, Status, Timestamp};

pub(super) fn read_status(item: &Item) -> Result<Status, StoreError> {
    Reader(item).text(a::STATUS, |text| Ok::<_, Infallible>(Status::from_stored(text)))
}

/// The name of a sandbox, if it can be read.
pub(super) fn read_name(item: &Item) -> Option<SandboxName> {
    Reader(item).optional(a::NAME, SandboxName::new).ok().flatten()
}

pub(super) fn read_record(item: &Item) -> Result<Record, StoreError> {
    let read = Reader(item);
    let sandbox = a::read_sandbox(item)?;
    // In every other state the index key is a time.
    let due = match sandbox.status {
        Status::Available | Status::Reserved | Status::Deleted | Status::Unknown => None,
        Status::Arriving
        | Status::Allocated
        | Status::PendingDeletion
        | Status::Stale
        | Status::Quarantined
        | Status::DeletionFailed => {
            read.optional(STATE_KEY, |text| text.parse().map(Timestamp::from_secs))?
        }
    };
    Ok(Record {
        due,
        attempts: read.optional_number(a::DELETION_RETRY_COUNT)?.unwrap_or(0),
        deletion_error: read.optional(a::DELETION_ERROR, |text| Ok::<_, ()>(text.to_owned()))?,
        deleted_at: read.optional_time(a::DELETED_AT)?,
        created_at: read.time(a::CREATED_AT)?,
        updated_at: read.time(a::UPDATED_AT)?,
        last_synced: read.optional_time(a::LAST_SYNCED)?,
        quarantine: read_quarantine(item)?,
        reserved_for: read_reserved_for(&read)?,
        gate: read_gate(&read)?,
        sandbox,
    })
}

fn read_gate(read: &Reader<'_>) -> Result<Option<GateQuestion>, StoreError> {
    let attempts = read.optional_number(a::GATE_ATTEMPTS)?.unwrap_or(0);
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    Ok(read.optional(a::GATE_CHECK, Uuid::try_parse)?.map(|id| GateQuestion { id, attempts }))
}

/// Something that holds since a time, and why.
fn read_since(
    read: &Reader<'_>,
    at: &'static str,
    why: &'static str,
) -> Result<Option<(Timestamp, String)>, StoreError> {
    let Some(at) = read.optional_number(at)?.map(Timestamp::from_ms) else { return Ok(None) };
    let why = read.optional(why, |why| Ok::<_, ()>(why.to_owned()))?;
    Ok(Some((at, why.unwrap_or_default())))
}

/// The pause that stands in an item since `since`.
pub(super) fn read_pause(read: &Reader<'_>, since: Timestamp) -> Result<Pause, StoreError> {
    Ok(Pause { since, by: read.optional(a::PAUSED_BY, |by| Ok::<_, ()>(by.to_owned()))? })
}

pub(super) fn read_tick(item: &Item) -> Result<Tick, StoreError> {
    let read = Reader(item);
    Ok(Tick {
        next_run_at: Timestamp::from_ms(read.number(a::NEXT_RUN_AT_MS)?),
        taken_until: read.optional_number(a::TAKEN_UNTIL_MS)?.map(Timestamp::from_ms),
        paused: read.optional_time(a::PAUSED_AT)?.map(|since| read_pause(&read, since)).transpose()?,
        ran_for: read.optional_number(a::RAN_FOR_MS)?.map(Timestamp::from_ms),
        trouble: read_since(&read, a::TROUBLE_MS, a::TROUBLE)?.map(|(at, why)| Trouble { at, why }),
    })
}

pub(super) fn read_next_slot(item: &Item) -> Result<Timestamp, StoreError> {
    Reader(item).number(a::NEXT_SLOT_MS).map(Timestamp::from_ms)
}

pub(super) fn read_census(item: &Item) -> Result<Census, StoreError> {
    let read = Reader(item);
    let count = |status| {
        let Some(value) = item.get(&format!("{status}_count")) else {
            // The program that counted does not know the state.
            return Ok((status, 0));
        };
        let count = value.as_n().ok().and_then(|text| text.parse().ok());
        Ok((status, count.ok_or_else(|| read.malformed("count"))?))
    };
    let newer = item.contains_key(&format!("{}_count", Status::Unknown)).then_some(Status::Unknown);
    Ok(Census {
        by_status: Status::ALL.into_iter().chain(newer).map(count).collect::<Result<_, StoreError>>()?,
        by_flavour: read.optional(a::BY_FLAVOUR, serde_json::from_str)?.unwrap_or_default(),
        by_cause: read.optional(a::BY_CAUSE, read_causes)?.unwrap_or_default(),
        by_reservation: read.optional(a::BY_RESERVATION, serde_json::from_str)?.unwrap_or_default(),
        // An older program counted none.
        letters: read.optional(a::LETTERS, serde_json::from_str::<DeadLetterCount>)?.unwrap_or_default(),
        as_of: Timestamp::from_ms(read.number(a::AS_OF_MS)?),
    })
}

/// The cause that put a sandbox into quarantine, if it is there now.
pub(super) fn read_cause(item: &Item, status: Status) -> Option<QuarantineCause> {
    let cause = item.get(a::QUARANTINE_CAUSE).and_then(|cause| cause.as_s().ok());
    (status == Status::Quarantined)
        .then(|| cause.map_or(QuarantineCause::Unknown, |word| QuarantineCause::from_stored(word)))
}

fn read_causes(text: &str) -> serde_json::Result<ByCause> {
    let mut by_cause = ByCause::new();
    for (word, count) in serde_json::from_str::<BTreeMap<String, u64>>(text)? {
        *by_cause.entry(QuarantineCause::from_stored(&word)).or_default() += count;
    }
    Ok(by_cause)
}

pub(super) fn read_instance(item: &Item) -> Result<Instance, StoreError> {
    let read = Reader(item);
    Ok(Instance {
        id: read.text(SK, Uuid::try_parse)?,
        role: read.text(a::ROLE, |text| Ok::<_, Infallible>(Role::from_stored(text)))?,
        heartbeat: Timestamp::from_ms(read.number(a::HEARTBEAT_MS)?),
        received: Received {
            requests: read.optional_number(a::OLDEST_REQUESTS_MS)?.map(Duration::from_millis),
            maintenance: read.optional_number(a::OLDEST_MAINTENANCE_MS)?.map(Duration::from_millis),
            count: 0,
        },
        requests_per_s: read.optional_number(a::REQUESTS_PER_S)?,
        receives: item.get(a::RECEIVES).and_then(|receives| receives.as_bool().ok()).copied(),
        seen_empty: SeenEmpty {
            requests: read.optional_number(a::REQUESTS_EMPTY_MS)?.map(Timestamp::from_ms),
            maintenance: read.optional_number(a::MAINTENANCE_EMPTY_MS)?.map(Timestamp::from_ms),
        },
        provider_away: read_since(&read, a::PROVIDER_AWAY_MS, a::PROVIDER_AWAY)?
            .map(|(since, why)| ProviderAway { since, why }),
        // For people only, as are the estimates: what a newer program says in another way is as good as unsaid.
        hooks_away: item
            .get(a::HOOKS_AWAY)
            .and_then(|away| serde_json::from_str(away.as_s().ok()?).ok())
            .unwrap_or_default(),
        granted: item
            .get(a::GRANTED)
            .and_then(|granted| serde_json::from_str(granted.as_s().ok()?).ok())
            .unwrap_or_default(),
    })
}

pub(super) fn read_run(item: &Item) -> Result<Run, StoreError> {
    let read = Reader(item);
    Ok(Run {
        job: read.text(a::JOB, |text| Ok::<_, ()>(text.to_owned()))?,
        report: read.optional(a::REPORT, serde_json::from_str::<JobReport>)?,
        created_at: read.time(a::CREATED_AT)?,
    })
}
