//! Check that each sandbox put aside has its reservation, for `broker pool verify`.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_domain::{Reservation, ReservationId, SandboxId, SandboxName, Status, Timestamp};

use crate::found::Found;
use crate::{Store, StoreError};

/// While the pool is open, what is put aside for a reservation that has ended goes back within seconds; ten minutes later it is
/// wrong.
const GOES_BACK_WITHIN: Duration = Duration::from_secs(600);

/// What is wrong with sandboxes that a scan saw put aside. Each is read again, before its reservation: a reservation is there before
/// anything is put aside for it, and counts it in the same transaction.
pub(crate) async fn judge(
    store: &Store,
    put_aside: Vec<(ReservationId, SandboxId, u64)>,
    is_open: bool,
    now: Timestamp,
) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    if put_aside.is_empty() {
        return Ok(found);
    }
    let mut standing: BTreeMap<ReservationId, Vec<(SandboxId, SandboxName)>> = BTreeMap::new();
    for (reservation, id, version) in put_aside {
        let still = store.sandboxes.get(&id).await?;
        let still = still.filter(|sandbox| sandbox.status == Status::Reserved && sandbox.version == version);
        if let Some(sandbox) = still {
            standing.entry(reservation).or_default().push((id, sandbox.name));
        }
    }
    for (id, sandboxes) in standing {
        // Of one moment: what is put aside still was counted before, and is counted as long as it stands so.
        let reservation = match store.reservations.get(id).await {
            Err(error @ StoreError::Malformed { .. }) => {
                found.push(Found { kind: "unreadable_item", detail: error.to_string() });
                continue;
            }
            read => read?,
        };
        for (sandbox, name) in &sandboxes {
            let kind = match &reservation {
                None => "reserved_for_nobody",
                Some(Reservation { terms, .. }) if !terms.fits(name) => "reserved_wrongly",
                Some(Reservation { closed: Some(closed), .. })
                    if is_open && now.since(closed.at) > GOES_BACK_WITHIN =>
                {
                    "reserved_too_long"
                }
                Some(_) => continue,
            };
            found
                .push(Found { kind, detail: format!("sandbox {sandbox} is put aside for reservation {id}") });
        }
        let count = sandboxes.len() as u64;
        if let Some(one) = reservation.filter(|one| one.is_open() && u64::from(one.held) < count) {
            // Some may have gone back since they were read: they are read once more, with what is counted now.
            let mut still = 0_u64;
            for (sandbox, _) in &sandboxes {
                let record = store.sandboxes.record(sandbox).await?;
                still += u64::from(record.is_some_and(|record| {
                    record.sandbox.status == Status::Reserved && record.reserved_for == Some(id)
                }));
            }
            let again = store.reservations.get(id).await?;
            if again.is_some_and(|again| again.version == one.version) && u64::from(one.held) < still {
                let detail = format!(
                    "reservation {id} counts {} sandboxes, and {still} are put aside for it",
                    one.held
                );
                found.push(Found { kind: "reserved_uncounted", detail });
            }
        }
    }
    Ok(found)
}
