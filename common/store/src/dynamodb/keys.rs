//! Keys of the items and of the index.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use super::s;
use crate::Pace;
pub(super) use crate::page::{PK, SK};
use broker_domain::waiting::Line;
use broker_domain::{
    AccountKey, DeadLetterId, FlavourName, Job, LeaseKey, Limit, Permit, RequestId, ReservationId, SandboxId,
    Status, TenantName, TicketId, Timestamp,
};

/// The one global index.
pub const STATE_INDEX: &str = "StateIndex";
/// The index's partition key.
pub(super) const STATE_SHARD: &str = "state_shard";
/// The index's sort key.
pub(super) const STATE_KEY: &str = "state_key";

pub(super) const SANDBOX_PREFIX: &str = "SBX#";
pub(super) const LEASE_PREFIX: &str = "LEASE#";
/// The partition of an account of the provider, by its external id as `AccountKey` writes it.
pub(super) const ACCOUNT_PREFIX: &str = "EXT#";
pub(super) const REQUEST_PREFIX: &str = "REQ#";
/// The partitions of permits, one for each limit.
pub(super) const PERMIT_PREFIX: &str = "PERMIT#";
pub(super) const TICKET_PREFIX: &str = "TICKET#";
/// The partition of all instances, which are sorted by id.
pub(super) const INSTANCES: &str = "INSTANCE";
/// The partition of all lines, which are sorted by tenant and prefix.
pub(super) const LINES: &str = "LINES";
/// The partition of the history's minutes, which are sorted by time.
pub(super) const HISTORY: &str = "HISTORY";
const META: &str = "META";

/// The key of one item; every item of ours has the sort key `META` unless it is one of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pk: String,
    sk: Cow<'static, str>,
}

impl Key {
    const fn meta(pk: String) -> Self {
        Self { pk, sk: Cow::Borrowed(META) }
    }

    pub(super) fn into_map(self) -> HashMap<String, AttributeValue> {
        HashMap::from([(PK.to_owned(), s(self.pk)), (SK.to_owned(), s(self.sk))])
    }

    /// The partition key.
    pub(super) fn as_str(&self) -> &str {
        &self.pk
    }
}

pub(super) fn sandbox(id: &SandboxId) -> Key {
    Key::meta(format!("{SANDBOX_PREFIX}{id}"))
}

/// Ids have no `#`, so no two lease keys make one text.
pub(super) fn lease(key: &LeaseKey) -> Key {
    Key::meta(format!("{LEASE_PREFIX}{}#{}", key.track, key.key))
}

/// An account's record as an older version wrote it: under its id in another spelling.
pub(super) const fn account_as_stored(pk: String) -> Key {
    Key::meta(pk)
}

pub(super) fn account(key: &AccountKey) -> Key {
    Key::meta(format!("{ACCOUNT_PREFIX}{key}"))
}

pub(super) fn request(id: RequestId) -> Key {
    Key::meta(format!("{REQUEST_PREFIX}{id}"))
}

pub(super) fn tick(job: Job) -> Key {
    Key::meta(format!("TICK#{job}"))
}

pub(super) fn pace(of: Pace) -> Key {
    let pk = match of {
        Pace::Plan => "PACE",
        Pace::Calls => "PACE#CALLS",
    };
    Key::meta(pk.to_owned())
}

pub(super) fn pool() -> Key {
    Key::meta("POOL".to_owned())
}

pub(super) fn policy() -> Key {
    Key::meta("POLICY".to_owned())
}

pub(super) fn census() -> Key {
    Key::meta("CENSUS".to_owned())
}

pub(super) fn minute(at: Timestamp) -> Key {
    Key { pk: HISTORY.to_owned(), sk: Cow::Owned(time_key(at)) }
}

/// The flow of a flavour's refill.
pub(super) fn refill(flavour: &FlavourName) -> Key {
    Key::meta(format!("REFILL#{flavour}"))
}

/// The partition of all reservations, which are sorted by id.
pub(super) const RESERVATIONS: &str = "RESERVATION";

pub(super) fn reservation(id: ReservationId) -> Key {
    Key { pk: RESERVATIONS.to_owned(), sk: Cow::Owned(id.to_string()) }
}

/// The guard of what is reserved.
pub(super) fn reservations_guard() -> Key {
    Key::meta("RESERVATIONS".to_owned())
}

/// How the index sorts what is put aside: by reservation, then by what its names begin with.
pub(super) fn reserved_key(id: ReservationId, begins: &str) -> String {
    format!("{id}#{begins}")
}

/// How long a new sandbox of a flavour takes.
pub(super) fn readiness(flavour: &FlavourName) -> Key {
    Key::meta(format!("READY#{flavour}"))
}

/// The guard of a flavour's quarantine.
pub(super) fn quarantine_guard(flavour: &FlavourName) -> Key {
    Key::meta(format!("QUARANTINE#{flavour}"))
}

/// The partition of a flavour's tickets.
pub(super) fn tickets(flavour: &FlavourName) -> String {
    format!("{TICKET_PREFIX}{flavour}")
}

pub(super) fn ticket(flavour: &FlavourName, id: TicketId) -> Key {
    Key { pk: tickets(flavour), sk: Cow::Owned(id.to_string()) }
}

/// A line, in the list of all.
pub(super) fn line(line: &Line) -> Key {
    Key { pk: LINES.to_owned(), sk: Cow::Owned(line.to_string()) }
}

/// The guard of a tenant's lines.
pub(super) fn lines_guard(tenant: &TenantName) -> Key {
    Key::meta(format!("LINES#{tenant}"))
}

/// The beginning of the partitions of places.
pub(super) const PLACES: &str = "LINE#";

/// The partition of a line's places, which are sorted by request.
pub(super) fn places(line: &Line) -> String {
    format!("{PLACES}{line}")
}

pub(super) fn place(line: &Line, request: RequestId) -> Key {
    place_at(line, request.to_string())
}

/// A place by its sort key as it was read, which may be no request's.
pub(super) fn place_at(line: &Line, key: String) -> Key {
    Key { pk: places(line), sk: Cow::Owned(key) }
}

/// The partition of a limit's permits, which are the slots that are held.
pub(super) fn permits(limit: &Limit) -> String {
    format!("{PERMIT_PREFIX}{limit}")
}

pub(super) fn permit(permit: &Permit) -> Key {
    Key { pk: permits(&permit.limit), sk: Cow::Owned(permit.slot.to_string()) }
}

pub(super) fn sightings() -> Key {
    Key::meta("SWEEP".to_owned())
}

pub(super) fn run(id: RequestId) -> Key {
    Key::meta(format!("RUN#{id}"))
}

pub(super) fn instance(id: Uuid) -> HashMap<String, AttributeValue> {
    HashMap::from([(PK.to_owned(), s(INSTANCES)), (SK.to_owned(), s(id.to_string()))])
}

/// The partition of the dead letters of a shard, which are sorted by id.
pub(super) fn letters(shard: u8) -> String {
    format!("DEAD#{shard:02}")
}

pub(super) fn letter(id: &DeadLetterId) -> Key {
    Key { pk: letters(id.shard()), sk: Cow::Owned(id.as_str().to_owned()) }
}

/// The partition of the audit lines of a day.
pub(super) fn audit_day(at: Timestamp) -> String {
    format!("AUDIT#{}", at.date())
}

/// The key of an audit line: sorted by time in the partition of its day; the id distinguishes those of one millisecond.
pub(super) fn audit(at: Timestamp, id: Uuid) -> Key {
    Key { pk: audit_day(at), sk: Cow::Owned(format!("{:015}#{id}", at.as_ms())) }
}

pub(super) fn ping() -> Key {
    Key::meta("PING".to_owned())
}

/// `{status}#{00..}`: the index partition of a sandbox in a state.
pub(super) fn state_shard(status: Status, shard: u8) -> String {
    format!("{status}#{shard:02}")
}

/// The shard of a sandbox. FNV-1a (64 bit), because it is stored: it must never change between versions.
pub(super) fn shard_of(id: &SandboxId, shards: u8) -> u8 {
    let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u8::try_from((hash ^ (hash >> 32)) % u64::from(shards)).unwrap_or(0)
}

/// A time as the index sorts it: seconds, zero-padded.
pub(super) fn time_key(at: Timestamp) -> String {
    format!("{:012}", at.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_an_id_is_what_it_always_was() {
        let shard = |id: &str| shard_of(&SandboxId::new(id).unwrap(), 16);
        assert_eq!([shard("seed-000000"), shard("seed-000001"), shard("a")], [12, 15, 0]);
    }

    #[test]
    fn ids_spread_evenly_over_the_shards() {
        let mut counts = [0_u32; 16];
        for i in 0..16_000 {
            counts[usize::from(shard_of(&SandboxId::new(format!("seed-{i:06}")).unwrap(), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
