//! Storage of refill: the flow of each flavour (`REFILL#{flavour}`) and its tickets (`TICKET#{flavour}`).
//!
//! Invariant: tickets are made, and those that were taken are removed, only together with the next version of the flow, on
//! the condition that the version is the one that the round read (ARCHITECTURE.md, "Refill"). An open ticket is taken by an
//! arrival in the transaction of its insert, or ended, whichever is first.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{Delete, Put, Select, TransactWriteItem};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::change::{ItemChange, written};
use super::errors::{built_wrong, cancelled, failed_condition, unread};
use super::keys::{self, SK, STATE_INDEX, STATE_KEY, STATE_SHARD};
use super::pool::passable;
use super::records::read_pause;
use super::transact::Group;
use super::{RefillStore, TableClient, n, s};
use crate::{StoreError, Write};
use broker_domain::refill::{Bucket, Flow, HookBreaker, Plan, Ticket, TicketState};
use broker_domain::{FlavourName, NamePrefix, SandboxId, Status, TicketId, Timestamp};

/// The flow was not written since, or never.
const FLOW_IS_AS_READ: &str = "version = :seen";
const THERE_IS_NO_FLOW: &str = "attribute_not_exists(PK)";
/// No new sandbox was measured yet, or none since it was read.
const NOTHING_WAS_MEASURED: &str = "attribute_not_exists(PK)";
const MEASURED_AS_READ: &str = "ready_ms = :seen";
const TICKET_IS_NEW: &str = "attribute_not_exists(PK)";
/// No arrival has it, and it has not ended.
const TICKET_IS_OPEN: &str = "attribute_exists(PK) and attribute_not_exists(taken_at_ms)";
const TICKET_WAS_TAKEN: &str = "attribute_exists(taken_at_ms)";

/// The id of a ticket whose own cannot be read.
const NO_TICKET: TicketId = TicketId::from_uuid(Uuid::nil());

/// A ticket that an arrival may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenTicket {
    /// Its flavour.
    pub flavour: FlavourName,
    /// Its id.
    pub id: TicketId,
}

impl RefillStore {
    /// The flow of a flavour (a consistent read); without one, the first.
    pub async fn flow(&self, flavour: &FlavourName) -> Result<Flow, StoreError> {
        let item = self.table.get(keys::refill(flavour)).await?;
        item.map_or(Ok(Flow::default()), |item| read_flow(&item))
    }

    /// The flow of a flavour (a consistent read); `None` if it cannot be read, from which no round begins.
    pub async fn readable_flow(&self, flavour: &FlavourName) -> Result<Option<Flow>, StoreError> {
        let item = self.table.get(keys::refill(flavour)).await?;
        Ok(item.map_or(Some(Flow::default()), |item| passable(read_flow(&item))))
    }

    /// The flows of these flavours (batched, consistent reads); `None` for one that cannot be read, from which no round begins.
    pub async fn flows(
        &self,
        flavours: &[FlavourName],
    ) -> Result<Vec<(FlavourName, Option<Flow>)>, StoreError> {
        let mut looks = JoinSet::new();
        for flavour in flavours.iter().cloned() {
            let table = Arc::clone(&self.table);
            looks.spawn(async move {
                let item = table.reads.get(keys::refill(&flavour)).await?;
                let flow = item.map_or(Some(Flow::default()), |item| passable(read_flow(&item)));
                Ok::<_, StoreError>((flavour, flow))
            });
        }
        let mut flows = looks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        flows.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(flows)
    }

    /// The tickets of a flavour (consistent reads). One that cannot be read counts as open: it may stand for a sandbox that comes.
    pub async fn tickets(&self, flavour: &FlavourName) -> Result<Vec<Ticket>, StoreError> {
        let items = self.table.all_of("tickets", &keys::tickets(flavour)).await?;
        let unreadable = |item| Ticket::unreadable(read_ticket_id(item).unwrap_or(NO_TICKET));
        Ok(items.iter().map(|item| passable(read_ticket(item)).unwrap_or_else(|| unreadable(item))).collect())
    }

    /// About how many sandboxes with `prefix` are available; counting ends at `enough`.
    pub async fn available(&self, prefix: &NamePrefix, enough: u64) -> Result<u64, StoreError> {
        let mut count = 0;
        for shard in 0..self.table.shards {
            let mut after = None;
            loop {
                if count >= enough {
                    return Ok(count);
                }
                let call = self
                    .table
                    .client
                    .query()
                    .table_name(&self.table.name)
                    .index_name(STATE_INDEX)
                    .select(Select::Count)
                    .key_condition_expression(format!(
                        "{STATE_SHARD} = :shard and begins_with({STATE_KEY}, :prefix)"
                    ))
                    .expression_attribute_values(":shard", s(keys::state_shard(Status::Available, shard)))
                    .expression_attribute_values(":prefix", s(prefix.as_str()))
                    .set_exclusive_start_key(after);
                let answer = call.send().await.map_err(|error| unread("Query", &self.table.name, error))?;
                count += u64::try_from(answer.count).unwrap_or(0);
                after = answer.last_evaluated_key;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// How long a new sandbox of a flavour takes from the time it is asked for until it arrives, if that was measured.
    pub async fn ready_after(&self, flavour: &FlavourName) -> Result<Option<Duration>, StoreError> {
        let item = self.table.get(keys::readiness(flavour)).await?;
        let ms = item.map(|item| Reader(&item).number(a::READY_MS)).transpose()?;
        Ok(ms.map(Duration::from_millis))
    }

    /// Notes that one took `measured`: what took longer counts at once, what took less by and by.
    pub async fn note_ready(&self, flavour: &FlavourName, measured: Duration) -> Result<Write, StoreError> {
        let before = self.ready_after(flavour).await?;
        let after = before.map_or(measured, |before| measured.max((before * 7 + measured) / 8));
        if before == Some(after) {
            return Ok(Write::Applied);
        }
        let mut item = keys::readiness(flavour).into_map();
        item.insert(a::READY_MS.to_owned(), n(after.as_millis()));
        let call = self.table.client.put_item().table_name(&self.table.name).set_item(Some(item));
        let call = match before {
            None => call.condition_expression(NOTHING_WAS_MEASURED),
            Some(before) => call
                .condition_expression(MEASURED_AS_READ)
                .expression_attribute_values(":seen", n(before.as_millis())),
        };
        written(call.send().await, "note_ready", &self.table.name)
    }

    /// Writes a round's flow and new tickets, and removes those that a census has counted, if the flow is as it was read.
    pub async fn write_round(
        &self,
        flavour: &FlavourName,
        plan: &Plan,
        new: &[Ticket],
    ) -> Result<Write, StoreError> {
        const OPERATION: &str = "refill_round";
        let mut keys = vec![keys::refill(flavour)];
        let mut items = vec![self.put_flow(OPERATION, flavour, &plan.flow)?];
        for ticket in new {
            keys.push(keys::ticket(flavour, ticket.id));
            let put = Put::builder()
                .table_name(&self.table.name)
                .set_item(Some(write_ticket(flavour, ticket)))
                .condition_expression(TICKET_IS_NEW)
                .build()
                .map_err(|error| built_wrong(OPERATION, error))?;
            items.push(TransactWriteItem::builder().put(put).build());
        }
        for id in &plan.counted {
            keys.push(keys::ticket(flavour, *id));
            let delete = Delete::builder()
                .table_name(&self.table.name)
                .set_key(Some(keys::ticket(flavour, *id).into_map()))
                .condition_expression(TICKET_WAS_TAKEN)
                .build()
                .map_err(|error| built_wrong(OPERATION, error))?;
            items.push(TransactWriteItem::builder().delete(delete).build());
        }
        self.commit(OPERATION, Group { keys, items }).await
    }

    /// Writes the flow, if it is as it was read: `flow` is its next version.
    pub async fn write_flow(&self, flavour: &FlavourName, flow: &Flow) -> Result<Write, StoreError> {
        const OPERATION: &str = "refill_flow";
        let items = vec![self.put_flow(OPERATION, flavour, flow)?];
        self.commit(OPERATION, Group { keys: vec![keys::refill(flavour)], items }).await
    }

    /// Sets what became of an open ticket that no arrival took.
    pub async fn answered(
        &self,
        flavour: &FlavourName,
        id: TicketId,
        state: TicketState,
    ) -> Result<Write, StoreError> {
        let (update, values) = match state {
            TicketState::Due { at } => ("SET due_at_ms = :at", vec![(":at", n(at.as_ms()))]),
            TicketState::Asked => ("REMOVE due_at_ms", Vec::new()),
            TicketState::Taken { at } => ("SET taken_at_ms = :at", vec![(":at", n(at.as_ms()))]),
        };
        let key = keys::ticket(flavour, id).into_map();
        let operation = "ticket_answered";
        self.table.change(ItemChange { operation, key, condition: TICKET_IS_OPEN, update, values }).await
    }

    /// Ends a ticket, unless an arrival took it.
    pub async fn end_ticket(&self, flavour: &FlavourName, id: TicketId) -> Result<Write, StoreError> {
        const OPERATION: &str = "end_ticket";
        let key = keys::ticket(flavour, id);
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .set_key(Some(key.clone().into_map()))
            .condition_expression(TICKET_IS_OPEN)
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let items = vec![TransactWriteItem::builder().delete(delete).build()];
        self.commit(OPERATION, Group { keys: vec![key], items }).await
    }

    async fn commit(&self, operation: &'static str, group: Group) -> Result<Write, StoreError> {
        match self.table.transactions.submit(operation, group).await? {
            Write::Applied => Ok(Write::Applied),
            Write::Rejected(reasons) if failed_condition(&reasons).is_some() => Ok(Write::Rejected(())),
            Write::Rejected(reasons) => Err(cancelled(operation, &reasons)),
        }
    }

    fn put_flow(
        &self,
        operation: &'static str,
        flavour: &FlavourName,
        flow: &Flow,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.table.name).set_item(Some(write_flow(flavour, flow)));
        let put = match flow.version {
            0 | 1 => put.condition_expression(THERE_IS_NO_FLOW),
            next => {
                put.condition_expression(FLOW_IS_AS_READ).expression_attribute_values(":seen", n(next - 1))
            }
        };
        let put = put.build().map_err(|error| built_wrong(operation, error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

impl TableClient {
    /// The item of an arrival's transaction that takes a ticket for `sandbox`.
    pub(super) fn take_ticket(
        &self,
        ticket: &OpenTicket,
        sandbox: &SandboxId,
        now: Timestamp,
    ) -> Result<(keys::Key, TransactWriteItem), StoreError> {
        let key = keys::ticket(&ticket.flavour, ticket.id);
        let item = self.change_item(ItemChange {
            operation: "take_ticket",
            key: key.clone().into_map(),
            condition: TICKET_IS_OPEN,
            update: "SET taken_at_ms = :now, sandbox_id = :sandbox REMOVE due_at_ms",
            values: vec![(":now", n(now.as_ms())), (":sandbox", s(sandbox.as_str()))],
        })?;
        Ok((key, item))
    }
}

fn write_flow(flavour: &FlavourName, flow: &Flow) -> Item {
    let mut item = keys::refill(flavour).into_map();
    let Flow { version, bucket, breaker, rests_until, busy_until, paused } = flow;
    item.insert(a::VERSION.to_owned(), n(version));
    item.insert(a::BUCKET_US.to_owned(), n(bucket.as_us()));
    item.insert(a::UNANSWERED.to_owned(), n(breaker.unanswered));
    item.insert(a::OVERDUE.to_owned(), n(breaker.overdue));
    item.insert(a::PROBES.to_owned(), n(breaker.probes));
    let times = [
        (a::PROBE_AT_MS, breaker.probe_at),
        (a::RESTS_UNTIL_MS, *rests_until),
        (a::BUSY_UNTIL_MS, *busy_until),
        (a::PAUSED_AT_MS, paused.as_ref().map(|pause| pause.since)),
    ];
    let times = times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), n(at?.as_ms()))));
    item.extend(times);
    let by = paused.as_ref().and_then(|pause| pause.by.as_ref());
    item.extend(by.map(|by| (a::PAUSED_BY.to_owned(), s(by))));
    item
}

fn read_flow(item: &Item) -> Result<Flow, StoreError> {
    let read = Reader(item);
    let time = |name| Ok::<_, StoreError>(read.optional_number(name)?.map(Timestamp::from_ms));
    let count = |name| {
        let number = read.number(name)?;
        u32::try_from(number).map_err(|_| read.malformed(name))
    };
    let breaker = HookBreaker {
        unanswered: count(a::UNANSWERED)?,
        probes: count(a::PROBES)?,
        probe_at: time(a::PROBE_AT_MS)?,
        // An older program counts none.
        overdue: if item.contains_key(a::OVERDUE) { count(a::OVERDUE)? } else { 0 },
    };
    Ok(Flow {
        version: read.number(a::VERSION)?,
        bucket: Bucket::from_us(read.number(a::BUCKET_US)?),
        breaker,
        rests_until: time(a::RESTS_UNTIL_MS)?,
        busy_until: time(a::BUSY_UNTIL_MS)?,
        paused: time(a::PAUSED_AT_MS)?.map(|since| read_pause(&read, since)).transpose()?,
    })
}

fn write_ticket(flavour: &FlavourName, ticket: &Ticket) -> Item {
    let mut item = keys::ticket(flavour, ticket.id).into_map();
    item.insert(a::MADE_AT_MS.to_owned(), n(ticket.made_at.as_ms()));
    match ticket.state {
        TicketState::Due { at } => item.insert(a::DUE_AT_MS.to_owned(), n(at.as_ms())),
        TicketState::Asked => None,
        TicketState::Taken { at } => item.insert(a::TAKEN_AT_MS.to_owned(), n(at.as_ms())),
    };
    item
}

pub(super) fn read_ticket(item: &Item) -> Result<Ticket, StoreError> {
    let read = Reader(item);
    let time = |name| Ok::<_, StoreError>(read.optional_number(name)?.map(Timestamp::from_ms));
    let state = match (time(a::TAKEN_AT_MS)?, time(a::DUE_AT_MS)?) {
        (Some(at), _) => TicketState::Taken { at },
        (None, Some(at)) => TicketState::Due { at },
        (None, None) => TicketState::Asked,
    };
    let made_at = Timestamp::from_ms(read.number(a::MADE_AT_MS)?);
    Ok(Ticket { id: read_ticket_id(item)?, made_at, state })
}

fn read_ticket_id(item: &Item) -> Result<TicketId, StoreError> {
    Reader(item).text(SK, TicketId::parse)
}

#[cfg(test)]
mod tests {
    use broker_domain::Pause;

    use super::super::keys::PK;
    use super::*;

    #[test]
    fn flows_and_tickets_read_back_as_they_are_stored() {
        let (flavour, at) = (FlavourName::new("small").unwrap(), Timestamp::from_ms);
        let breaker = HookBreaker { unanswered: 5, probes: 2, probe_at: Some(at(7)), overdue: 3 };
        let full = Flow {
            version: 3,
            bucket: Bucket::from_us(9_000),
            breaker,
            rests_until: Some(at(8)),
            busy_until: Some(at(9)),
            paused: Some(Pause::new("maria", at(10))),
        };
        for flow in [Flow::default(), full] {
            assert_eq!(read_flow(&write_flow(&flavour, &flow)).unwrap(), flow);
        }
        let ticket = Ticket::new(TicketId::from_uuid(Uuid::from_u128(7)), at(5));
        for state in [ticket.state, TicketState::Asked, TicketState::Taken { at: at(6) }] {
            let ticket = Ticket { state, ..ticket };
            let item = write_ticket(&flavour, &ticket);
            assert_eq!(item.get(PK).unwrap().as_s().unwrap(), "TICKET#small");
            assert_eq!(read_ticket(&item).unwrap(), ticket);
        }
    }
}
