//! Conversion of reservations between items and the domain's values.

use std::str::FromStr as _;
use std::time::Duration;

use super::attributes::{self as a, Item, Reader};
use super::keys::{self, SK};
use super::{n, s};
use crate::StoreError;
use broker_domain::reservation::Closed;
use broker_domain::{
    NamePrefix, Reservation, ReservationEnd, ReservationId, ReservationTerms, TenantName, Timestamp,
};

/// How long a reservation that ended is shown.
const SHOWN_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The reservation that a sandbox is put aside for, or was when it was claimed.
pub(super) fn read_reserved_for(read: &Reader<'_>) -> Result<Option<ReservationId>, StoreError> {
    read.optional(a::RESERVED_FOR, ReservationId::parse)
}

pub(super) fn write_reservation(reservation: &Reservation) -> Item {
    let Reservation { id, version, terms, held, held_at, made_at, made_by, closed } = reservation;
    let mut item = keys::reservation(*id).into_map();
    item.extend(
        [
            (a::VERSION, n(version)),
            (a::TENANT, s(terms.tenant.as_str())),
            (a::RESERVED_PREFIX, s(terms.prefix.as_str())),
            (a::RESERVED_COUNT, n(terms.count)),
            (a::LEAD_MS, n(terms.lead.as_millis())),
            (a::HELD, n(held)),
            (a::HELD_AT_MS, n(held_at.as_ms())),
            (a::MADE_AT_MS, n(made_at.as_ms())),
            (a::MADE_BY, s(made_by)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let times = [(a::FROM_MS, terms.from), (a::UNTIL_MS, terms.until)];
    item.extend(times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), n(at?.as_ms())))));
    item.extend(terms.no_show.map(|time| (a::NO_SHOW_MS.to_owned(), n(time.as_millis()))));
    if let Some(Closed { at, why, cleared }) = closed {
        item.insert(a::CLOSED_AT_MS.to_owned(), n(at.as_ms()));
        item.insert(a::CLOSED_WHY.to_owned(), s(why.as_str()));
        if *cleared {
            item.insert(a::CLEARED.to_owned(), n(1));
            item.insert(a::TTL.to_owned(), n(at.plus(SHOWN_FOR).as_secs()));
        }
    }
    item
}

pub(super) fn read_reservation(item: &Item) -> Result<Reservation, StoreError> {
    let read = Reader(item);
    let time = |name| Ok::<_, StoreError>(read.optional_number(name)?.map(Timestamp::from_ms));
    let count = |name| u32::try_from(read.number(name)?).map_err(|_| read.malformed(name));
    let closed = match time(a::CLOSED_AT_MS)? {
        None => None,
        Some(at) => Some(Closed {
            at,
            why: read.text(a::CLOSED_WHY, |text| Ok::<_, ()>(ReservationEnd::from_stored(text)))?,
            cleared: read.optional_number(a::CLEARED)?.is_some(),
        }),
    };
    Ok(Reservation {
        id: read.text(SK, ReservationId::parse)?,
        version: read.number(a::VERSION)?,
        terms: ReservationTerms {
            tenant: read.text(a::TENANT, TenantName::new)?,
            prefix: read.text(a::RESERVED_PREFIX, NamePrefix::new)?,
            count: count(a::RESERVED_COUNT)?,
            from: time(a::FROM_MS)?,
            until: time(a::UNTIL_MS)?,
            lead: Duration::from_millis(read.number(a::LEAD_MS)?),
            no_show: read.optional_number(a::NO_SHOW_MS)?.map(Duration::from_millis),
        },
        held: count(a::HELD)?,
        held_at: Timestamp::from_ms(read.number(a::HELD_AT_MS)?),
        made_at: Timestamp::from_ms(read.number(a::MADE_AT_MS)?),
        made_by: read.text(a::MADE_BY, String::from_str)?,
        closed,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn reservations_read_back_as_they_are_stored() {
        let at = Timestamp::from_ms;
        let terms = ReservationTerms {
            tenant: TenantName::new("acme").unwrap(),
            prefix: NamePrefix::new("lab-#").unwrap(),
            count: 30,
            from: Some(at(9)),
            until: Some(at(10)),
            lead: Duration::from_secs(1_800),
            no_show: Some(Duration::from_secs(60)),
        };
        let full = Reservation {
            id: ReservationId::from_uuid(Uuid::from_u128(7)),
            version: 3,
            terms: terms.clone(),
            held: 20,
            held_at: at(5),
            made_at: at(1),
            made_by: "ops".to_owned(),
            closed: None,
        };
        let floor = Reservation {
            terms: ReservationTerms { from: None, until: None, no_show: None, ..terms },
            ..full.clone()
        };
        for why in [ReservationEnd::Over, ReservationEnd::NoShow, ReservationEnd::Deleted] {
            for cleared in [false, true] {
                let closed = Some(Closed { at: at(11), why, cleared });
                let ended = Reservation { closed, ..full.clone() };
                let item = write_reservation(&ended);
                assert_eq!(item.contains_key(a::TTL), cleared, "what holds sandboxes still must not expire");
                assert_eq!(read_reservation(&item).unwrap(), ended);
            }
        }
        for reservation in [full, floor] {
            assert_eq!(read_reservation(&write_reservation(&reservation)).unwrap(), reservation);
        }
    }
}
