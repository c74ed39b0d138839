//! Storage of reservations: one item each in the partition `RESERVATION`, and the sandboxes that are put aside for them.
//!
//! Invariants: a sandbox is put aside in the transaction that counts it in its reservation, at the versions that were read of
//! both, so none is put aside for a reservation that changed or was closed. Reservations are made and changed one at a time:
//! each such write raises the version of the guard that it read, so two that were compared with the same others are never both
//! written. A reservation that is closed never opens again, so what goes back needs no look at it.

use aws_sdk_dynamodb::types::{CancellationReason, Put, TransactWriteItem};

use super::attributes::{self as a, Item, Reader};
use super::change::{ItemChange, written};
use super::deletion::{Seen, next};
use super::errors::{built_wrong, cancelled};
use super::keys::{self, STATE_KEY};
use super::pool::passable;
use super::reservation_items::{read_reservation, read_reserved_for, write_reservation};
use super::transact::Group;
use super::{ReservationStore, TableClient, n, s};
use crate::{Candidate, Page, PageKey, StoreError, Write};
use broker_domain::{Event, Reservation, ReservationId, Status, Timestamp};

/// It is new.
const THERE_IS_NONE: &str = "attribute_not_exists(PK)";
/// It is as it was read: no change, end or sandbox put aside since.
const IT_IS_AS_READ: &str = "version = :seen";
/// No reservation was made or changed since the guard was read.
const GUARD_IS_AS_READ: &str = "attribute_not_exists(version) or version = :seen";
/// [`Event::Reserve`] of one that is offered, or is to be.
const MAY_BE_RESERVED: &str = "#status = :from and version = :seen";
/// [`Event::GiveBack`] of one that is put aside for it.
const IS_PUT_ASIDE: &str = "#status = :reserved and version = :seen and reserved_for = :reservation";
/// It counts one that leaves it unclaimed.
const COUNTS_ONE: &str = "attribute_exists(PK) and held >= :one";
/// The change of a sandbox that goes back.
const GOES_BACK: &str = "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :now \
                         REMOVE reserved_for";

/// Sandboxes that one transaction puts aside or gives back, at most: AWS takes a hundred items.
pub const PUT_ASIDE_TOGETHER: usize = 99;

/// What became of sandboxes that were to be put aside together, or to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutAside {
    /// All of them; the reservation is so now.
    Done(Box<Reservation>),
    /// The reservation is not as it was read.
    Moved,
    /// None, as those at these positions are not as they were listed.
    Lost(Vec<usize>),
}

impl ReservationStore {
    /// Every reservation that is kept, the oldest first (consistent reads). One that cannot be read is left out, and logged.
    pub async fn all(&self) -> Result<Vec<Reservation>, StoreError> {
        let items = self.table.all_of("reservations", keys::RESERVATIONS).await?;
        Ok(items.iter().filter_map(|item| passable(read_reservation(item))).collect())
    }

    /// One reservation (a consistent read).
    pub async fn get(&self, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        let item = self.table.get(keys::reservation(id)).await?;
        item.map(|item| read_reservation(&item)).transpose()
    }

    /// The version of the guard: read it before the reservations that a new one is compared with.
    pub async fn guard(&self) -> Result<u64, StoreError> {
        let item = self.table.get(keys::reservations_guard()).await?;
        item.map_or(Ok(0), |item| Reader(&item).number(a::VERSION))
    }

    /// Makes a reservation, or changes one that is at the version before, if none was made or changed since `guard` was read.
    pub async fn write(&self, after: &Reservation, is_new: bool, guard: u64) -> Result<Write, StoreError> {
        const OPERATION: &str = "write_reservation";
        let counted = self.table.change_item(ItemChange {
            operation: OPERATION,
            key: keys::reservations_guard().into_map(),
            condition: GUARD_IS_AS_READ,
            update: "SET version = :next",
            values: vec![(":seen", n(guard)), (":next", n(guard + 1))],
        })?;
        let items = vec![self.put(OPERATION, after, is_new)?, counted];
        let keys = vec![keys::reservation(after.id), keys::reservations_guard()];
        self.table.transactions.transact(OPERATION, keys, items).await
    }

    /// Writes a reservation that is at the version before: it ends, or is counted anew.
    pub async fn update(&self, after: &Reservation) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(write_reservation(after)))
            .condition_expression(IT_IS_AS_READ)
            .expression_attribute_values(":seen", n(after.version.saturating_sub(1)));
        written(Box::pin(call.send()).await, "update_reservation", &self.table.name)
    }

    fn put(
        &self,
        operation: &'static str,
        after: &Reservation,
        is_new: bool,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.table.name).set_item(Some(write_reservation(after)));
        let put = if is_new {
            put.condition_expression(THERE_IS_NONE)
        } else {
            put.condition_expression(IT_IS_AS_READ)
                .expression_attribute_values(":seen", n(after.version.saturating_sub(1)))
        };
        let put = put.build().map_err(|error| built_wrong(operation, error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Puts aside `sandboxes`, all or none, each as it was listed; at most [`PUT_ASIDE_TOGETHER`].
    pub async fn put_aside(
        &self,
        reservation: &Reservation,
        sandboxes: &[(Candidate, Status)],
        now: Timestamp,
    ) -> Result<PutAside, StoreError> {
        const OPERATION: &str = "put_aside";
        let held = reservation.held.saturating_add(u32::try_from(sandboxes.len()).unwrap_or(u32::MAX));
        let after = counted(reservation, held, now);
        let mut items = vec![self.put(OPERATION, &after, false)?];
        for (sandbox, from) in sandboxes {
            let to = next(*from, Event::Reserve)?;
            items.push(self.table.change_item(ItemChange {
                operation: OPERATION,
                key: keys::sandbox(&sandbox.sandbox_id).into_map(),
                condition: MAY_BE_RESERVED,
                update: "SET #status = :to, version = :next, reserved_for = :reservation, state_shard = :shard, \
                         state_key = :key, updated_at = :now REMOVE gate_check, gate_attempts",
                values: vec![
                    (":from", s(from.as_str())),
                    (":to", s(to.as_str())),
                    (":seen", n(sandbox.version)),
                    (":next", n(sandbox.version + 1)),
                    (":reservation", s(reservation.id.to_string())),
                    (":shard", s(self.table.shard(to, &sandbox.sandbox_id))),
                    (":key", s(keys::reserved_key(reservation.id, sandbox.name.as_str()))),
                    (":now", n(now.as_secs())),
                ],
            })?);
        }
        self.together(OPERATION, after, sandboxes.iter().map(|(sandbox, _)| sandbox), items).await
    }

    /// Gives back what an open reservation has too much of: all or none.
    pub async fn give_back_surplus(
        &self,
        reservation: &Reservation,
        sandboxes: &[Candidate],
        now: Timestamp,
    ) -> Result<PutAside, StoreError> {
        const OPERATION: &str = "give_back_surplus";
        let held = reservation.held.saturating_sub(u32::try_from(sandboxes.len()).unwrap_or(u32::MAX));
        let after = counted(reservation, held, now);
        let mut items = vec![self.put(OPERATION, &after, false)?];
        for sandbox in sandboxes {
            items.push(self.table.change_item(self.goes_back(OPERATION, reservation.id, sandbox, now)?)?);
        }
        self.together(OPERATION, after, sandboxes, items).await
    }

    async fn together<'c>(
        &self,
        operation: &'static str,
        after: Reservation,
        sandboxes: impl IntoIterator<Item = &'c Candidate>,
        items: Vec<TransactWriteItem>,
    ) -> Result<PutAside, StoreError> {
        let of_sandboxes = sandboxes.into_iter().map(|sandbox| keys::sandbox(&sandbox.sandbox_id));
        let keys = [keys::reservation(after.id)].into_iter().chain(of_sandboxes).collect();
        // Alone: it is nearly a whole call, and none of its conditions may be a neighbour's.
        match self.table.write_together(operation, &[Group { keys, items }]).await? {
            Write::Applied => Ok(PutAside::Done(Box::new(after))),
            Write::Rejected(reasons) => {
                let failed = |reason: &CancellationReason| reason.code() == Some("ConditionalCheckFailed");
                if reasons.first().is_some_and(failed) {
                    return Ok(PutAside::Moved);
                }
                let lost = reasons.iter().skip(1).enumerate().filter(|(_, reason)| failed(reason));
                let lost: Vec<_> = lost.map(|(position, _)| position).collect();
                if lost.is_empty() { Err(cancelled(operation, &reasons)) } else { Ok(PutAside::Lost(lost)) }
            }
        }
    }

    /// Gives back a sandbox of a reservation that is closed, or is not there any more: it is arriving again.
    pub async fn give_back(
        &self,
        reservation: ReservationId,
        sandbox: &Candidate,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        self.table.change(self.goes_back("give_back", reservation, sandbox, now)?).await
    }

    fn goes_back(
        &self,
        operation: &'static str,
        reservation: ReservationId,
        sandbox: &Candidate,
        now: Timestamp,
    ) -> Result<ItemChange<'static>, StoreError> {
        let to = next(Status::Reserved, Event::GiveBack)?;
        Ok(ItemChange {
            operation,
            key: keys::sandbox(&sandbox.sandbox_id).into_map(),
            condition: IS_PUT_ASIDE,
            update: GOES_BACK,
            values: vec![
                (":reserved", s(Status::Reserved.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(sandbox.version)),
                (":next", n(sandbox.version + 1)),
                (":reservation", s(reservation.to_string())),
                (":shard", s(self.table.shard(to, &sandbox.sandbox_id))),
                (":since", s(keys::time_key(now))),
                (":now", n(now.as_secs())),
            ],
        })
    }

    /// A page of everything that is put aside in `shard`, each with its reservation (the index, a moment behind).
    pub async fn of_shard(
        &self,
        shard: u8,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<(ReservationId, Candidate)>>, StoreError> {
        let page = self.table.items_by_state(Status::Reserved, shard, None, after).await?;
        Ok(page.map(|items| {
            let of = |item: &Item| {
                let key = |text: &str| {
                    text.split('#').next().map_or(Err(()), |id| ReservationId::parse(id).map_err(drop))
                };
                Ok::<_, StoreError>((Reader(item).text(STATE_KEY, key)?, a::read_candidate(item)?))
            };
            items.iter().filter_map(|item| passable(of(item))).collect()
        }))
    }
}

impl TableClient {
    /// The change of a reservation, one of whose sandboxes leaves it unclaimed.
    pub(super) fn one_less(
        &self,
        reservation: ReservationId,
        now: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        self.change_item(ItemChange {
            operation: "one_less",
            key: keys::reservation(reservation).into_map(),
            condition: COUNTS_ONE,
            update: "SET held = held - :one, version = version + :one, held_at_ms = :now",
            values: vec![(":one", n(1)), (":now", n(now.as_ms()))],
        })
    }

    /// Changes a sandbox that is put aside so that it leaves its reservation, which counts it no more. It moved on also if its
    /// reservation is not there any more: the next sweep gives it back.
    pub(super) async fn leave_reservation(
        &self,
        seen: Seen<'_>,
        change: ItemChange<'_>,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let operation = change.operation;
        let Some(item) = self.get(keys::sandbox(seen.id)).await? else { return Ok(Write::Rejected(())) };
        let Some(reservation) = read_reserved_for(&Reader(&item))? else { return Ok(Write::Rejected(())) };
        let items = vec![self.change_item(change)?, self.one_less(reservation, now)?];
        self.transactions
            .transact(operation, vec![keys::sandbox(seen.id), keys::reservation(reservation)], items)
            .await
    }
}

/// The reservation with so many put aside.
fn counted(reservation: &Reservation, held: u32, now: Timestamp) -> Reservation {
    Reservation { version: reservation.version + 1, held, held_at: now, ..reservation.clone() }
}
